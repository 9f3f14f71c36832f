"""The look of the report: one style sheet, light and dark, no font and no picture from outside."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

from affuse.core.labels import canonical

LIGHT = {
    "page": "#f4f6f8",
    "surface": "#ffffff",
    "ink": "#141a21",
    "muted": "#53606d",
    "line": "#dbe1e7",
    "accent": "#0a6c67",
    "second": "#4450b0",
    "third": "#a3570a",
    "soft": "#d5ebe8",
    "warn": "#fff1cc",
    "warn-ink": "#5b3d00",
}
DARK = {
    "page": "#0e1216",
    "surface": "#161b21",
    "ink": "#e9edf1",
    "muted": "#a5b0bc",
    "line": "#2d353e",
    "accent": "#55c8bc",
    "second": "#9ba8ff",
    "third": "#f0ad55",
    "soft": "#1d3f3d",
    "warn": "#3d2f0c",
    "warn-ink": "#ffe2a0",
}
# One colour per emotion on every page, picture and terminal. Searched in OKLab for the largest smallest distance of
# the first eight under normal, protan, deutan and tritan vision, each at least 2.6:1 on the dark surface.
EMOTIONS = {
    "neutral": "#868686",
    "calm": "#7cdae5",
    "happy": "#ffbf3e",
    "sad": "#0168c8",
    "angry": "#ba3917",
    "fear": "#784a8c",
    "disgust": "#4db155",
    "surprise": "#f36acb",
    "contempt": "#8a6b2d",
    "excited": "#f0832c",
    "frustrated": "#8f2d56",
    "boredom": "#8ea4bd",
    "worried": "#a48ae0",
    "anxious": "#5a55b8",
    "positive": "#ffbf3e",
    "negative": "#0168c8",
}
SPARE = ("#00897b", "#c98a6b", "#6f7fd0", "#a8b545", "#b05fd0", "#3f8fa8", "#d98cb3", "#7a6a52", "#e0603f", "#5a8a2a")
HEAT = {"light": ("#f1f5f6", "#085a56"), "dark": ("#1e252c", "#7fe3d6")}
HEAT_STEPS = 20


def _channels(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, 0..1 (WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in _channels(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    """Contrast ratio of two colours, 1..21 (WCAG 2.2); 4.5 is AA for text."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def emotion_colours(labels: Sequence[str]) -> dict[str, str]:
    """#rrggbb per label: known emotions have their own, others take the spare ones in order, again and again."""
    known = {label: EMOTIONS.get(canonical(label)) for label in labels}
    taken: set[str] = set()
    spare = cycle(SPARE)
    found = {}
    for label, own in known.items():
        found[label] = own if own and own not in taken else next(spare)
        taken.add(found[label])
    return found


def ink_on(colour: str) -> str:
    """Black or white, whichever reads better on a fill of `colour`."""
    return max("#000000", "#ffffff", key=lambda ink: contrast(colour, ink))


def heat(mode: str) -> list[tuple[str, str]]:
    """(fill, ink) of the heat map's steps, 0 to `HEAT_STEPS`; the ink is black or white, whichever reads better."""
    low, high = (_channels(c) for c in HEAT[mode])
    fills = [
        "#" + "".join(f"{round(a + (b - a) * step / HEAT_STEPS):02x}" for a, b in zip(low, high, strict=True))
        for step in range(HEAT_STEPS + 1)
    ]
    return [(fill, ink_on(fill)) for fill in fills]


def _variables(mode: str, palette: dict[str, str]) -> str:
    plain = [f"--{name}:{colour}" for name, colour in palette.items()]
    steps = [f"--h{i}:{fill};--t{i}:{ink}" for i, (fill, ink) in enumerate(heat(mode))]
    return ";".join([f"color-scheme:{mode}", *plain, *steps])


RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue","Liberation Sans",Arial,sans-serif;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
main{max-width:1120px;margin:0 auto;padding:36px 24px 64px}
h1{font-size:1.15rem;line-height:1.3;margin:0;font-weight:600}
h2{font-size:1.3rem;line-height:1.25;margin:0 0 14px;letter-spacing:-.01em}
h3{font-size:.9rem;margin:0 0 6px;font-weight:600}
p{margin:0 0 12px}
small,.muted{color:var(--muted)}
small{font-size:.84em}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;font-size:.86em}
section{margin-top:48px}
.absent{margin:0;padding-left:20px}
.lead{color:var(--muted);max-width:92ch;margin:-8px 0 16px}
.box{background:var(--surface);border:1px solid var(--line);border-radius:10px;padding:20px}
.part+.part{margin-top:16px}
.part h3:not(:first-child){margin-top:24px}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}
.scroll:focus-visible,summary:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
.warn{background:var(--warn);color:var(--warn-ink);border-radius:10px;padding:12px 16px;margin:0 0 20px;font-weight:600}
.run-line{display:flex;flex-wrap:wrap;gap:2px 14px;align-items:baseline;margin-bottom:20px}
.hero{padding:28px}
.hero .answer{display:flex;flex-wrap:wrap;align-items:flex-end;gap:8px 28px}
.hero .metric{font-size:1.1rem;font-weight:600}
.hero .big{font-size:clamp(2.8rem,13vw,6.5rem);line-height:.95;
font-weight:700;letter-spacing:-.045em;color:var(--accent);
white-space:nowrap}
.hero .beside{flex:1 1 280px;padding-bottom:6px}
.hero .beside strong{font-size:1.35rem;letter-spacing:-.01em}
.hero .beside p{margin:0}
.hero .ruler{margin:26px 0 0}
.others{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:16px 24px;margin:24px 0 0;
padding-top:20px;border-top:1px solid var(--line)}
.others dt{color:var(--muted);font-size:.88rem}
.others dd{margin:0;font-size:1.35rem;font-weight:600;line-height:1.3}
.others dd small{display:block;font-size:.8rem;font-weight:400}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,220px),1fr));gap:16px 28px;margin:0;
grid-auto-flow:dense}
.facts dt{color:var(--muted);font-size:.84rem}
.facts dd{margin:0}
.facts .wide{grid-column:1/-1}
table{border-collapse:collapse;width:100%;font-size:.92rem;overflow-wrap:normal}
th,td{padding:8px 14px 8px 0;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line);vertical-align:top}
th:first-child,td:first-child{text-align:left;white-space:normal;min-width:130px;max-width:280px;overflow-wrap:anywhere}
th{font-weight:600}
thead th{color:var(--muted);font-weight:500;font-size:.84rem}
tbody tr:last-child>*{border-bottom:0}
th:first-child{position:sticky;left:0;background:var(--surface)}
td small{display:block;font-size:.8rem}
tr.full th,tr.full td{font-weight:700;background:var(--soft)}
tr.full small{font-weight:400;color:var(--ink)}
tr.full th:first-child{padding-left:10px;border-radius:6px 0 0 6px}
tr.full td:last-child{border-radius:0 6px 6px 0}
.forest{margin-bottom:20px}
.entry{display:grid;grid-template-columns:minmax(0,230px) minmax(0,1fr) 176px;column-gap:24px;align-items:center}
.entry:not(.axis){clip-path:inset(0)}
.entry .name{line-height:1.3;padding:4px 0}
.entry .name small{display:block}
.entry .value{text-align:right}
.entry .value small{display:inline-block;margin-left:4px;white-space:nowrap}
.entry.full .name,.entry.full .value{font-weight:700}
.entry.full small{font-weight:400}
.classes{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:14px 40px}
.class{display:grid;grid-template-columns:minmax(0,130px) minmax(0,1fr);column-gap:14px;align-items:center}
.class .name{line-height:1.25}
.class .name small{display:block;white-space:nowrap}
.legend{display:flex;flex-wrap:wrap;gap:4px 20px;margin:0 0 14px;font-size:.88rem;color:var(--muted)}
.legend i{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:6px;vertical-align:-1px}
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr));gap:24px}
.beside-figure{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,380px),1fr));gap:20px 40px;
align-items:center}
details{background:var(--surface);border:1px solid var(--line);border-radius:10px}
details+details{margin-top:12px}
summary{cursor:pointer;padding:14px 20px;font-weight:600}
details>*:not(summary){margin:0 20px 20px}
pre{margin:0;white-space:pre;line-height:1.5;overflow-wrap:normal}
footer{margin-top:48px;color:var(--muted);font-size:.88rem}
svg{display:block;overflow:visible;font-size:12px}
svg.fluid{width:100%}
svg.scaled{width:100%;height:auto;max-width:460px}
.matrix{display:flex;width:max-content;margin:0 auto}
.matrix svg{flex:none}
.matrix .sides{position:sticky;left:0;background:var(--surface)}
svg text{fill:var(--ink)}
svg .tick,svg .minor{fill:var(--muted)}
svg .minor{font-size:11px}
.grid{stroke:var(--line);stroke-width:1}
.base{stroke:var(--muted);stroke-width:1}
.ideal{stroke:var(--muted);stroke-width:1.5;stroke-dasharray:4 4;fill:none}
.band{fill:var(--soft)}
.whisker{stroke:var(--second);stroke-width:2.5;stroke-linecap:round}
.dot{fill:var(--second);stroke:var(--surface);stroke-width:2}
.full .whisker{stroke:var(--accent);stroke-width:4}
.full .dot{fill:var(--accent)}
.baseline .whisker{stroke:var(--muted)}
.baseline .dot{fill:var(--surface);stroke:var(--muted)}
.precision{fill:var(--second)}
.recall{fill:var(--accent)}
.f1{fill:var(--third)}
i.precision{background:var(--second)}
i.recall{background:var(--accent)}
i.f1{background:var(--third)}
.rest{fill:var(--line);opacity:.45}
.bin{fill:var(--soft);stroke:var(--accent);stroke-width:1}
.count{fill:var(--muted);opacity:.55}
.point{fill:var(--accent);stroke:var(--surface);stroke-width:1.5}
.one{fill:none;stroke:var(--second);stroke-width:1.2;opacity:.5}
.mean{fill:none;stroke:var(--accent);stroke-width:2.5;stroke-linejoin:round}
.trace{fill:none;stroke-width:2.5;stroke-linejoin:round}
.hue0{stroke:var(--accent)}
.hue1{stroke:var(--second)}
.hue2{stroke:var(--third)}
.dash1{stroke-dasharray:7 4}
.dash2{stroke-dasharray:2 3}
svg.key{display:inline-block;margin-right:6px;vertical-align:1px}
.chosen{fill:var(--surface);stroke:var(--second);stroke-width:1.8}
.diagonal{fill:none;stroke:var(--ink);stroke-width:1.5}
@media (max-width:720px){
main{padding:20px 16px 48px}
section{margin-top:36px}
.box,.hero{padding:16px}
.entry{grid-template-columns:minmax(0,1fr) auto;row-gap:4px;padding:6px 0}
.entry:not(.axis){clip-path:none}
.entry svg{grid-column:1/-1;grid-row:2}
.entry:not(.axis) svg{clip-path:inset(0 -12px)}
.entry.axis span{display:none}
.class{grid-template-columns:minmax(0,1fr);row-gap:4px}
.class .name small{display:inline;margin-left:8px}
.others,.facts{grid-template-columns:repeat(2,minmax(0,1fr))}
}
@media print{body{background:none}.box,section{break-inside:avoid}.scroll{overflow:visible}}
"""


def stylesheet() -> str:
    """The whole style sheet as text for a <style> element."""
    cells = "".join(f".h{i}{{fill:var(--h{i})}}svg .t{i}{{fill:var(--t{i})}}" for i in range(HEAT_STEPS + 1))
    light, dark = _variables("light", LIGHT), _variables("dark", DARK)
    return f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}{RULES}{cells}"
