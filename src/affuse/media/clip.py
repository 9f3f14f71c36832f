"""One utterance as extractors get it: a segment of picture, sound and words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from affuse.core.errors import BadMedia
from affuse.media.audio import Audio, read_audio
from affuse.media.probe import ClipInfo, probe
from affuse.media.video import Frame, grid_steps, iter_frames


@dataclass(frozen=True)
class Clip:
    """The segment [start, end) s of its files; `end` None = to the end of the longer file.

    `video`: file with the picture (and usually the sound); `audio`: a separate sound file that replaces the
    video's sound track; both clocks begin together. Each of the three modalities may be absent (None). `crop`: the half
    of the picture that shows the speaker, where two people share it. `word_times`: start and end (s from the segment's
    start) of each word of `text`.
    """

    video: Path | None = None
    audio: Path | None = None
    text: str | None = None
    start: float = 0.0
    end: float | None = None
    crop: Literal["", "left", "right"] = ""
    word_times: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        end = math.inf if self.end is None else self.end
        if not 0 <= self.start < math.inf or not self.start <= end:
            raise BadMedia(
                f"segment {self.start} to {self.end} s of {self.video or self.audio} is impossible",
                "a segment starts at 0 or later and ends after its start",
            )

    @cached_property
    def _sound(self) -> ClipInfo | None:
        source = self.audio if self.audio is not None else self.video
        info = probe(source) if source is not None else None
        return info if info and info.audio else None

    @cached_property
    def _picture(self) -> ClipInfo | None:
        info = probe(self.video) if self.video is not None else None
        return info if info and info.video else None

    @property
    def has_audio(self) -> bool:
        """Whether there is a sound track (it may be silent, or recorded for a part of the segment only)."""
        return self._sound is not None

    @property
    def has_video(self) -> bool:
        """Whether there is a picture track."""
        return self._picture is not None

    @cached_property
    def duration(self) -> float:
        """Seconds of this segment; 0 for words alone without times."""
        if self.end is not None:
            return self.end - self.start
        infos = (self._sound, self._picture)
        return max(0.0, max((i.duration for i in infos if i is not None), default=0.0) - self.start)

    def steps(self, fps: float) -> int:
        """Number of grid points k / fps in the segment (see `video.grid_steps`); 3.00 s at 25 fps has 75."""
        return grid_steps(self.duration, fps)

    def read_audio(self, rate: int = 16000) -> Audio | None:
        """Sound of the segment, round(duration * rate) samples from time 0 = segment start; None without a track."""
        if self._sound is None:
            return None
        audio = read_audio(self._sound.path, rate, self.start, self.start + self.duration)
        return replace(audio, start=0.0)

    def frames(self, fps: float, size: int | None = None) -> Iterator[Frame]:
        """Frames at index k = time k / fps from the segment start, k < steps(fps); none without a picture."""
        if self._picture is None:
            return
        end = self.start + self.duration
        for frame in iter_frames(self._picture.path, fps, self.start, end, size):
            image = frame.image
            if self.crop:
                half = image.shape[1] // 2
                image = image[:, :half] if self.crop == "left" else image[:, half:]
            yield replace(frame, image=image, time=frame.index / fps)
