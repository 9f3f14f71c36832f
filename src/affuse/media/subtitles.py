"""Subtitles as captions, from a file (.srt, .vtt) or inside a clip: the words, when, and by whom.

What is wrong with times is put right by the same rules everywhere: captions are sorted by start; those that end at or
before their start are dropped, also those outside the clip (they end at 0 or earlier, or start at its end or later);
those that stick out are cut at 0 and at the clip's end. Two speakers may talk at once, but a caption that runs into
the next of the same speaker is cut there, and two of the same start and speaker are joined.
"""

from __future__ import annotations

import codecs
import html
import logging
import math
import re
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import av

from affuse.core.errors import BadMedia, MissingFile
from affuse.media.probe import ClipInfo, open_media, probe, seconds

log = logging.getLogger(__name__)

SUFFIXES = (".srt", ".vtt")
_CLOCK = r"(-)?(?:(\d+):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?"
_TIMING = re.compile(rf"^\s*{_CLOCK}\s*-->\s*{_CLOCK}(?:\s.*)?$")
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|<\d[\d:.]*>|\{\\[^}]*\}")
_ASS = re.compile(r"\{[^}]*\}|\\[Nnh]")
_DRAWING = re.compile(r"\{[^}]*\\p[1-9]")
TEXT_CODECS = ("mov_text", "srt", "subrip", "ass", "ssa", "webvtt", "text")
_NAME = re.compile(r"^(?:-\s*)?\[?([^\W\d_][\w .'\-]{0,30}?)\]?:\s+(?=\S)")


@dataclass(frozen=True)
class Caption:
    """What is said from `start` to `end` (s); `speaker` if the file names one."""

    start: float
    end: float
    text: str
    speaker: str | None = None


@dataclass(frozen=True)
class Transcript:
    """Captions in time order; how many more were `dropped` or `changed` for their times; the `source` (for messages)."""

    captions: list[Caption]
    dropped: int = 0
    changed: int = 0
    source: str = ""


def find_captions(clip: Path | str, given: Path | str | None = None) -> Transcript:
    """The words of a clip: from the `given` file, else the sidecar, else a subtitle stream inside; else no captions.

    Raises MissingFile, or BadMedia for a file of which no cue can be used; an unusable stream is only counted.
    """
    info = probe(clip)
    file = given if given is not None else sidecar(clip)
    return _of_stream(info) if file is None else _of_file(Path(file), info.duration)


def read_subtitles(path: Path | str, duration: float = math.inf) -> list[Caption]:
    """Captions of a .srt or .vtt file for a clip of `duration` s, tags stripped, times put right (see above).

    UTF-8, UTF-16 with a mark, else Windows-1252. Speakers come from `<v Name>` or a leading `NAME:` in capitals.
    Raises MissingFile, or BadMedia for text without a cue and for cues of which none can be used.
    """
    return _of_file(Path(path), duration).captions


def read_embedded(path: Path | str) -> list[Caption]:
    """Captions of a clip's own text stream (mov_text, SubRip, ASS, WebVTT) on the clip's clock; [] if it has none.

    Of several the default one is taken, else the first; pictures of words (DVD, Blu-ray) and streams that translate
    only foreign parts are not. ASS names its speakers. Raises MissingFile, BadMedia.
    """
    return _of_stream(probe(path)).captions


def sidecar(path: Path | str) -> Path | None:
    """The subtitle file beside a clip: talk.srt, talk.vtt, else talk.<language>.srt or .vtt; None if there is none.

    Captions that affuse itself wrote (talk.emotion.vtt) are no words.
    """
    path = Path(path)
    try:
        found = [p for p in path.parent.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file()]
    except OSError:  # no such folder, or one that may not be listed: then the clip's own error says so
        return None
    exact = [p for p in found if p.stem == path.stem]
    tagged = [p for p in found if p.stem.rpartition(".")[0] == path.stem and not p.stem.endswith(".emotion")]
    return min(exact, default=None) or min(tagged, default=None)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MissingFile(f"{path} may not be read: {error.strerror}", "change its permissions, or give another file with --transcript") from error


def _of_file(path: Path, duration: float) -> Transcript:
    if not path.is_file():
        raise MissingFile(f"no subtitle file {path}", "check the path")
    lines = [line.rstrip() for line in _text(_bytes(path)).splitlines()]
    heads = [i for i, line in enumerate(lines) if _TIMING.match(line)]
    if not heads and any(line and not line.startswith("WEBVTT") for line in lines):
        raise BadMedia(f"{path} holds no subtitle cue", "a cue needs a line such as 00:00:01,000 --> 00:00:02,500")
    transcript = _repaired([_caption(lines[i:stop]) for i, stop in pairwise([*heads, len(lines)])], duration, str(path))
    if transcript.dropped and not transcript.captions:
        raise BadMedia(
            f"none of the {transcript.dropped} cues of {path} can be used: "
            f"they end before they begin or lie outside the clip (0 to {duration:g} s)",
            "check that the subtitles belong to this clip",
        )
    return transcript


