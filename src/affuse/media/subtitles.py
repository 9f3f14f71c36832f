"""Subtitles as captions, from a file (.srt, .vtt) or inside a clip: the words, when, and by whom.

Of several, those in the language that is wanted come first, then those whose language nobody states; a file beside the
clip comes before a stream inside it.

What is wrong with times is put right by the same rules everywhere: captions are sorted by start; those that end at or
before their start are dropped, also those outside the clip (they end at 0 or earlier, or start at its end or later);
those that stick out are cut at 0 and at the clip's end. Two speakers may talk at once, but a caption that runs into
the next of the same speaker is cut there, and two of the same start and speaker are joined.
"""

from __future__ import annotations

import logging
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av

from affuse.core.errors import BadMedia, MissingFile
from affuse.media.charset import find_encoding
from affuse.media.cues import Cue, make_cue, read_cues, unrolled
from affuse.media.files import MEDIA, SUBTITLES
from affuse.media.languages import Tag, read_tag
from affuse.media.probe import ClipInfo, open_media, probe, seconds

log = logging.getLogger(__name__)

_UNREAD = (".ass", ".ssa", ".sbv", ".ttml", ".dfxp", ".smi", ".sami", ".lrc", ".sub", ".scc", ".stl", ".itt")
_ASS = re.compile(r"\{[^}]*\}|\\h")
_DRAWING = re.compile(r"\{[^}]*\\p[1-9]")
TEXT_CODECS = ("mov_text", "srt", "subrip", "ass", "ssa", "webvtt", "text")
_FORCED_TITLE = re.compile(r"\b(?:forced|foreign|signs|songs)\b", re.IGNORECASE)
_FOREIGN_PARTS = "it translates only foreign parts"
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
    """Captions in time order; how many more were `dropped` or `changed` for their times; the `source` (for messages).

    `remarks`: what else was decided, guessed or left out.
    """

    captions: list[Caption]
    dropped: int = 0
    changed: int = 0
    source: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What a reader of the words should know."""
        times = f"{self.source}: {self.dropped} captions dropped and {self.changed} changed for their times"
        return [*self.remarks, *([times] if self.dropped or self.changed else [])]


@dataclass(frozen=True)
class _Source:
    """A subtitle file beside a clip, or a stream inside it (its index), that may hold its words."""

    where: Path | int
    name: str
    tag: Tag | None  # None: a file that is named as the clip is
    default: bool = False

    def rank(self, language: str) -> tuple[int, ...]:
        """What decides between several; the higher one is taken."""
        if self.tag is None:
            return 2, 2
        fits = 1 if not self.tag.language else 2 * (self.tag.language == language)
        return fits, isinstance(self.where, Path), not self.tag.auto, self.default, -self.tag.more


def find_captions(clip: Path | str, given: Path | str | None = None, language: str = "en") -> Transcript:
    """The words of a clip: of the `given` file, else a file beside it, else a subtitle stream inside; else none.

    `language` (ISO 639-1) is the one to take of several. Raises MissingFile, or BadMedia for a file of which no cue can
    be used; an unusable stream is only counted.
    """
    info = probe(clip)
    if given is not None:
        return _of_file(Path(given), info.duration)
    files, passed = _beside(info.path)
    streams, unread = _inside(info)
    found = [*files, *streams]
    taken = _best(found, language)
    words = Transcript([]) if taken is None else _of_source(taken, info)
    others = [source.name for source in found if source is not taken]
    chosen = [f"captions: {taken.name} is taken, not {_listed(others)}"] if taken and others else []
    left = [f"captions: not taken: {_listed([*passed, *unread])}"] if passed or unread else []
    return replace(words, remarks=(*chosen, *left, *words.remarks))


def read_subtitles(path: Path | str, duration: float = math.inf) -> list[Caption]:
    """Captions of a .srt or .vtt file for a clip of `duration` s, tags stripped, times put right (see above).

    In any encoding: what is not Unicode is guessed. Speakers come from `<v Name>` or a leading `NAME:` in capitals.
    Raises MissingFile, or BadMedia for text without a cue and for cues of which none can be used.
    """
    return _of_file(Path(path), duration).captions


def read_embedded(path: Path | str, language: str = "en") -> list[Caption]:
    """Captions of a clip's own text stream (mov_text, SubRip, ASS, WebVTT) on the clip's clock; [] if it has none.

    Of several that in `language` is taken, else the default one, else the first; pictures of words (DVD, Blu-ray) and
    streams that translate only foreign parts are not. ASS names its speakers. Raises MissingFile, BadMedia.
    """
    info = probe(path)
    taken = _best(_inside(info)[0], language)
    return [] if taken is None else _of_source(taken, info).captions


def sidecar(path: Path | str, language: str = "en") -> Path | None:
    """The subtitle file beside a clip: talk.srt, talk.vtt, else talk.<language>.srt or .vtt; None if there is none.

    A file belongs to the clip with the longest name that its own begins with: talk.2.srt to talk.2.mp4. Of several
    languages `language` comes first. Files for foreign parts (talk.en.forced.srt) and captions that affuse itself wrote
    (talk.emotion.vtt) are no words.
    """
    taken = _best(_beside(Path(path))[0], language)
    return taken.where if taken is not None and isinstance(taken.where, Path) else None


def _best(sources: Sequence[_Source], language: str) -> _Source | None:
    return max(sources, key=lambda source: source.rank(language), default=None)


def _listed(names: Sequence[str], most: int = 4) -> str:
    more = [f"{len(names) - most} more"] if len(names) > most else []
    return "; ".join([*names[:most], *more])


def _beside(clip: Path) -> tuple[list[_Source], list[str]]:
    """The subtitle files beside a clip, and those that only seem to be, with the reason."""
    try:
        files = list(clip.parent.iterdir())
    except OSError:  # no such folder, or one that may not be listed: then the clip's own error says so
        return [], []
    subtitles = [p for p in files if p.suffix.lower() in SUBTITLES + _UNREAD]
    tags = {p: tag for p in subtitles if (tag := _tag_of(p.stem, clip)) is not None}
    clips = [clip.name, *(p.name for p in files if tags and p.suffix.lower() in MEDIA and not _same(p, clip))]
    found, passed = [], []
    for file in sorted(tags, key=lambda p: (not p.name.startswith(clip.stem), p)):
        if not file.is_file() or f".{tags[file]}".endswith(".emotion"):
            continue
        source = _Source(file, file.name, read_tag(tags[file]) if tags[file] else None)
        reason = _against(source, tags[file], clip, clips)
        if reason:
            passed.append(f"{file.name} ({reason})")
        else:
            found.append(source)
    return found, passed


def _against(source: _Source, tag: str, clip: Path, clips: Sequence[str]) -> str:
    """Why a file beside a clip does not hold its words; "" if it may."""
    file = Path(source.name)
    owners = _owners(file.stem, clips)
    if clip.name not in owners:
        return f"it belongs to {owners[0]}"
    if len({Path(name).stem for name in owners}) > 1:
        return f"it may belong to {' or '.join(owners)}"
    if tag and source.tag is None:
        return f"{tag} is no language"
    if file.suffix.lower() in _UNREAD:
        return f"{file.suffix} is not read: save it as .srt or .vtt"
    return _FOREIGN_PARTS if source.tag and source.tag.forced else ""


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _same(file: Path, clip: Path) -> bool:
    """Whether both are one file, also where the file system makes no difference between a and A."""
    return _fold(file.name) == _fold(clip.name) and clip.exists() and file.samefile(clip)


def _tag_of(stem: str, clip: Path) -> str | None:
    """The tag, or "", after a clip's name (with or without suffix) in a subtitle file's; None for another name."""
    for base in (clip.name, clip.stem):
        if f"{_fold(stem)}.".startswith(f"{_fold(base)}."):
            return _fold(stem)[len(_fold(base)) + 1 :]
    return None


def _owners(stem: str, clips: Sequence[str]) -> list[str]:
    """The clips with the longest name that begins a subtitle file's; those in the same capitals, if there are any."""
    bases = [(base, name) for name in clips for base in (name, Path(name).stem)]
    near = [(base, name) for base, name in bases if f"{_fold(stem)}.".startswith(f"{_fold(base)}.")]
    longest = max(len(_fold(base)) for base, _ in near)
    near = [(base, name) for base, name in near if len(_fold(base)) == longest]
    exact = [name for base, name in near if f"{stem}.".startswith(f"{base}.")]
    return exact or [name for _, name in near]


