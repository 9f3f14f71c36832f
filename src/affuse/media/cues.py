"""The text formats of subtitles (SubRip, WebVTT) as they really occur: from a text to cues.

A cue begins at a line with two times and lasts until the next such line: blank lines do not end it, and the number or
name of the next cue is no words. Rolling captions show a line again, or let it grow: each line is kept once, from when
it first appears.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

_LINE_END = re.compile("\r*\n|[\r\v\f\x85\u2028\u2029]")
_INVISIBLE = re.compile("[\0\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")  # not the joiners within words
_VTT_BLOCK = re.compile(r"(?:WEBVTT|NOTE)(?:\s.*)?$|(?:STYLE|REGION)$|X-TIMESTAMP-MAP=")

_SIGNS = str.maketrans({**dict.fromkeys("‐‑‒–—―−", "-"), **dict.fromkeys("→⇒➔➜⟶›»", ">"), "’": "'"})
_CLOCK = r"(-)?(?:(\d{1,6}) ?[:;] ?)?(\d{1,6}) ?[:;] ?(\d{1,2})(?:( ?[.,:;'] ?| (?=\d{3}\b))(\d{1,9}))?"
_ARROW = r"( ?(?:[-=~ ]*>+|[-=~,]+|to) ?| )"
_TIMING = re.compile(rf"(?:\d{{1,9}}[.)]? )?[\[(]? ?{_CLOCK}{_ARROW}{_CLOCK}[.,;]? ?[\])]?((?:[^\d.,:;].*)?)$")
_DOTS = re.compile(r"\b(\d{1,3})\.(\d{1,2})\.(\d{1,2})(?=[.,]\d)")
_LIKE_TIMING = re.compile(r"\W*\d+ ?[:;] ?\d+ ?[:;.,] ?\d+[\d:;., ]*[-=~]+ ?>|\W*\d+:\d+:\d+[.,]\d")
_SETTINGS = re.compile(r"(?:[A-Za-z]\w*: ?\S+(?: |$))+$")

_NUMBER = re.compile(r"\d{1,9}$")
_VOICE = re.compile(r"<v(?:\.[^\s<>]*)?\s+([^\s<>][^<>]*)>")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|<\d[\d:.]*>|\{\\[^{}]*\}")

TOUCH = 0.1  # s at most between two cues that follow each other without a break
HOLD = 0.1  # s at most of a cue in which nobody can say its words: it holds those of the cue before
LONG = 5  # words at least that nobody repeats to the letter without a break
ROLLING = 0.25  # share of cues that go on with lines of the cue before, from which a file is one of rolling captions


@dataclass(frozen=True)
class Cue:
    """The lines shown from `start` to `end` (s), without tags; `speaker` if a voice tag names one."""

    start: float
    end: float
    lines: tuple[str, ...]
    speaker: str | None = None


@dataclass(frozen=True)
class _Clock:
    """A time as it is written: seconds without their fraction, and the fraction's separator and digits."""

    sign: int
    whole: int
    mark: str
    digits: str

    @property
    def frames(self) -> int | None:
        """The frames that it counts instead of a fraction, as in 00:00:01:12."""
        return int(self.digits) if self.mark in (":", ";") and len(self.digits) <= 2 else None

    def seconds(self, fps: int) -> float:
        """The time in seconds."""
        rest = float(f"0.{self.digits or 0}") if self.frames is None else self.frames / fps
        return self.sign * (self.whole + rest)


@dataclass(frozen=True)
class _Timing:
    """The line that begins a cue: its times, and the words that stand on the same line."""

    start: _Clock
    end: _Clock
    words: str


def make_cue(start: float, end: float, lines: Sequence[str]) -> Cue:
    """A cue of lines as they are written: tags and entities are resolved, lines without words left out."""
    voice = _VOICE.search("\n".join(lines))
    plain = (" ".join(_INVISIBLE.sub("", html.unescape(_TAG.sub("", line))).split()) for line in lines)
    return Cue(start, end, tuple(line for line in plain if line), voice.group(1).strip() if voice else None)


