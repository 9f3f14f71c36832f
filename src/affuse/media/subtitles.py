"""Subtitle files (.srt, .vtt) as captions: the words of a clip, when, and by whom."""

from __future__ import annotations

import codecs
import html
import logging
import re
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from affuse.core.errors import BadMedia, MissingFile

log = logging.getLogger(__name__)

SUFFIXES = (".srt", ".vtt")
_CLOCK = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?"
_TIMING = re.compile(rf"^\s*{_CLOCK}\s*-->\s*{_CLOCK}(?:\s.*)?$")
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|<\d[\d:.]*>|\{\\[^}]*\}")
_NAME = re.compile(r"^(?:-\s*)?\[?([^\W\d_][\w .'\-]{0,30}?)\]?:\s+(?=\S)")


@dataclass(frozen=True)
class Caption:
    """What is said from `start` to `end` (s); `speaker` if the file names one."""

    start: float
    end: float
    text: str
    speaker: str | None = None


def read_subtitles(path: Path | str) -> list[Caption]:
    """Captions of a .srt or .vtt file, sorted by start, tags stripped.

    UTF-8, UTF-16 with a mark, else Windows-1252. Speakers come from `<v Name>` or a leading `NAME:` in capitals.
    Wrong times are repaired and logged: cues that end at or before their start are dropped; a cue of the same
    speaker that runs into the next is cut there, cues of the same start and speaker are joined.
    Raises MissingFile, or BadMedia for text without a cue.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"no subtitle file {path}", "check the path")
    lines = [line.rstrip() for line in _text(path.read_bytes()).splitlines()]
    heads = [i for i, line in enumerate(lines) if _TIMING.match(line)]
    if not heads and any(line and not line.startswith("WEBVTT") for line in lines):
        raise BadMedia(f"{path} holds no subtitle cue", "a cue needs a line such as 00:00:01,000 --> 00:00:02,500")
    captions = [_caption(lines[i:stop]) for i, stop in pairwise([*heads, len(lines)])]
    return _repaired([c for c in captions if c.text], path)


def sidecar(path: Path | str) -> Path | None:
    """The subtitle file beside a clip: talk.srt, talk.vtt, else talk.<language>.srt or .vtt; None if there is none."""
    path = Path(path)
    if not path.parent.is_dir():
        return None
    found = [p for p in path.parent.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file()]
    exact = [p for p in found if p.stem == path.stem]
    tagged = [p for p in found if p.stem.rpartition(".")[0] == path.stem]
    return min(exact, default=None) or min(tagged, default=None)


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
    text = " ".join(line.strip() for line in body)
    voice = _VOICE.search(text)
    text = " ".join(html.unescape(_TAG.sub("", text)).split())
    name = _NAME.match(text)
    if voice:
        speaker: str | None = voice.group(1).strip()
    elif name and name.group(1) == name.group(1).upper():
        speaker, text = name.group(1), text[name.end() :]
    else:
        speaker = None
    return Caption(_seconds(*clock.groups()[:4]), _seconds(*clock.groups()[4:]), text, speaker)


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction or 0}")


def _repaired(captions: list[Caption], path: Path) -> list[Caption]:
    kept: list[Caption] = []
    ordered = sorted((c for c in captions if c.end > c.start), key=lambda c: c.start)
    dropped, changed = len(captions) - len(ordered), 0
    for caption in ordered:
        last = kept[-1] if kept else None
        if last and last.end > caption.start and last.speaker == caption.speaker:
            changed += 1
            if last.start == caption.start:
                caption = replace(caption, end=max(last.end, caption.end), text=f"{last.text} {caption.text}")
                kept.pop()
            else:
                kept[-1] = replace(last, end=caption.start)
        kept.append(caption)
    if dropped or changed:
        log.warning("%s: %d cues without duration dropped, %d overlapping ones cut or joined", path, dropped, changed)
    return kept