def _inside(info: ClipInfo) -> tuple[list[_Source], list[str]]:
    """The text streams inside a clip, and its other subtitle streams with the reason why they are none."""
    flag = av.stream.Disposition
    found, passed = [], []
    with open_media(info.path) as container:
        for stream in container.streams.subtitles:
            codec = stream.codec_context.name if stream.codec_context else "unknown"
            title = stream.metadata.get("title", "")
            tag = read_tag(title) or read_tag(stream.metadata.get("language", "")) or Tag("")
            name = f"subtitle stream {stream.index}" + (f" ({tag.language})" if tag.language else "")
            if codec not in TEXT_CODECS:
                passed.append(f"{name} ({codec} is not read: it is no text)")
            elif stream.disposition & flag.forced or tag.forced or _FORCED_TITLE.search(title):
                passed.append(f"{name} ({_FOREIGN_PARTS})")
            else:
                found.append(_Source(stream.index, name, tag, bool(stream.disposition & flag.default)))
    return found, passed


def _of_source(source: _Source, info: ClipInfo) -> Transcript:
    return _of_stream(info, source.where) if isinstance(source.where, int) else _of_file(source.where, info.duration)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        remedy = "change its permissions, or give another file with --transcript"
        raise MissingFile(f"{path} may not be read: {error.strerror}", remedy) from error