def read_cues(text: str, vtt: bool = False) -> tuple[list[Cue], list[str]]:
    """(cues, notes) of a SubRip or WebVTT text in file order; the notes count what could not be read.

    `vtt`: blocks and names are WebVTT's; so they are in a text that begins with WEBVTT.
    """
    lines = [_INVISIBLE.sub("", line).strip() for line in _LINE_END.split(text)]
    heads = {i: timing for i, line in enumerate(lines) if (timing := _timing(line)) or _like_timing(line)}
    vtt = vtt or next(filter(None, lines), "").startswith("WEBVTT")
    if vtt:
        lines = list(_without_blocks(lines, heads))
    ends = [*_names(lines, list(heads), vtt), len(lines)]
    timings = [timing for timing in heads.values() if timing]
    counted = [clock.frames for t in timings for clock in (t.start, t.end) if clock.frames is not None]
    fps = next(rate for rate in (25, 30, 60, 100) if max(counted, default=0) < rate)
    cues = [
        make_cue(timing.start.seconds(fps), timing.end.seconds(fps), [timing.words, *lines[head + 1 : end]])
        for (head, timing), end in zip(heads.items(), ends[1:], strict=True)
        if timing
    ]
    notes = [f"times in frames read as {fps} per second"] if counted else []
    notes += _counted("cue", "could not be read", [head for head, timing in heads.items() if not timing], lines)
    notes += _counted("line", "of text outside any cue", [i for i in range(ends[0]) if lines[i]], lines)
    return cues, notes


def _counted(what: str, more: str, where: Sequence[int], lines: Sequence[str]) -> list[str]:
    n = len(where)
    return [f"{n} {what}{'s' * (n > 1)} {more}, e.g. line {where[0] + 1}: {lines[where[0]][:60]}"] if where else []


def _normal(line: str) -> str:
    """A line with dashes, arrows and digits as on a keyboard, and colons between hours, minutes and seconds."""
    plain = unicodedata.normalize("NFKC", html.unescape(line)).translate(_SIGNS)
    return _DOTS.sub(r"\1:\2:\3", " ".join(plain.split()))


def _timing(line: str) -> _Timing | None:
    match = _TIMING.match(_normal(line))
    if match is None:
        return None
    start, end = _clock(*match.groups()[:6]), _clock(*match.groups()[7:13])
    arrow, words = match.group(7), match.group(14)
    if not ("--" in arrow or (start.digits and end.digits) or (">" in arrow and not words)):
        return None  # two times of day among the words
    return _Timing(start, end, "" if _SETTINGS.match(words.strip()) else words)


def _like_timing(line: str) -> bool:
    """Whether a line is meant to begin a cue, though its times cannot be read."""
    plain = _normal(line)
    return ("-->" in line and any(c.isdecimal() for c in plain)) or _LIKE_TIMING.match(plain) is not None


def _clock(
    sign: str | None, hours: str | None, minutes: str, seconds: str, mark: str | None, digits: str | None
) -> _Clock:
    whole = int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds)
    return _Clock(-1 if sign else 1, whole, (mark or "").strip(), digits or "")


def _without_blocks(lines: Sequence[str], heads: Mapping[int, object]) -> Iterator[str]:
    """The lines of a WebVTT text, those of its header, comments, styles and regions made blank."""
    inside, before = False, ""
    for i, line in enumerate(lines):
        inside = bool(line) and i not in heads and (inside or (not before and _VTT_BLOCK.match(line) is not None))
        yield "" if inside else line
        before = line


