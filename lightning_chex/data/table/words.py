"""Words that tables use: for yes and no, for splits, for a healthy image."""

import re

CELLS = {
    **dict.fromkeys(["1", "1.0", "true", "yes", "y", "t", "positive", "pos", "present"], "positive"),
    **dict.fromkeys(
        ["ja", "j", "oui", "sí", "si", "sim", "wahr", "vrai", "positiv", "positif", "positivo", "是", "有", "阳性"],
        "positive",
    ),
    **dict.fromkeys(["0", "0.0", "false", "no", "n", "f", "negative", "neg", "absent"], "negative"),
    **dict.fromkeys(
        ["nein", "non", "não", "nao", "falsch", "faux", "negativ", "négatif", "negativo", "否", "无", "無", "阴性"],
        "negative",
    ),
    **dict.fromkeys(["-1", "-1.0", "u", "uncertain", "?", "unclear", "maybe", "equivocal", "possible"], "uncertain"),
    **dict.fromkeys(
        ["unsicher", "fraglich", "incertain", "douteux", "dudoso", "incierto", "incerto", "duvidoso", "可疑", "不确定"],
        "uncertain",
    ),
    **dict.fromkeys(["", *["nan", "na", "n/a", "<na>", "null", "none", "nd", "-", "missing", "unknown"]], "missing"),
    **dict.fromkeys(["unbekannt", "k.a.", "inconnu", "desconocido", "desconhecido", "未知"], "missing"),
}
"""What a cell of a class column says, in small letters."""

SPLITS = {
    **dict.fromkeys(["train", "training", "trn", "tr"], "train"),
    **dict.fromkeys(["val", "valid", "validation", "validate", "dev", "tune"], "val"),
    **dict.fromkeys(["test", "testing", "tst", "holdout", "evaluation"], "test"),
}
"""The split that a cell names, in small letters."""

_HEALTHY = {
    "nofinding",
    "nofindings",
    "normal",
    "none",
    "healthy",
    "negative",
    "noabnormality",
    "nopathology",
    "unauffällig",
    "ohnebefund",
    "ob",
    "keinbefund",
    "sansparticularité",
    "rienàsignaler",
    "sinhallazgos",
    "semachados",
    "正常",
    "未见异常",
}

HINTS = {
    "image": "image imag imagen bild photo foto fichier archivo arquivo datei file cliché radiograph dicom"
    " 图像 影像 文件",
    "patient": "patient patnr patid paciente subject pid mrn 患者 病人",
    "labels": "label finding befund diagnos patholog class hallazgo achado résultat resultat constatation"
    " 诊断 所见 标签",
    "score": "score severity schwere gravit gravedad gravidade sévérité puntua pontua punktzahl 评分 得分 严重",
    "age": "alter patientenalter edad idade âge 年龄",
}
"""Parts of column names that hint at a role, in small letters without blanks: English, German, French, Spanish,
Portuguese and Chinese."""

FINDINGS = [
    "pneum",
    "neumo",
    "edem",
    "ödem",
    "œdèm",
    "fractur",
    "fraktur",
    "fratura",
    "mass",
    "raumforderung",
    "nodul",
    "nódul",
    "rundherd",
    "effus",
    "erguss",
    "derrame",
    "épanch",
    "cardiomeg",
    "kardiomeg",
    "infiltr",
    "atelect",
    "atelekt",
    "atélect",
    "atelec",
    "consolid",
    "konsolid",
    "fibros",
    "emphys",
    "enfis",
    "enfisema",
    "tuberc",
    "tumor",
    "herni",
    "hérni",
    "opaci",
    "verschatt",
    "stauung",
    "肺炎",
    "积液",
    "结节",
    "骨折",
    "水肿",
    "气胸",
    "肿块",
    "心脏",
]
"""Parts of the names of findings of the chest, in small letters."""

VIEWS = {
    "pa",
    "ap",
    "p.a.",
    "a.p.",
    "ll",
    "lat",
    "lateral",
    "frontal",
    "seitlich",
    "face",
    "profil",
    "perfil",
    "正位",
    "侧位",
    "postero-anterior",
    "antero-posterior",
}
SEXES = {
    "m",
    "f",
    "w",
    "h",
    "d",
    "o",
    "male",
    "female",
    "man",
    "woman",
    "männlich",
    "weiblich",
    "masculin",
    "féminin",
    "homme",
    "femme",
    "hombre",
    "mujer",
    "masculino",
    "femenino",
    "feminino",
    "男",
    "女",
}
"""Words for the sex of a patient, in small letters; single letters are the initials of these."""


def plain(name: str) -> str:
    """Keep letters, in lower case, and digits of a name: ``Image Index`` and ``image_index`` are the same."""
    return re.sub(r"[\W_]", "", name.lower())


def hints_at(name: str, role: str) -> bool:
    """Whether the name of a column hints at a role of `HINTS`; for the age it has to begin with the part."""
    own = plain(name)
    parts = HINTS[role].split()
    return own.startswith(tuple(parts)) if role == "age" else any(part in own for part in parts)


def is_healthy(name: str) -> bool:
    """Whether a label says that there is no finding."""
    return plain(name) in _HEALTHY
