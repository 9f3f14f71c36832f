"""The files of one clip for any tool: its sound as WAV, its frames or the crops of its face as JPEGs."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from affuse.core import io
from affuse.core.errors import BadConfig, BadMedia
from affuse.features.face_crops import AHEAD, FaceCrops
from affuse.media.write import jpeg, write_wav

if TYPE_CHECKING:
    from affuse.media.clip import Clip

SOUND_RATE = 16000  # Hz
CROP = 224  # pixels of a face crop where no size is given
SIMPLE = re.compile(r"\w(?:[\w.-]{0,98}\w)?", re.ASCII)  # ids that are file names everywhere

Facts = dict[str, Any]  # what the index says about a clip's files: column -> value


@dataclass(frozen=True)
class FileSettings:
    """Which files are written: `only` these modalities; `rate` frames per second.

    `size`: longest side in pixels of a frame (None: as it is), or the side of a face crop (None: 224). `faces`: aligned
    crops of the most prominent person in place of whole frames. `quality`: of the JPEGs, as FFmpeg's -q:v, 1 (finest)
    to 31. Raises BadConfig for values that cannot be.
    """

    only: tuple[Literal["audio", "vision"], ...] = ("audio", "vision")
    rate: float = 5.0
    size: int | None = None
    quality: int = 2
    faces: bool = False

    def __post_init__(self) -> None:
        if not self.only:
            raise BadConfig("no modality to write", "give audio, vision or both")
        if not 0 < self.rate < math.inf or (self.size is not None and self.size < 1):
            message = f"no frames have rate {self.rate} and size {self.size}"
            raise BadConfig(message, "give a rate above 0, and a size of 1 pixel or more")
        if not 1 <= self.quality <= 31:
            raise BadConfig(f"quality {self.quality} is none of a JPEG", "give 1 (finest) to 31")
        if self.faces and "vision" not in self.only:
            raise BadConfig("face crops without vision", "leave --faces out, or add vision to --only")


@dataclass(frozen=True)
class ClipFiles:
    """Writes the files of clips below the folder `out`: audio/NAME.wav, frames/NAME/00001.jpg and so on."""

    out: Path
    settings: FileSettings

    def write(self, name: str, clip: Clip) -> Facts:
        """Write what the clip has of what is asked; returns its columns of the index.

        Frame n shows time (n - 1) / rate s from the clip's start; times without a picture (a face) have no file. Raises
        BadMedia where there is neither sound nor picture, the errors of `Clip`, and StorageError.
        """
        asked = self.settings.only
        facts: Facts = {"seconds": round(clip.duration, 6)}
        facts |= self._sound(name, clip) if "audio" in asked else {}
        facts |= self._pictures(name, clip) if "vision" in asked else {}
        wanted = self._wanted(clip)
        missing = [what for column, what in wanted.items() if not facts[column]]
        if len(missing) == len(wanted) and "face" not in missing:
            where = clip.video or clip.audio or "the utterance"
            raise BadMedia(f"{where} has no {' and no '.join(missing)}", "check the media, and start and end")
        return facts | {"missing": " ".join(missing)}

    def _wanted(self, clip: Clip) -> dict[str, str]:
        """The column of each asked modality's files, and what the clip lacks where that is empty."""
        picture = "face" if self.settings.faces and clip.has_video else "picture"
        both = {"audio": ("audio", "sound"), "vision": ("frames", picture)}
        return dict(both[modality] for modality in self.settings.only)

    def _sound(self, name: str, clip: Clip) -> Facts:
        audio = clip.read_audio(SOUND_RATE)
        if audio is None or not audio.valid.any():
            return {"audio": "", "audio_share": 0.0}
        file = f"audio/{name}.wav"
        write_wav(self.out / file, audio.samples, SOUND_RATE)
        return {"audio": file, "audio_share": round(audio.coverage, 4)}

    def _pictures(self, name: str, clip: Clip) -> Facts:
        steps = clip.steps(self.settings.rate) if clip.has_video else 0
        pictures, folder = self._shown(clip), ""
        numbers: list[int] = []
        if (first := next(pictures, None)) is not None:
            folder = f"frames/{name}"
            with io.atomic_folder(self.out / folder) as tmp:
                for step, image in chain([first], pictures):
                    numbers.append(step + 1)
                    (tmp / f"{step + 1:05d}.jpg").write_bytes(jpeg(image, self.settings.quality))
        absent = np.setdiff1d(np.arange(1, steps + 1), numbers)
        share = "face_share" if self.settings.faces else "frame_share"
        return {
            "frames": folder,
            "frame_count": len(numbers),
            "frame_rate": self.settings.rate,
            share: round(len(numbers) / steps, 4) if steps else 0.0,
            "frames_absent": _ranges(absent),
        }

    def _shown(self, clip: Clip) -> Iterator[tuple[int, np.ndarray]]:
        """(step, uint8 [H, W, 3]) of every step that shows something."""
        if self.settings.faces:
            for steps, crops in self._crops.blocks(clip, AHEAD):
                yield from zip(steps.tolist(), crops, strict=True)
        else:
            yield from ((frame.index, frame.image) for frame in clip.frames(self.settings.rate, self.settings.size))

    @cached_property
    def _crops(self) -> FaceCrops:
        return FaceCrops(fps=self.settings.rate, size=self.settings.size or CROP)


def file_names(ids: Sequence[str]) -> dict[str, str]:
    """A file name without suffix for every id: the id itself, where file systems agree that it is a name of its own.

    Of any other (with / or .., very long, or different from another in its case only) letters and digits are kept, and
    its hash is added.
    """
    same = Counter(i.casefold() for i in ids)
    good = {i: SIMPLE.fullmatch(i) is not None and same[i.casefold()] == 1 for i in ids}
    return {i: i if good[i] else f"{re.sub('[^A-Za-z0-9]', '_', i)[:80]}-{io.digest(i)}" for i in ids}


def _ranges(numbers: np.ndarray) -> str:
    """Ascending numbers as text: 1-4 9."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return " ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs if len(run))
