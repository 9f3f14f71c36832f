"""Which column of a table is what: affuse's names in any case, common synonyms, and what the user said with --map."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from affuse.core.errors import BadCorpus, UnknownName
from affuse.corpora.manifest import COLUMNS
from affuse.corpora.reading.delimited import Table, numbers, seconds

# Names without case, spaces and signs. The first of these that a table has is what it means.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "id": ("id", "utteranceid", "uttid", "segmentid", "clipid", "sampleid", "itemid", "uid", "key"),
    "conversation": ("conversation", "conversationid", "dialogue", "dialogueid", "dialog", "dialogid"),
    "position": ("position", "turn", "turnid", "turnindex", "turnnumber"),
    "speaker": (
        "speaker", "speakerid", "spk", "spkid", "participant", "participantid", "subject", "subjectid", "actor",
        "actorid",
    ),
    "source": ("source", "sourceid", "recording", "recordingid"),
    "split": ("split", "partition", "subset", "set"),
    "video": ("video", "videopath", "videofile", "videofilename", "mp4"),
    "audio": (
        "audio", "audiopath", "audiofile", "audiofilename", "wav", "wavpath", "wavfile", "wavfilename", "sound",
        "soundfile",
    ),
    "file": ("file", "filename", "filepath", "path", "media", "mediapath", "mediafile", "clip", "clippath", "clipname"),
    "text": ("text", "utterance", "transcript", "transcription", "sentence", "words", "caption"),
    "label": (
        "label", "labels", "emotion", "emotions", "emotionlabel", "labelemotion", "emotionclass", "emotionname",
        "emo", "class", "category", "target", "goldlabel", "truelabel", "groundtruth", "annotation",
    ),
}
_SECOND_CHOICE = ("sentiment", "polarity", "affect", "mood", "feeling")  # labels where a table has no others
_STARTS, _ENDS = "start|begin|onset|from|tstart|startt|xmin", "end|stop|finish|to|tend|endt|xmax"
_UNIT = "(?:time|timestamp)?(?:in)?(?P<unit>s|secs?|seconds?|ms|msecs?|milliseconds?)?"
_TIMES = {"start": f"(?:{_STARTS}){_UNIT}", "end": f"(?:{_ENDS}){_UNIT}", "duration": f"(?:duration|dur){_UNIT}"}
_SPLITS = {"", "train", "training", "dev", "development", "valid", "validation", "val", "test", "testing", "eval"}
DIMENSIONS = ("valence", "arousal", "dominance")
NAMES = (*COLUMNS, "file", "value", "duration")
_USED = {*COLUMNS, "crop", "fold", "word_times"}  # columns that affuse reads by these very names


def plain(name: str) -> str:
    """A column's name without case, spaces and signs."""
    return re.sub(r"[\W_]+", "", str(name).lower())


def is_known(name: str) -> bool:
    """Whether a column of that name means something to affuse."""
    bare = plain(name)
    return (
        bare in (*DIMENSIONS, *_SECOND_CHOICE)
        or any(bare in names for names in SYNONYMS.values())
        or any(re.fullmatch(p, bare) for p in _TIMES.values())
    )


def is_milliseconds(name: str) -> bool:
    """Whether the name of a column of times says that they are milliseconds, as start_ms does."""
    found = next((m for p in _TIMES.values() if (m := re.fullmatch(p, plain(name)))), None)
    return found is not None and (found["unit"] or "").startswith("m")


