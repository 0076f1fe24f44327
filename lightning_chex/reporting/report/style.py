"""How the page looks: on a desk, on a phone, in the dark and on paper."""

from lightning_chex.reporting.report.palette import color_css

_LIGHT = "--paper:#fff;--ink:#1b1f24;--soft:#5b6570;--line:#d9dee3;--tint:#f3f5f7;--published:#fbf4e4;--link:#0b5cad;"
_DARK = "--paper:#14171b;--ink:#e8ebee;--soft:#a2adb8;--line:#343b43;--tint:#1d2228;--published:#2a2517;--link:#7ab8ff;"

_RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue","Liberation Sans",Arial,sans-serif}
main{max-width:1280px;margin:0 auto;padding:1.5rem 1.25rem 4rem}
h1{font-size:1.8rem;line-height:1.2;margin:.4rem 0 1rem;letter-spacing:-.01em}
h2{font-size:1.3rem;line-height:1.25;margin:0 0 .6rem}
header h2{margin-top:1.6rem}
h3{font-size:1rem;margin:1.4rem 0 .5rem}
h3 small{font-weight:400;color:var(--soft)}
p,ul,dl{max-width:76ch;margin:.5rem 0}
a{color:var(--link)}
.lede{font-size:1.05rem}
.outcome{padding:.9rem 1.1rem .9rem 2rem;background:var(--tint);border-left:4px solid var(--link);border-radius:4px}
.outcome{list-style:none;padding-left:1.1rem;max-width:88ch}
.outcome li+li{margin-top:.7rem}
.outcome p{margin:.15rem 0;max-width:none}
.how{color:var(--soft)}
.how b{color:var(--ink)}
.note,figcaption{color:var(--soft);font-size:.85rem}
nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;padding:.7rem 0;max-width:none;
border-top:1px solid var(--line);border-bottom:1px solid var(--line);margin-top:1.6rem}
section{padding-top:2rem;margin-top:.6rem}
dl.facts{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1.1rem;max-width:none}
dl.facts dt{font-weight:600}
dd{margin:0;overflow-wrap:anywhere}
details{margin:.8rem 0;max-width:100%}
summary{cursor:pointer;color:var(--link)}
details dl{font-size:.9rem;max-width:none}
details dt{font-weight:600;margin-top:.4rem}
details dd{padding-left:1rem}
details dl dl{border-left:1px solid var(--line);padding-left:.8rem}
.table{margin:1.2rem 0}
.scroll{overflow-x:auto;width:fit-content;max-width:100%}
.scroll{border-top:2px solid var(--ink);border-bottom:2px solid var(--ink)}
.scroll:focus-visible{outline:2px solid var(--link)}
table{border-collapse:separate;border-spacing:0;font-size:.9rem;font-variant-numeric:tabular-nums}
.caption{font-weight:600;margin:0 0 .4rem}
tbody th[scope=rowgroup] span{position:sticky;left:.55rem;display:inline-block;max-width:80vw;white-space:normal}
th,td{padding:.3rem .55rem;text-align:right;vertical-align:top;white-space:nowrap}
thead th{font-weight:600;vertical-align:bottom;border-bottom:1px solid var(--line);white-space:normal;min-width:5.2rem;
max-width:10rem}
thead th.paper{min-width:7rem}
thead th.group{text-align:center;max-width:none}
th.name{text-align:left;position:sticky;left:0;background:var(--paper);z-index:1;white-space:nowrap;min-width:0}
th small,td small{display:block;color:var(--soft);font-size:.84em;font-weight:400;line-height:1.25}
tbody th{font-weight:500}
tbody tr+tr>*{border-top:1px solid var(--line)}
tbody th[scope=rowgroup]{text-align:left;font-weight:600;font-size:.85rem;padding-top:.7rem;color:var(--soft)}
tbody.controls tr>*,tbody.paper tr>*{background:var(--tint)}
tbody.controls tr:first-child>*,tbody.paper tr:first-child>*{border-top:2px solid var(--line)}
tbody.controls th.name{font-style:italic}
.table .paper{color:var(--soft);background:var(--published)}
.table .paper th{background:var(--published)}
td b{font-weight:700}
thead tr+tr .first,tbody .first{border-left:1px solid var(--line)}
td.none{color:var(--soft)}
figure{margin:1.2rem 0}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr));gap:1rem}
.chart{width:100%;max-width:640px;height:auto;display:block;font-family:inherit;overflow:visible}
.chart text{fill:var(--ink);font-size:13px}
.chart .chart-title{font-weight:600;font-size:14px}
.chart .axis{text-anchor:middle;fill:var(--soft)}
.chart .tick{fill:var(--soft);font-size:12px}
.chart .label{font-size:12.5px;paint-order:stroke;stroke:var(--paper);stroke-width:3px;fill:var(--c)}
.grid line{stroke:var(--line);stroke-width:1}
.grid line.zero{stroke:var(--soft)}
.curve{fill:none;stroke:var(--c);stroke-width:1.8;stroke-linejoin:round}
.band{fill:var(--c);opacity:.11}
.bar,.leader{stroke:var(--c);stroke-width:1.4}
.bar{opacity:.75}
.leader{opacity:.6;stroke-width:.8}
.mark{stroke:var(--c);stroke-width:1.6}
.solid{fill:var(--c);stroke:var(--paper);stroke-width:1}
.hollow{fill:var(--paper)}
.best{fill:none;stroke:var(--soft);stroke-width:1.6}
.chart .best-word{fill:var(--soft);font-size:12px;font-style:italic}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.15rem 1.1rem;padding:0;margin:.4rem 0;font-size:.85rem;
max-width:none}
.charts .legend{flex-direction:column;align-self:center}
.legend li{display:flex;align-items:center;gap:.4rem;white-space:pre}
.legend i{color:var(--soft)}
.strip{display:grid;grid-template-columns:repeat(auto-fill,minmax(138px,1fr));gap:.7rem}
.strip figure{margin:0}
.strip figure.xray{grid-column:span 2;grid-row:span 2}
.strip svg{display:block;width:100%;height:auto;background:#000;border-radius:2px}
.strip .control svg{outline:2px dashed var(--soft);outline-offset:-1px}
.strip figcaption{display:flex;flex-direction:column;line-height:1.3;padding-top:.2rem;
overflow-wrap:anywhere}
.strip figcaption span{color:var(--ink)}
.strip .control figcaption span{font-style:italic}
.region{fill:none;stroke:#35e0d0;stroke-width:1.5px;vector-effect:non-scaling-stroke}
.z0{stroke:#c3ccd4}.z1{stroke:#f0d050}.z2{stroke:#ff9a4a}.z3{stroke:#ff5c57}
.score{fill:#fff;text-anchor:middle;font-weight:700;paint-order:stroke;stroke:#000;stroke-width:.25em}
@media(max-width:640px){
body{font-size:15px}
main{padding:1rem .9rem 3rem}
h1{font-size:1.45rem}
dl.facts{grid-template-columns:1fr;gap:0}
dl.facts dd{margin-bottom:.5rem}
.charts .legend{flex-direction:row}
th,td{padding:.3rem .5rem}
.strip{grid-template-columns:repeat(auto-fill,minmax(108px,1fr))}
}
@media print{
main{max-width:none;padding:0}
body{font-size:10pt}
nav{display:none}
section{padding-top:1rem}
.scroll{overflow:visible}
table{font-size:7.5pt}
th,td{padding:.15rem .3rem}
thead th{min-width:0}
th.name{position:static}
figure,.example,tr,.how{break-inside:avoid}
h2,h3,.how,.caption{break-after:avoid}
.strip{grid-template-columns:repeat(7,1fr)}
.charts{grid-template-columns:1fr 1fr}
details::details-content{content-visibility:visible;block-size:auto}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
"""


def css() -> str:
    """The style sheet; paper is always light."""
    light, dark = f":root{{{_LIGHT}}}{color_css(False)}", f":root{{{_DARK}}}{color_css(True)}"
    return f"{light}@media screen and (prefers-color-scheme:dark){{{dark}}}{_RULES}".replace("\n", "")