def _names(lines: Sequence[str], heads: Sequence[int], vtt: bool) -> list[int]:
    """Where each cue begins: at its number or name, which stands above its timing line, else at that line.

    A number is not a word of the cue before if it stands as far above its timing line as the other numbers of this
    file, or if it is the next number and stands below words.
    """
    lows = [0, *(head + 1 for head in heads)]
    above = [next((i for i in range(head - 1, low - 1, -1) if lines[i]), -1) for low, head in zip(lows, heads)]
    numeric = [i >= 0 and _NUMBER.match(lines[i]) is not None for i in above]
    after_words = [i >= 0 and any(lines[low:i]) for low, i in zip(lows, above)]
    distance = _distance([head - i for head, i in zip(heads, above)], numeric, after_words)
    found, number = [], 0
    for low, head, i, is_number, below in zip(lows, heads, above, numeric, after_words):
        number += 1
        if is_number and distance and (head - i == distance or (below and int(lines[i]) == number)):
            number = int(lines[i])
            found.append(i)
        else:
            named = vtt and i == head - 1 and (i == 0 or (i > low and not lines[i - 1]))
            found.append(i if named else head)
    return found


def _distance(distances: Sequence[int], numeric: Sequence[bool], after_words: Sequence[bool]) -> int:
    """How many lines above their timing lines the numbers of a file stand; 0 if it has none."""
    if numeric[:1] == [True]:
        return distances[0]
    numbers = [d for d, is_number, below in zip(distances[1:], numeric[1:], after_words[1:]) if is_number and below]
    return max(numbers, key=numbers.count) if 2 * len(numbers) >= max(len(distances), 1) else 0


def unrolled(cues: Sequence[Cue]) -> tuple[list[Cue], int]:
    """(cues, lines left out): rolling captions with each line once; other cues as they are, but none twice.

    A line is carried over if the cue before, which touches this one, ended with it or with its beginning. People do
    say things twice: where the file does not roll, only a long line above new ones counts, or a cue too short to speak.
    """
    shown = [cue for cue in dict.fromkeys(cues) if cue.lines]
    pairs = list(pairwise(shown))
    carried = [_carried(before, now) for before, now in pairs]
    rolling = sum(n > 0 and _rolls(*pair, n) for pair, n in zip(pairs, carried)) >= max(ROLLING * len(pairs), 1)
    kept = shown[:1]
    left_out = sum(len(cue.lines) for cue in cues) - sum(len(cue.lines) for cue in shown)
    for (before, now), n in zip(pairs, carried):
        long = len(" ".join(now.lines[:n]).split()) >= LONG
        if not n or not (rolling or _brief(now) or (long and _rolls(before, now, n))):
            kept.append(now)
            continue
        left_out += n
        last = kept[-1]
        if now.lines[n - 1] != before.lines[-1]:
            kept[-1] = replace(last, lines=(*last.lines[:-1], now.lines[n - 1]), end=now.end)
        elif n == len(now.lines) and not _brief(now):
            kept[-1] = replace(last, end=now.end)
        if n < len(now.lines):
            kept.append(replace(now, lines=now.lines[n:]))
    return kept, left_out


def _touch(before: Cue, now: Cue) -> bool:
    return before.start <= now.start <= before.end + TOUCH


def _brief(cue: Cue) -> bool:
    return cue.end - cue.start <= HOLD


def _carried(before: Cue, now: Cue) -> int:
    """How many lines at the top of a cue are those that the one before ended with; the last of them may have grown."""
    if not _touch(before, now) or before.speaker != now.speaker:
        return 0
    for n in range(min(len(before.lines), len(now.lines)), 0, -1):
        old, new = before.lines[-n:], now.lines[:n]
        if old[:-1] == new[:-1] and f"{new[-1]} ".startswith(f"{old[-1]} "):
            return n
    return 0


def _rolls(before: Cue, now: Cue, n: int) -> bool:
    """Whether `n` carried lines must be rolling: more lines follow, the last has grown, or the cue is too short."""
    return n < len(now.lines) or now.lines[n - 1] != before.lines[-1] or _brief(now)