def _of_file(path: Path, duration: float) -> Transcript:
    if not path.is_file():
        raise MissingFile(f"no subtitle file {path}", "check the path")
    data = _bytes(path)
    codec, guessed = find_encoding(data)
    cues, notes = read_cues(data.decode(codec, errors="replace"), vtt=path.suffix.lower() == ".vtt")
    if notes and not cues:
        raise BadMedia(
            f"{path} holds no subtitle cue ({'; '.join(notes)})",
            "save it as .srt or .vtt: a cue needs a line such as 00:00:01,000 --> 00:00:02,500",
        )
    transcript = _transcript(cues, duration, str(path), [guessed, *notes])
    if transcript.dropped and not transcript.captions:
        raise BadMedia(
            f"none of the {transcript.dropped} cues of {path} can be used: "
            f"they end before they begin or lie outside the clip (0 to {duration:g} s)",
            "check that the subtitles belong to this clip",
        )
    return transcript


def _of_stream(info: ClipInfo, index: int) -> Transcript:
    with open_media(info.path) as container:
        stream = container.streams[index]
        codec, name = stream.codec_context.name, f"subtitle stream {index} of {info.path}"
        packets = [(p, _payload(bytes(p), codec)) for p in container.demux(stream) if p.size]
        encoding, guessed = find_encoding(b"\n".join(data for _, data in packets))
        cues = [_embedded(packet, data.decode(encoding, errors="replace"), codec, info) for packet, data in packets]
    return _transcript(cues, info.duration, name, [guessed])


def _payload(data: bytes, codec: str) -> bytes:
    """A packet's text; in MP4 it stands after its length."""
    return data[2 : 2 + int.from_bytes(data[:2])] if codec == "mov_text" else data


def _embedded(packet: Any, text: str, codec: str, info: ClipInfo) -> Cue:
    """One packet of a text stream; its text is a cue's, in ASS after eight fields."""
    speaker = None
    if codec in ("ass", "ssa"):
        fields = text.split(",", 8)
        speaker, text = (fields[3].strip(), fields[8]) if len(fields) == 9 else (None, "")
        text = "" if _DRAWING.search(text) else _ASS.sub(" ", re.sub(r"\\[Nn]", "\n", text))
    start = seconds(packet, info, math.nan)
    cue = make_cue(start, start + float((packet.duration or 0) * packet.time_base), text.splitlines())
    return replace(cue, speaker=speaker) if speaker else cue


def _transcript(cues: Sequence[Cue], duration: float, source: str, notes: Sequence[str]) -> Transcript:
    """The words of cues, each line once, with their times put right; `notes` of their reading, "" for none."""
    kept, repeated = unrolled(cues)
    rolled = f"{repeated} repeated lines of rolling captions are taken once" if repeated else ""
    words = _repaired([_caption(cue) for cue in kept], duration, source)
    return replace(words, remarks=tuple(f"{source}: {note}" for note in (*notes, rolled) if note))


def _caption(cue: Cue) -> Caption:
    """A cue as a caption; its speaker, if no tag names one, is a name in capitals before its words."""
    text = " ".join(cue.lines)
    name = None if cue.speaker else _NAME.match(text)
    if name and name.group(1) == name.group(1).upper():
        return Caption(cue.start, cue.end, text[name.end() :], name.group(1))
    return Caption(cue.start, cue.end, text, cue.speaker)


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