def assign(table: Table, given: Mapping[str, str], src: str) -> dict[str, str]:
    """affuse's name -> the table's column: as `given`, else of its name, else of one of its synonyms.

    `file` is a column of media that may be audio or video; `value` may name several columns with commas between.
    Raises UnknownName for names that are none, BadCorpus where several columns could be meant.
    """
    cells = table.cells
    for ours, theirs in given.items():
        if ours not in NAMES:
            raise UnknownName.among("column", ours, NAMES)
        for name in split_names(ours, theirs, cells):
            if name not in cells:
                raise UnknownName.among(f"column of {src}:", name, [str(c) for c in cells.columns])
    roles = {ours: ours for ours in COLUMNS if ours in cells} | dict(given)
    taken = {name for ours, theirs in roles.items() for name in split_names(ours, theirs, cells)}
    free = [str(c) for c in cells.columns if c not in taken]
    for ours in (*SYNONYMS, *_TIMES):
        if (
            ours in roles
            or (ours == "file" and {"video", "audio"} & set(roles))
            or (ours == "duration" and ("start" not in roles or "end" in roles))
        ):
            continue
        fitting = [c for c in free if _means(c, ours) and _fits(ours, table, c)]
        if len(fitting) > 1:
            raise _ambiguous(ours, fitting, src)
        roles |= dict.fromkeys([ours], fitting[0]) if fitting else {}
    if {"label", "value"} & set(roles):
        return roles
    second = [c for c in free if plain(c) in _SECOND_CHOICE]
    if len(second) > 1:
        raise _ambiguous("label", second, src)
    values = _values(free, table)
    return roles | ({"value": ",".join(values)} if values else {"label": second[0]} if second else {})


def split_names(ours: str, theirs: str, cells: Any) -> list[str]:
    """The columns that a role names: several for values, with commas between."""
    if ours != "value" or theirs in cells:
        return [theirs]
    return [name.strip() for name in theirs.split(",")]


def describe_roles(roles: Mapping[str, str], given: Mapping[str, str], table: Table) -> list[str]:
    """Notes for the reader: which columns were taken as what without --map, and which were not used."""
    found = [f"'{theirs}' as {ours}" for ours, theirs in roles.items() if ours != theirs and ours not in given]
    taken = {name for ours, theirs in roles.items() for name in split_names(ours, theirs, table.cells)}
    unused = [str(c) for c in table.cells.columns if c not in taken and c not in _USED]
    notes = [f"taken by their names: column {', '.join(found)} (say otherwise with --map)"] if found else []
    if unused:
        listed = ", ".join(unused[:12]) + (", ..." if len(unused) > 12 else "")
        notes.append(f"kept, but not used by themselves: column {listed}")
        if not {"label", "value"} & set(roles):
            notes.append(
                "no column of labels was found: name it with --map label=COLUMN, e.g. --map "
                f"{as_option('label', unused[-1])}"
            )
    return notes


def as_option(ours: str, theirs: str) -> str:
    """A pair as it is typed after --map."""
    return f"'{ours}={theirs}'" if re.search(r"[^\w.-]", theirs) else f"{ours}={theirs}"


def _means(name: str, ours: str) -> bool:
    bare = plain(name)
    return bare in SYNONYMS[ours] if ours in SYNONYMS else re.fullmatch(_TIMES[ours], bare) is not None


def _ambiguous(ours: str, fitting: Iterable[str], src: str) -> BadCorpus:
    several = list(fitting)
    roles = ("audio", "video") if ours == "file" else (ours,)
    ways = " or ".join(f"--map {as_option(role, name)}" for role in roles for name in several)
    return BadCorpus(
        f"{src} has {len(several)} columns that may be the {ours}: {', '.join(several)}", f"say which one: {ways}"
    )


def _fits(ours: str, table: Table, name: str) -> bool:
    """Whether the content of a column named by a synonym fits; with affuse's own name in another case it need not."""
    if plain(name) == ours:
        return True
    cells = table.cells[name]
    given = cells[cells.notna() & (cells.astype(str).str.strip() != "")]
    if ours == "id":
        return len(given) == len(cells) and bool(given.astype(str).is_unique)
    if ours == "split":
        return set(given.astype(str).str.strip().str.lower()) <= _SPLITS
    if ours == "text":
        return not _reads(numbers, table, given)
    if ours == "label":
        return all(isinstance(v, str) or not hasattr(v, "__len__") for v in given)
    if ours in _TIMES:
        return len(given) > 0 and _reads(seconds, table, given.iloc[:1])
    return ours != "position" or _reads(numbers, table, given)


def _reads(reader: Any, table: Table, cells: Any) -> bool:
    try:
        reader(cells, table.separator)
    except ValueError:
        return False
    return True


def _values(free: Iterable[str], table: Table) -> list[str]:
    """The columns named valence, arousal and dominance, in this order, of those that hold numbers."""
    named = {plain(name): name for name in free if _reads(numbers, table, table.cells[name])}
    return [named[d] for d in DIMENSIONS if d in named]
