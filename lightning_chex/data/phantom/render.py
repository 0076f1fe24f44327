"""A radiograph of one patient: anatomy, pose and findings become grey values with their exact masks."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from lightning_chex.class_names import PATHOLOGIES
from lightning_chex.data.images.lung_masks import Mask
from lightning_chex.data.phantom import bones, chest, findings, severity
from lightning_chex.data.phantom.anatomy import Anatomy, draw_anatomy
from lightning_chex.data.phantom.drawing import Canvas, Layer, Pose
from lightning_chex.data.phantom.findings import Appearance
from lightning_chex.data.phantom.foreign import Foreign, lay

# first word of a random stream, after the seed: what the stream decides
PATIENT, VIEW, LABEL, _PICTURE, SHORTCUT = range(5)

_CARDIOMEGALY = PATHOLOGIES.index("Cardiomegaly")
_AIR = 0.56  # attenuation that a lung at its deepest takes away
_HEART_SOLID = 0.86  # share of it that heart and great vessels put back
_VESSEL = 0.36  # and the vessels of the lung
_COLLAPSE = 0.32  # air between lung and chest wall takes away this much more
_LEFT = 100  # purpose of the stream of a finding in the left lung, if there is one in each, beyond the class
# below this share of its density a finding is nothing: what it would add there is cut off, so its mask is exact
_FAINT = 0.12
# parts smaller than this share of the image, or of the largest part, are drops cut off by a border, not findings
_DROP = 6e-4
_SLIVER = 0.12


AS_USUAL = Appearance()


@dataclass(frozen=True)
class View:
    """Acquisition parameters of one image of a patient.

    Attributes:
        pose: of the patient.
        black: attenuation shown as black.
        white: attenuation shown as white.
        gamma: of the grey scale.
        noise: standard deviation of the quantum noise in attenuation.
        marker: whether a side marker was laid on the detector.
    """

    pose: Pose
    black: float
    white: float
    gamma: float
    noise: float
    marker: bool


@dataclass(frozen=True)
class Radiograph:
    """An image and all that is in it.

    Attributes:
        pixels: uint8 (H, W).
        lungs: bool (2, H, W), beside heart and great vessels, the patient's right lung first.
        heart: bool (H, W).
        findings: bool (8, H, W), exactly the pixels that each of ``PATHOLOGIES`` may have changed.
        boxes: float32 (N, 4), the bounds x1, y1, x2, y2 of each connected part of a finding; x2, y2 exclusive.
        box_labels: int64 (N,), index into ``PATHOLOGIES``.
    """

    pixels: npt.NDArray[np.uint8]
    lungs: Mask
    heart: Mask
    findings: Mask
    boxes: npt.NDArray[np.float32]
    box_labels: npt.NDArray[np.int64]


def random_stream(seed: int, purpose: int, number: int) -> np.random.Generator:
    """Return the generator of a patient, view or label, by its number in the population ``seed``."""
    return np.random.default_rng([seed, purpose, number])


def take(
    size: int,
    seed: int,
    patient: int,
    number: int,
    present: Collection[str] = (),
    scores: npt.NDArray[np.int64] | None = None,
    appearance: Appearance = AS_USUAL,
    foreign: Foreign | None = None,
) -> Radiograph:
    """Take image ``number`` of a population, which shows ``patient``.

    ``foreign`` is laid on it; if it is a marker it takes the place of the view's own. For the other arguments see
    ``render``.
    """
    anatomy = draw_anatomy(random_stream(seed, PATIENT, patient))
    view = draw_view(random_stream(seed, VIEW, number))
    if foreign is not None and foreign.kind == "marker":
        view = replace(view, marker=False)
    taken = render(size, anatomy, view, (seed, _PICTURE, number), present, scores, appearance)
    if foreign is not None:
        lay(taken.pixels, foreign)
    return taken


def draw_view(rng: np.random.Generator) -> View:
    """Draw pose and exposure of one image."""
    pose = Pose(
        angle=float(np.deg2rad(rng.normal(0, 1.3))),
        scale=float(rng.uniform(0.95, 1.06)),
        shift=(float(rng.uniform(-0.025, 0.025)), float(rng.uniform(-0.02, 0.03))),
    )
    black = float(rng.uniform(0.0, 0.08))
    return View(
        pose=pose,
        black=black,
        white=float(rng.uniform(1.02, 1.16)),
        gamma=float(rng.uniform(0.95, 1.25)),
        noise=float(rng.uniform(0.008, 0.02)),
        marker=bool(rng.random() < 0.6),
    )


def render(
    size: int,
    anatomy: Anatomy,
    view: View,
    entropy: Sequence[int],
    present: Collection[str] = (),
    scores: npt.NDArray[np.int64] | None = None,
    appearance: Appearance = AS_USUAL,
) -> Radiograph:
    """Take one image.

    Args:
        size: height and width in pixels.
        anatomy: the patient.
        view: pose and exposure.
        entropy: seeds the streams of noise and findings; each finding has its own, so none depends on the others.
        present: the pathologies to draw, of ``PATHOLOGIES``.
        scores: Brixia scores of the six zones, None for none.
        appearance: contrast, size and sides of the findings; the size of an enlarged heart and of fallen lungs, and
            the zones of the scores, do not depend on it.
    """

    def stream(purpose: int) -> np.random.Generator:
        return np.random.default_rng([*entropy, purpose])

    canvas = Canvas(size, view.pose)
    ratio = anatomy.cardiothoracic
    if "Cardiomegaly" in present:
        ratio = 0.5 + appearance.conspicuity * float(stream(_CARDIOMEGALY).uniform(0.06, 0.16))
    heart = _cut(canvas.soft(canvas.fill(anatomy.heart(ratio)), 0.005))
    solid = np.maximum(heart, canvas.soft(canvas.fill(anatomy.mediastinum), 0.004))

    filled = [canvas.fill(lung) for lung in anatomy.lungs]
    lungs = np.stack([(lung > 127) & (solid <= 0.5) for lung in filled])
    both = filled[0] | filled[1]
    depth = canvas.soft(both, 0.003) * (0.45 + 0.6 * canvas.soft(both, 0.045))
    # opacities fill the lung up to its blurred border, or a dark rim would remain
    rim = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _rim(size) + 1,) * 2)
    spaces = np.stack([cv2.dilate(lung.view(np.uint8), rim).view(bool) & (solid < 0.95) for lung in lungs])

    site = findings.Site(canvas, anatomy, spaces, ratio, appearance=appearance)
    disease = _disease(site, present, stream)
    if "Cardiomegaly" in present:
        disease.masks[_CARDIOMEGALY] = heart > 0
    clear = 1 - disease.density
    if scores is not None and scores.any():
        opacity = severity.opacities(canvas, spaces, scores, stream(len(PATHOLOGIES)))
        clear *= 1 - np.minimum(1, appearance.conspicuity * opacity)

    noise = stream(len(PATHOLOGIES) + 1)
    texture = 1 + 0.05 * canvas.clouds(noise, 0.02) + 0.05 * canvas.clouds(noise, 0.1)
    texture *= 1 - _VESSEL * chest.vessels(canvas, anatomy) * (1 - disease.collapse)
    air = depth * texture * (1 - _HEART_SOLID * solid) * (1 + _COLLAPSE * disease.collapse) * clear
    attenuation = chest.soft_tissue(canvas, anatomy) - _AIR * air + bones.shoulders_and_spine(canvas, anatomy)
    # scattered radiation washes ribs out before solid organs
    attenuation += bones.ribs(canvas, anatomy) * (0.3 + 0.7 * depth * (1 - 0.55 * solid))
    attenuation -= 0.16 * chest.airways(canvas, anatomy) + 0.13 * chest.gas_bubble(canvas, anatomy)
    boxes, box_labels = _boxes(disease.masks)
    return Radiograph(_expose(attenuation, view, noise), lungs, heart > 0.5, disease.masks, boxes, box_labels)


def _rim(size: int) -> int:
    return max(2, round(0.012 * size))


@dataclass(frozen=True)
class _Disease:
    """Effect of findings on the air of the lungs: ``density`` replaces it, ``collapse`` removes its vessels."""

    density: Layer
    collapse: Layer
    masks: Mask


def _disease(site: findings.Site, present: Collection[str], stream: Callable[[int], np.random.Generator]) -> _Disease:
    size = site.canvas.size
    conspicuity = site.appearance.conspicuity
    masks = np.zeros((len(PATHOLOGIES), size, size), bool)
    clear = np.ones((size, size), np.float32)
    collapse = np.zeros((size, size), np.float32)
    if "Pneumothorax" in present:
        k = PATHOLOGIES.index("Pneumothorax")
        fallen = findings.pneumothorax(site, stream(k))
        zone = _trimmed(fallen.air)
        pleura = _trimmed(fallen.pleura)
        masks[k] = (zone > 0) | (pleura > 0)
        collapse = min(1.0, conspicuity) * zone
        clear -= np.minimum(1, 0.5 * conspicuity * pleura)
        # other findings go to the other lung, as they would float in the air of the collapsed one
        site = replace(site, sides=(1 - fallen.side,))
    for name, draw in findings.DENSITIES.items():
        if name in present:
            k = PATHOLOGIES.index(name)
            if site.appearance.bilateral:
                # a stream for each side: an image of one side is the same whether or not the other is drawn
                each = ((replace(site, sides=(side,)), stream(k + side * _LEFT)) for side in site.sides)
                drawn = np.maximum.reduce([_trimmed(draw(*own)) for own in each])
            else:
                drawn = _trimmed(draw(site, stream(k)))
            masks[k] = drawn > 0
            clear *= 1 - np.minimum(1, conspicuity * drawn)
    return _Disease(1 - clear, collapse, masks)


def _expose(attenuation: Layer, view: View, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    size = len(attenuation)
    quanta = rng.standard_normal((size, size), dtype=np.float32)
    attenuation = attenuation + view.noise * (0.5 * quanta + cv2.GaussianBlur(quanta, (0, 0), 0.8))
    shown = np.clip((attenuation - view.black) / (view.white - view.black), 0, 1)
    grey = (250 * shown**view.gamma).astype(np.uint8)
    lay(grey, Foreign("marker", view.marker))
    return grey


def _cut(density: Layer) -> Layer:
    return density * (density > _FAINT * density.max())


def _trimmed(density: Layer) -> Layer:
    """Cut off what is too faint to see and drops apart from the rest; what stays above 0 is the finding's mask."""
    density = _cut(density)
    _, labels, stats, _ = cv2.connectedComponentsWithStats((density > 0).view(np.uint8), ltype=cv2.CV_16U)
    areas = stats[:, cv2.CC_STAT_AREA]
    largest = areas[1:].max(initial=0)
    small = areas < min(max(_DROP * density.size, _SLIVER * largest), largest)
    small[0] = False
    return density * ~small[labels] if small.any() else density


def _boxes(masks: Mask) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    boxes = [np.zeros((0, 4), np.float32)]
    owners = []
    for k, mask in enumerate(masks):
        if mask.any():
            stats = cv2.connectedComponentsWithStats(mask.view(np.uint8), ltype=cv2.CV_16U)[2][1:]
            corner = stats[:, [cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP]]
            extent = stats[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]]
            boxes.append(np.concatenate([corner, corner + extent], 1).astype(np.float32))
            owners += [k] * len(stats)
    return np.concatenate(boxes), np.array(owners, np.int64)
