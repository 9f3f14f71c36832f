"""eGeMAPS and ComParE: the parameter sets of affective computing, computed by openSMILE itself."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from affuse.core.types import Feature, StreamSpec
from affuse.features.waveform import muted

if TYPE_CHECKING:
    from affuse.media.clip import Clip

CARD = {
    "summary": "eGeMAPS v02 (88 functionals, or 25 descriptors per 10 ms) or ComParE 2016 (6373, or 65), by openSMILE",
    "source": "Eyben et al. 2016 (eGeMAPS); Schuller et al. 2016 (ComParE); openSMILE, Eyben et al. 2010",
    "entry": "EGeMAPS",
    "modalities": ["audio"],
    "licence": "openSMILE: audEERING research licence, NOT for commercial use (the package's metadata wrongly says "
    "MIT)",
    "version": 1,
    "extra": "opensmile",
    "packages": ["opensmile"],
    "download": "",
    "rate": "utterance; with level=lld 100",
    "dim": "88 (egemaps) or 6373 (compare); with level=lld 25 or 65",
}
RATE, HOP = 16000, 160
LEAST = 960  # samples; openSMILE's longest window, 60 ms
CENTRE = 0.01  # s; openSMILE's frames begin together, the spectral ones are 20 to 25 ms long
SETS = {"egemaps": ("eGeMAPSv02", 88, 25), "compare": ("ComParE_2016", 6373, 65)}


class EGeMAPS:
    """Clip -> [1, 88] functionals of the recorded sound, or with `level` "lld" [T, 25], every 10 ms from t0 = 10 ms on.

    `feature_set` "compare" gives 6373 and 65. Functionals leave out what was not recorded (and runs of 1 s or more
    of exact zeros) and join the rest; descriptors there are invalid. Pitch descriptors look at 60 ms, so they stand
    20 ms late. Less than 60 ms of sound is absent. Values are openSMILE's own, not scaled.
    """

    def __init__(
        self,
        *,
        feature_set: Literal["egemaps", "compare"] = "egemaps",
        level: Literal["functionals", "lld"] = "functionals",
    ) -> None:
        self.feature_set, self.level = feature_set, level

    @property
    def spec(self) -> StreamSpec:
        """One vector, or one per 10 ms."""
        _, functionals, descriptors = SETS[self.feature_set]
        whole = self.level == "functionals"
        return StreamSpec("egemaps", "audio", (functionals if whole else descriptors,), 0.0 if whole else RATE / HOP)

    @cached_property
    def _smile(self) -> Any:
        import opensmile

        level = "Functionals" if self.level == "functionals" else "LowLevelDescriptors"
        return opensmile.Smile(
            getattr(opensmile.FeatureSet, SETS[self.feature_set][0]), getattr(opensmile.FeatureLevel, level)
        )

    @property
    def names(self) -> list[str]:
        """openSMILE's names of the values."""
        return list(self._smile.feature_names)

    def __call__(self, clip: Clip) -> Feature:
        """The parameters of the clip's sound."""
        audio = clip.read_audio(RATE)
        valid = audio.valid & ~muted(audio.samples, RATE) if audio is not None else np.zeros(0, bool)
        if audio is None or valid.sum() < LEAST:
            return Feature(np.zeros((0, *self.spec.shape), np.float32))
        if self.level == "functionals":
            return Feature(self._compute(audio.samples[valid]))
        values = self._compute(audio.samples)
        recorded = valid[round(CENTRE * RATE) :: HOP][: len(values)]
        return Feature(values, None if recorded.all() else recorded, CENTRE)

    def _compute(self, samples: np.ndarray) -> np.ndarray:
        values: np.ndarray = self._smile.process_signal(samples, RATE).to_numpy(np.float32)
        return values
