"""What tasks per frame predict along a clip: the frames of overlapping windows, averaged on one grid of the clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from affuse.core.tasks import Task
from affuse.core.timeline import Curve
from affuse.inference.utterances import Utterances
from affuse.models.model import Model


class Curves:
    """Frames of one clip as they come, window by window; `curves` is their mean at every step of the grid."""

    def __init__(self, tasks: Mapping[str, Task], duration: float) -> None:
        self.tasks = {name: task for name, task in tasks.items() if task.per_frame}
        self.duration, self.rate = duration, 0.0
        self._sums: dict[str, np.ndarray] = {}
        self._count = np.zeros(0)

    @torch.inference_mode()
    def add(self, models: Sequence[Model], utterances: Utterances, starts: Sequence[float]) -> None:
        """The frames of windows that begin at `starts` (s)."""
        if not self.tasks:
            return
        for model, encoded in zip(models, utterances.encoded, strict=True):
            output = model.fuse(encoded, utterances.batch)
            fused = output.fused
            assert fused.mask is not None
            assert fused.t0 is not None
            self._begin(fused.rate)
            at = torch.tensor(starts, dtype=torch.float64) + fused.t0.cpu()
            first = (at * self.rate).round().long().unsqueeze(1)
            place = (first + torch.arange(fused.mask.shape[1]))[mask := fused.mask.cpu()].numpy()
            inside = (place >= 0) & (place < len(self._count))
            np.add.at(self._count, place[inside], 1.0)
            for name, task in self.tasks.items():
                values = task.predict(output.logits[name]).cpu()[mask].numpy()
                np.add.at(self._sums[name], place[inside], values[inside])

    def _begin(self, rate: float) -> None:
        if not self.rate:
            steps = int(np.ceil(self.duration * rate - 1e-6))
            self.rate, self._count = rate, np.zeros(steps)
            self._sums = {name: np.zeros((steps, len(task))) for name, task in self.tasks.items()}

    def curves(self) -> dict[str, Curve]:
        """Task -> the mean prediction at every step of the clip; None at a step that no window answers."""
        found = {}
        for name, sums in self._sums.items():
            mean = np.where(self._count[:, None] > 0, sums, np.nan) / np.maximum(self._count, 1)[:, None]
            found[name] = Curve.of(self.tasks[name].space.labels, self.rate, 0.0, mean)
        return found
