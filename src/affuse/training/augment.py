"""What is done to training batches only: per stream kind, mixing of utterances, dropped modalities.

All randomness comes from torch's global generator, which checkpoints carry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from affuse.core.config import AugmentConfig
from affuse.core.errors import BadConfig
from affuse.core.tasks import Task
from affuse.core.types import Batch, Encoded
from affuse.layers.drop import drop_but_one
from affuse.objectives.cross_entropy import soft_targets
from affuse.training.augment_audio import add_noise, change_gain, change_speed


def augment(batch: Batch, config: AugmentConfig, tasks: Mapping[str, Task]) -> Batch:
    """The batch with its waveforms and pictures varied, then mixed (`mixup`)."""
    x, mask = dict(batch.x), dict(batch.mask)
    for spec in batch.streams:
        if spec.shape == () and spec.modality == "audio":
            x[spec.name], mask[spec.name] = _waveform(x[spec.name], mask[spec.name], spec.rate, config)
        elif spec.shape == () and spec.modality == "text":
            mask[spec.name] = hide_words(mask[spec.name], config.words)
        elif len(spec.shape) == 3:
            x[spec.name] = _pictures(x[spec.name], mask[spec.name], config)
    return mixup(replace(batch, x=x, mask=mask), config, tasks)


def _waveform(x: Tensor, mask: Tensor, rate: float, config: AugmentConfig) -> tuple[Tensor, Tensor]:
    """x [N, T] at `rate` Hz: a random segment of `crop_seconds`, another speed, gain and noise."""
    if config.crop_seconds > 0:
        x, mask = crop(x, mask, round(config.crop_seconds * rate))
    if config.speed > 0 and torch.rand(()) < config.speed:
        low, high = config.speed_range
        x, mask = change_speed(x, mask, speed=(low, high))
    if config.gain_db > 0:
        x, mask = change_gain(x, mask, gain_db=config.gain_db)
    if config.noise > 0:
        low, high = config.noise_snr
        x, mask = add_noise(x, mask, snr_db=(low, high), p=config.noise)
    return x, mask


def hide_words(mask: Tensor, share: float) -> Tensor:
    """Token ids [N, T], each hidden with probability `share`; the first one of a row, a marker, always stays."""
    if share <= 0:
        return mask
    keep = torch.rand(mask.shape, device=mask.device) >= share
    keep[:, 0] = True
    return mask & keep


def crop(x: Tensor, mask: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """A random segment of at most `length` steps of every row."""
    if x.shape[1] <= length:
        return x, mask
    room = (mask.sum(1) - length).clamp_min(0)
    start = (torch.rand(len(x), device=x.device) * (room + 1)).long()
    index = start.unsqueeze(1) + torch.arange(length, device=x.device)
    return x.gather(1, index), mask.gather(1, index)


def _pictures(x: Tensor, mask: Tensor, config: AugmentConfig) -> Tensor:
    """x [N, T, H, W, 3], per utterance: mirrored, shifted by a share of the size, other brightness and contrast."""
    n, _, height, width, _ = x.shape
    if config.flip > 0:
        mirrored = torch.rand(n, device=x.device) < config.flip
        x = torch.where(mirrored.view(n, 1, 1, 1, 1), x.flip(3), x)
    if config.shift > 0:
        rows, columns = (_shifted(size, n, config.shift, x) for size in (height, width))
        x = x.gather(2, rows.view(n, 1, height, 1, 1).expand_as(x))
        x = x.gather(3, columns.view(n, 1, 1, width, 1).expand_as(x))
    if config.jitter > 0:
        gain, offset = (torch.empty(n, 1, 1, 1, 1, device=x.device).uniform_(-1, 1) * config.jitter for _ in range(2))
        x = ((x - 0.5) * (1 + gain) + 0.5 + 0.5 * offset).clamp(0, 1)
    return x * mask[..., None, None, None]


def _shifted(size: int, n: int, share: float, like: Tensor) -> Tensor:
    """Index [n, size] of pixels moved by up to `share` of the size; the border is repeated."""
    move = (torch.empty(n, 1, device=like.device).uniform_(-1, 1) * share * size).round().long()
    return (torch.arange(size, device=like.device) + move).clamp(0, size - 1)


def mixup(batch: Batch, config: AugmentConfig, tasks: Mapping[str, Task]) -> Batch:
    """Every utterance mixed with another one, labels too: lam ~ Beta(a, a), lam >= 1/2.

    Zhang et al., mixup, ICLR 2018. Streams that only one of the two has are left as they are.
    """
    if config.mixup <= 0 or len(batch) < 2 or torch.rand(()) >= config.mixup_probability:
        return batch
    if ids := [spec.name for spec in batch.streams if spec.shape == () and spec.modality == "text"]:
        raise BadConfig(f"augment.mixup cannot mix the token ids of stream '{ids[0]}'", "set augment.mixup=0")
    if batch.grid:
        raise BadConfig(
            f"augment.mixup cannot mix the frames of task '{next(iter(batch.grid))}'", "set augment.mixup=0"
        )
    n, device = len(batch), batch.present.device
    lam = torch.distributions.Beta(config.mixup, config.mixup).sample((n,)).to(device)
    lam, other = torch.maximum(lam, 1 - lam), torch.randperm(n, device=device)
    x, mask = dict(batch.x), dict(batch.mask)
    for i, spec in enumerate(batch.streams):
        both = batch.present[:, i] & batch.present[other, i]
        x[spec.name], mask[spec.name] = _mix(x[spec.name], mask[spec.name], torch.where(both, lam, 1.0), other)
    target, known = dict(batch.target), dict(batch.target_mask)
    for task, value in batch.target.items():
        soft = value if value.is_floating_point() else soft_targets(value, len(tasks[task]), 0.0)
        weight = lam.view(n, *[1] * (soft.dim() - 1))
        target[task] = weight * soft + (1 - weight) * soft[other]
        known[task] = known[task] & known[task][other]
    return replace(batch, x=x, mask=mask, target=target, target_mask=known)


def _mix(x: Tensor, mask: Tensor, lam: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    weight = lam.view(-1, *[1] * (x.dim() - 1))
    mixed = (lam < 1).unsqueeze(1)
    return weight * x + (1 - weight) * x[other], mask | (mask[other] & mixed)


def modality_dropout(encoded: Encoded, modalities: Sequence[str], p: float) -> Encoded:
    """Each modality hidden from the fusion with probability `p` per utterance; one that is present always stays.

    `modalities` names the modality of every stream, in the streams' order. The streams' own heads still see them.
    """
    if p <= 0 or len(set(modalities)) < 2:
        return encoded
    names = sorted(set(modalities))
    column = torch.tensor([names.index(m) for m in modalities], device=encoded.present.device)
    has = torch.stack([encoded.present[:, column == i].any(1) for i in range(len(names))], 1)
    keep = drop_but_one(has, p)
    return replace(encoded, present=encoded.present & keep[:, column])
