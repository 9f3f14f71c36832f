"""What a pretrained video transformer makes of a moving face: one vector per window of frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from affuse.core.errors import BadConfig
from affuse.core.types import Feature, StreamSpec
from affuse.features.networks import pretrained
from affuse.features.networks.pictures import Block, Pool, View, pool_steps
from affuse.features.networks.pretrained import Known
from affuse.features.networks.vision import VisionTransformer

if TYPE_CHECKING:
    from affuse.media.clip import Clip

CARD = {
    "summary": "VideoMAE on windows of aligned faces or whole frames, one vector every half second",
    "source": "Tong et al. 2022, VideoMAE",
    "entry": "VideoModel",
    "modalities": ["vision"],
    "licence": "the model's own; MCG-NJU's VideoMAE CC-BY-NC-4.0",
    "version": 1,
    "extra": "text",
    "packages": ["transformers"],
    "download": "from the Hugging Face hub, once: videomae 377 MB; or a folder",
    "rate": "1 / hop, 2 by default; with pool=mean one vector",
    "dim": "the model's hidden size: 768 (videomae)",
}
KNOWN = {"videomae": Known("MCG-NJU/videomae-base", 377, "CC-BY-NC-4.0")}
BATCH = 2  # windows per forward pass
Window = tuple[int, float, np.ndarray]  # number, share of its steps that have a picture, pictures [N, S, S, 3]


class VideoModel(VisionTransformer):
    """Clip -> [K, D], one vector per window of N frames (the model's `num_frames`) `fps` apart, a window every `hop` s.

    Step k is the middle of window k. Steps without a face (or picture) show the nearest one of the window; the window
    is valid if at least the share `enough` of its steps has one. A clip shorter than a window is one window, its last
    picture held. A vector is the mean over all tokens of the `layers`, side by side or added up by `weights`; `model`,
    `view`, `margin`, `pool` and `detector` as for `image_model`. Raises BadConfig where `hop` is not a whole number of
    steps.
    """

    known, kind = KNOWN, "video model"

    def __init__(
        self,
        *,
        model: str = "videomae",
        view: View = "face",
        fps: float = 8.0,
        hop: float = 0.5,
        enough: float = 0.5,
        layers: tuple[int, ...] = (-1,),
        weights: tuple[float, ...] = (),
        pool: Pool = "none",
        margin: float = 0.2,
        detector: Path | None = None,
        detector_sha256: str = "",
    ) -> None:
        super().__init__(model, view, fps, layers, weights, pool, margin, detector, detector_sha256)
        self.hop, self.enough = hop, enough
        self._stride = round(hop * fps)
        if self._stride < 1 or abs(self._stride - hop * fps) > 1e-6:
            raise BadConfig(f"hop = {hop} s is {hop * fps:g} steps at {fps:g} fps", "make hop * fps a whole number")

    def _settings(self, config: dict[str, Any]) -> dict[str, Any]:
        if not {"hidden_size", "num_frames"} <= config.keys():
            raise BadConfig(
                f"{self.folder} is no video transformer", "use VideoMAE or the like; for pictures: image_model"
            )
        return config

    @property
    def spec(self) -> StreamSpec:
        """One vector per window, or one in all."""
        rate = self.fps / self._stride if self.pool == "none" else 0.0
        return StreamSpec("video_model", "vision", (self._width,), rate)

    @cached_property
    def _network(self) -> Any:
        return pretrained.load(self.folder)

    def __call__(self, clip: Clip) -> Feature:
        """The vectors of the clip's windows; only the frames of a few windows are in memory at a time."""
        steps, length = clip.steps(self.fps) if clip.has_video else 0, int(self._config["num_frames"])
        count = number(steps, length, self._stride)
        values, valid = np.zeros((count, *self.spec.shape), np.float32), np.zeros(count, bool)
        found = windows(self._source.blocks(clip), steps, length, self._stride)
        good = ((k, pictures) for k, share, pictures in found if share >= self.enough)
        while some := list(islice(good, BATCH)):
            at = [k for k, _ in some]
            values[at], valid[at] = self.embed(np.stack([pictures for _, pictures in some])), True
        middle = max(0, min(length, steps) - 1) / 2 / self.fps
        return pool_steps(Feature(values, valid, middle), self.pool)

    def embed(self, pictures: np.ndarray) -> np.ndarray:
        """Vectors [n, D] of windows of pictures uint8 [n, N, size, size, 3]."""
        import torch

        with torch.inference_mode():
            vector: np.ndarray = self._tokens(self._network, pictures).mean(1).numpy()
        return vector


def number(steps: int, length: int, stride: int) -> int:
    """How many windows of `length` steps, one every `stride`, cover a clip of `steps`."""
    return min(1 + max(0, -(-(steps - length) // stride)), -(-steps // stride))


def windows(blocks: Iterable[Block], steps: int, length: int, stride: int) -> Iterator[Window]:
    """The windows of a clip of `steps` whose pictures come in blocks, in time order; without any picture: left out.

    The last one may reach beyond the clip, whose steps alone count for the share.
    """
    coming = iter(blocks)
    held, images = next(coming, (np.zeros(0, int), np.zeros(0, np.uint8)))
    for k in range(number(steps, length, stride)):
        wanted = k * stride + np.arange(length)
        while (held.size == 0 or held[-1] < wanted[-1]) and (block := next(coming, None)) is not None:
            keep = held >= wanted[0]
            held, images = np.concatenate([held[keep], block[0]]), np.concatenate([images[keep], block[1]])
        inside = np.flatnonzero((held >= wanted[0]) & (held <= wanted[-1]))
        if len(inside):
            nearest = inside[np.abs(held[inside] - wanted[:, None]).argmin(1)]
            yield k, len(inside) / min(length, steps - wanted[0]), images[nearest]