def _of_stream(info: ClipInfo) -> Transcript:
    with open_media(info.path) as container:
        stream = _text_stream(container)
        if stream is None:
            return Transcript([])
        codec, name = stream.codec_context.name, f"subtitle stream {stream.index} of {info.path}"
        captions = [_embedded(packet, codec, info) for packet in container.demux(stream) if packet.size]
    return _repaired(captions, info.duration, name)


def _text_stream(container: Any) -> Any:
    flag = av.stream.Disposition
    usable = [s for s in container.streams.subtitles if s.codec_context and s.codec_context.name in TEXT_CODECS]
    whole = [s for s in usable if not s.disposition & flag.forced]
    return max(whole, key=lambda s: bool(s.disposition & flag.default), default=None)


def _embedded(packet: Any, codec: str, info: ClipInfo) -> Caption:
    """One packet of a text stream; its payload is a cue's text, in MP4 after its length, in ASS after eight fields."""
    data, speaker = bytes(packet), None
    if codec == "mov_text":
        data = data[2 : 2 + int.from_bytes(data[:2])]
    text = _text(data)
    if codec in ("ass", "ssa"):
        fields = text.split(",", 8)
        speaker, text = (fields[3].strip(), fields[8]) if len(fields) == 9 else (None, "")
        text = "" if _DRAWING.search(text) else _ASS.sub(" ", text)
    said, text = _said(text)
    start = seconds(packet, info, math.nan)
    return Caption(start, start + float((packet.duration or 0) * packet.time_base), text, speaker or said)


def _text(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _caption(lines: list[str]) -> Caption:
    """A timing line and what follows it, up to the blank line that ends a cue."""
    clock = _TIMING.match(lines[0])
    assert clock is not None  # the caller chose the line by this match
    body = lines[1 : lines.index("", 1)] if "" in lines[1:] else lines[1:]
    speaker, text = _said(" ".join(line.strip() for line in body))
    return Caption(_seconds(*clock.groups()[:5]), _seconds(*clock.groups()[5:]), text, speaker)


def _said(text: str) -> tuple[str | None, str]:
    """(speaker, words) of a cue's text."""
    voice = _VOICE.search(text)
    text = " ".join(html.unescape(_TAG.sub("", text)).split())
    name = _NAME.match(text)
    if voice:
        return voice.group(1).strip(), text
    if name and name.group(1) == name.group(1).upper():
        return name.group(1), text[name.end() :]
    return None, text


def _seconds(sign: str | None, hours: str | None, minutes: str, seconds: str, fraction: str | None) -> float:
    value = int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction or 0}")
    return -value if sign else value


def _repaired(captions: list[Caption], duration: float, source: str) -> Transcript:
    """The captions with words, after the rules at the head of this file."""
    spoken = [c for c in captions if c.text]
    timed = [c for c in spoken if c.end > c.start]
    inside = [c for c in timed if c.end > 0 and c.start < duration]
    fitted = [replace(c, start=max(c.start, 0.0), end=min(c.end, duration)) for c in inside]
    kept, changed = _untangled(sorted(fitted, key=lambda c: c.start))
    empty, outside = len(spoken) - len(timed), len(timed) - len(inside)
    if empty or outside or changed:
        message = "%s: %d cues without duration dropped, %d overlapping ones cut or joined, %d outside the clip dropped"
        log.warning(message, source, empty, changed, outside)
    return Transcript(kept, empty + outside, changed, source)


def _untangled(ordered: list[Caption]) -> tuple[list[Caption], int]:
    """Captions of which none runs into the next of the same speaker, and how many did."""
    kept: list[Caption] = []
    latest: dict[str | None, int] = {}
    changed = 0
    for caption in ordered:
        i = latest.get(caption.speaker)
        if i is not None and kept[i].end > caption.start:
            changed += 1
            if kept[i].start == caption.start:
                end, text = max(kept[i].end, caption.end), f"{kept[i].text} {caption.text}"
                kept[i] = replace(kept[i], end=end, text=text)
                continue
            kept[i] = replace(kept[i], end=caption.start)
        latest[caption.speaker] = len(kept)
        kept.append(caption)
    return kept, changed
