"""A folder of recordings whose file names carry the labels: by a published rule (SAVEE, TESS, ...) or a pattern."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from affuse.core import io
from affuse.core.errors import BadConfig, BadCorpus, UnknownName
from affuse.core.labels import space as label_space
from affuse.corpora.manifest import Corpus, check_counts, write_corpus
from affuse.corpora.reading.release import PICTURE, SOUND, below

CARD = {
    "summary": "files that are named after their labels: SAVEE, TESS, ShEMO, AESDD, EMOVO, CaFE, SUBESCO, or your own "
    "rule",
    "source": "the file names themselves; rules as their releases describe them",
    "entry": "import_named",
    "licence": "that of the release",
    "download": "the release's sound or video files, in any folders",
    "layout": "rule=savee|tess|shemo|aesdd|emovo|cafe|subesco, or pattern=REGULAR_EXPRESSION with a group "
    "(?P<label>...) and labels=a=angry,...",
    "counts": {"savee": 480, "tess": 2800, "shemo": 3000, "emovo": 588, "cafe": 936, "subesco": 7000},
    "splits": "none of its own; groups are speakers where the names tell them (TESS has two only)",
}
_RESERVED = {"video", "audio", "start", "end"}
_LIMIT = 5.0  # seconds for all names: an honest pattern needs milliseconds
# Runs the user's pattern where it can be stopped: one that backtracks for ever cannot be interrupted in this process.
_MATCHER = """
import json, re, sys
pattern, names = json.load(sys.stdin)
pattern = re.compile(pattern)
found = [pattern.fullmatch(name) for name in names]
json.dump([m and {k: v or "" for k, v in m.groupdict().items()} for m in found], sys.stdout)
"""


@dataclass(frozen=True)
class Rule:
    """How a release names its files; `published` holds files per speaker where the release is known to be so."""

    pattern: str
    labels: Mapping[str, str]
    language: str
    total: int = 0
    published: Mapping[str, int] = field(default_factory=dict)


RULES = {
    # DC_a01.wav, or a01.wav in the folder DC
    "savee": Rule(
        r"(?:.*/)?(?P<speaker>DC|JE|JK|KL)[_/](?P<label>sa|su|[adfhn])(?P<sentence>\d\d)",
        {"a": "angry", "d": "disgust", "f": "fear", "h": "happy", "n": "neutral", "sa": "sad", "su": "surprise"},
        "en",
        480,
        dict.fromkeys(("DC", "JE", "JK", "KL"), 120),
    ),
    # OAF_back_angry.wav; one file of the release is named OA_bite_neutral.wav
    "tess": Rule(
        r"(?:.*/)?(?P<speaker>[OY]A)F?_(?P<sentence>[a-z]+)_(?P<label>angry|disgust|fear|happy|neutral|ps|sad)",
        {w: w for w in ("angry", "disgust", "fear", "happy", "neutral", "sad")} | {"ps": "surprise"},
        "en",
        2800,
        {"OA": 1400, "YA": 1400},
    ),
    # F01A01.wav: woman 1, anger, utterance 1
    "shemo": Rule(
        r"(?:.*/)?(?P<speaker>(?P<gender>[FM])\d\d)(?P<label>[AFHNSW])(?P<sentence>\d\d)",
        {"A": "angry", "F": "fear", "H": "happy", "N": "neutral", "S": "sad", "W": "surprise"},
        "fa",
        3000,
    ),
    # a03 (4).wav: anger, sentence 3, speaker 4
    "aesdd": Rule(
        r"(?:.*/)?(?P<label>[adfhs])(?P<sentence>\d\d) ?\((?P<speaker>\d)\)(?P<take>b?)",
        {"a": "angry", "d": "disgust", "f": "fear", "h": "happy", "s": "sad"},
        "el",
    ),
    # dis-f1-b1.wav
    "emovo": Rule(
        r"(?:.*/)?(?P<label>dis|gio|neu|pau|rab|sor|tri)-(?P<speaker>(?P<gender>[fm])[123])-(?P<sentence>[bdln]\d)",
        {
            "dis": "disgust",
            "gio": "happy",
            "neu": "neutral",
            "pau": "fear",
            "rab": "angry",
            "sor": "surprise",
            "tri": "sad",
        },
        "it",
        588,
    ),
    # 01-A-1-1.wav: actor, emotion, intensity (1 weak, 2 strong), sentence
    "cafe": Rule(
        r"(?:.*/)?(?P<speaker>\d\d)-(?P<label>[CDJNPST])-(?P<intensity>[12])-(?P<sentence>[1-6])",
        {"C": "angry", "D": "disgust", "J": "happy", "N": "neutral", "P": "fear", "S": "surprise", "T": "sad"},
        "fr",
        936,
    ),
    # F_02_OISHI_S_1_ANGRY_5.wav
    "subesco": Rule(
        r"(?:.*/)?(?P<speaker>(?P<gender>[FM])_\d\d)_[A-Z]+_S_(?P<sentence>\d+)_(?P<label>ANGRY|DISGUST|FEAR|HAPPY|NEUTRAL|SAD|SURPRISE)_(?P<take>\d+)",
        {},
        "bn",
        7000,
    ),
}


def import_named(
    src: Path,
    dst: Path,
    *,
    partial: bool = False,
    rule: str = "",
    pattern: str = "",
    labels: str = "",
    space: str = "",
    language: str = "",
    name: str = "",
) -> Corpus:
    """Import the sound and video files below `src` that the rule or pattern matches, as one utterance per name.

    `pattern` is matched against the whole file name without its suffix, or, where it holds a slash, the whole path
    below `src`. Its named groups are columns: label (needed), speaker, sentence, intensity, take, language,
    conversation, id... `labels` says what the codes mean: "a=angry,d=disgust". Sound and picture of one name are one
    utterance. Raises BadConfig for patterns that are invalid or never end, BadCorpus where nothing matches or a code
    has no meaning.
    """
    files = [p for p in below(src) if p.suffix.lower() in PICTURE | SOUND and p.is_file()]
    if not files:
        raise BadCorpus(f"no sound and no video files below {src}", "give the folder that holds the recordings")
    if bool(rule) == bool(pattern):
        raise BadConfig(
            "give either rule= or pattern=", f"rules: {', '.join(RULES)}; or pattern='(?P<speaker>..)_(?P<label>.+)'"
        )
    if rule and rule not in RULES:
        raise UnknownName.among("rule", rule, RULES)
    chosen = RULES[rule] if rule else Rule(pattern, {}, language)
    meaning = _pairs(labels) if labels else chosen.labels
    if space:
        label_space(space)
    names = [p.relative_to(src).with_suffix("").as_posix() for p in files]
    matches = _match(chosen.pattern, names, trusted=bool(rule))
    matches = [m if n.isprintable() else None for n, m in zip(names, matches, strict=True)]  # bytes that are no text
    warnings = _unmatched(
        [str(p.relative_to(src)) for p, m in zip(files, matches, strict=True) if m is None], len(files), chosen.pattern
    )
    taken = [(p, n, m) for p, n, m in zip(files, names, matches, strict=True) if m is not None]
    rows = _rows(taken, meaning, warnings)
    if not any(row["speaker"] for row in rows):
        warnings.append("the names tell no speaker: every file is its own group, and speakers may cross splits")
    short = _check(rows, rule, chosen, partial, warnings)
    extra = {"warnings": warnings, "language": language or chosen.language, **({"partial": short} if short else {})}
    return write_corpus(dst, rows, name or rule or src.resolve().name, space, **extra)


def _pairs(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",")]
    wrong = [a for a, sep, b in pairs if not (a.strip() and sep and b.strip())]
    if wrong:
        raise BadConfig(f"labels={text}: '{wrong[0]}' is not code=label", "for example labels=a=angry,d=disgust")
    return {a.strip(): b.strip() for a, _, b in pairs}


def _match(pattern: str, names: Sequence[str], trusted: bool) -> list[dict[str, str] | None]:
    """The named groups of every name, None where it does not match; BadConfig for a pattern that cannot be used."""
    try:
        groups = set(re.compile(pattern).groupindex)
    except (re.error, OverflowError, RecursionError, MemoryError) as error:
        raise BadConfig(
            f"pattern '{pattern}' is no regular expression: {error}", "see Python's re; quote it for the shell"
        ) from error
    if "label" not in groups or groups & _RESERVED:
        raise BadConfig(
            f"pattern '{pattern}' has the groups {', '.join(sorted(groups)) or 'none'}",
            f"name the label: (?P<label>...); {', '.join(sorted(_RESERVED))} cannot come from a name",
        )
    inputs = list(names) if "/" in pattern else [n.rpartition("/")[2] for n in names]
    if trusted:
        return [m and m.groupdict("") for m in map(re.compile(pattern).fullmatch, inputs)]
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _MATCHER],
            input=json.dumps([pattern, inputs]),
            capture_output=True,
            text=True,
            timeout=_LIMIT,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise BadConfig(
            f"pattern '{pattern}' does not end on these names", "avoid repeats of repeats, like (a+)+"
        ) from error
    except subprocess.CalledProcessError as error:
        raise BadConfig(
            f"pattern '{pattern}' fails on these names: {error.stderr.strip()[-200:]}", "simplify it"
        ) from error
    return list(json.loads(done.stdout))


def _unmatched(left: list[str], n: int, pattern: str) -> list[str]:
    """A warning that lists the files left out; BadCorpus where that is all of them."""
    shown = [name.encode("utf-8", "backslashreplace").decode() for name in left[:5]]
    listed = ", ".join(shown) + (", ..." if len(left) > 5 else "")
    if len(left) == n:
        raise BadCorpus(
            f"none of the {n} files is named like '{pattern}': {listed}",
            "the whole name must match, without its suffix",
        )
    return [f"{len(left)} of {n} files are not named by the rule and left out: {listed}"] if left else []


def _rows(
    taken: Sequence[tuple[Path, str, dict[str, str]]], meaning: Mapping[str, str], warnings: list[str]
) -> list[dict[str, object]]:
    """A row per name: the stem if it is unique, else the path; a second copy of a file (same content) is left out."""
    kind = dict.fromkeys(PICTURE, "video") | dict.fromkeys(SOUND, "audio")
    copies: dict[tuple[str, str], set[tuple[str, ...]]] = {}
    times = Counter((path.stem, kind[path.suffix.lower()]) for path, _, _ in taken)
    for path, _, groups in taken:
        place = (path.stem, kind[path.suffix.lower()])
        copies.setdefault(place, set()).add((*groups.values(), io.file_sha256(path) if times[place] > 1 else ""))
    unique = all(len(paths) == 1 for paths in copies.values())
    rows: dict[str, dict[str, object]] = {}
    doubled = 0
    for path, name, groups in taken:
        key = path.stem if unique else name.replace("/", "_")
        code = groups["label"]
        if meaning and code not in meaning:
            raise BadCorpus(f"{path.name}: nothing says what the label '{code}' means", "add it: labels=CODE=NAME,...")
        row = rows.setdefault(key, {"id": key, "speaker": "", **groups, "label": meaning.get(code, code)})
        column = kind[path.suffix.lower()]
        doubled += column in row
        row.setdefault(column, str(path.resolve()))
    warnings += [f"{doubled} files are second copies and left out"] if doubled else []
    return list(rows.values())


def _check(
    rows: Sequence[Mapping[str, object]], rule: str, chosen: Rule, partial: bool, warnings: list[str]
) -> list[str]:
    """Shortfalls against the published files per speaker; the total is compared only where the parts are unknown."""
    if chosen.published:
        return check_counts(
            Counter(str(r["speaker"]) for r in rows), chosen.published, f"files per speaker of {rule}", partial
        )
    if chosen.total and len(rows) != chosen.total:
        warnings.append(f"{len(rows)} files, the release of {rule} is said to have {chosen.total}")
    return []
