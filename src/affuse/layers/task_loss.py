"""The plain loss of a task of each kind, against hard or soft targets."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, one_hot


def task_loss(kind: str, logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of classes, mean cross-entropy of the labels, or mean absolute error of values, [...].

    logits [..., C]; target [...] int64 or [..., C]; labels and values that are NaN are not known, and count nothing.
    """
    z = logits.float()
    if kind == "classes":
        shares = target if target.is_floating_point() else one_hot(target, z.shape[-1])
        return -(shares * z.log_softmax(-1)).sum(-1)
    known, t = ~target.isnan(), torch.nan_to_num(target.float())
    each = -(t * logsigmoid(z) + (1 - t) * logsigmoid(-z)) if kind == "multilabel" else (z - t).abs()
    return (each * known).sum(-1) / known.sum(-1).clamp_min(1)
