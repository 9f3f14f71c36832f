"""Layers that respect a mask: padding never reaches a statistic, a softmax or a recurrent state.

Conventions, here and in every encoder: `mask` [N, T] bool is True where a step has content; channel-first
tensors are [N, C, T] or [N, C, T, F] (time right after the channels), token tensors [N, T, D]. What these
layers return is exactly 0 where the mask is False, so that a zero-padded convolution has the same border
for any padding; a row without any content gives zeros, never NaN.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def channel_mask(mask: Tensor, like: Tensor) -> Tensor:
    """mask [N, T] as [N, 1, T, 1...], in the type of the channel-first `like`."""
    return mask.to(like.dtype).reshape(mask.shape[0], 1, mask.shape[1], *[1] * (like.dim() - 3))


def exact(x: Tensor) -> Tensor:
    """x in at least float32, also under autocast."""
    return x if x.dtype == torch.float64 else x.float()


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the valid steps: x [N, T, D], mask [N, T] -> [N, D]; zeros for an empty row."""
    m = mask.unsqueeze(-1).to(x.dtype)
    return (x * m).sum(1) / m.sum(1).clamp_min(1)


def even(x: Tensor, mask: Tensor) -> Tensor:
    """Every row of x [N, T] with mean 0 and variance 1 over its valid steps; 0 elsewhere."""
    count = mask.sum(1, keepdim=True).clamp_min(1)
    x = (x - (x * mask).sum(1, keepdim=True) / count) * mask
    return x / (x.square().sum(1, keepdim=True) / count + 1e-10).sqrt()


def masked_softmax(scores: Tensor, mask: Tensor, dim: int = -1) -> Tensor:
    """Softmax over the True elements of `mask` (broadcastable to scores); all zeros where there is none."""
    weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim)
    return weights * mask


def masked_max_pool(x: Tensor, mask: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Max pooling of x [N, C, T, F] over `size` = (time, frequency) valid elements, and the pooled mask.

    A pooled step is valid if any of its steps is, so that no content is lost at the end of a row.
    """
    t, _f = size
    if t > 1:
        x = x.masked_fill(channel_mask(~mask, x).bool(), torch.finfo(x.dtype).min)
    x = nn.functional.max_pool2d(x, size, ceil_mode=True)
    pooled = pool_mask(mask, t)
    return x * channel_mask(pooled, x) if t > 1 else x, pooled


def pool_mask(mask: Tensor, step: int) -> Tensor:
    """mask [N, T] -> [N, ceil(T / step)]: True where any of `step` consecutive steps is."""
    padded = nn.functional.pad(mask, (0, -mask.shape[1] % step))
    return padded.unflatten(1, (-1, step)).any(-1)


class MaskedBatchNorm(nn.Module):
    """Batch normalisation of x [N, C, T] or [N, C, T, F] over the valid steps of mask [N, T] only.

    On a full mask it equals nn.BatchNorm1d / 2d (biased variance to normalise, unbiased in `running_var`).
    In an initialised process group the sums, and their gradients, are taken over all processes, so that several
    processes equal one large batch. A training batch without content does not change the running statistics.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, features: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """The normalised x, 0 where the mask is False; statistics are at least float32 also under autocast."""
        x = exact(x)
        keep, column = channel_mask(mask, x), (-1, *[1] * (x.dim() - 2))
        if self.training:
            centred, var = self._centre(x, keep, column)
        else:
            centred, var = x - self.running_mean.view(column), self.running_var
        scale = self.weight * torch.rsqrt(var + self.eps)
        return torch.addcmul(self.bias.view(column), centred, scale.view(column)) * keep

    def _centre(self, x: Tensor, keep: Tensor, column: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """x less its mean over the valid elements of all processes (0 elsewhere), and their variance [C]."""
        axes = [0, *range(2, x.dim())]
        count = keep.sum().reshape(1) * x[0, 0, 0].numel()
        total, n = _over_processes(torch.cat([(x * keep).sum(axes), count])).split([x.shape[1], 1])
        n = n.detach().clamp_min(1)
        mean = total / n
        centred = (x - mean.view(column)) * keep
        var = _over_processes(centred.square().sum(axes)) / n
        self._track(mean.detach(), var.detach(), n)
        return centred, var

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, n: Tensor) -> None:
        step = self.momentum * (n > 1).to(mean.dtype)  # none without content, nor of one element without variance
        self.running_mean.lerp_(mean, step)
        self.running_var.lerp_(var * (n / (n - 1).clamp_min(1)), step)


def _over_processes(x: Tensor) -> Tensor:
    """The sum over all processes, with its gradient; x itself outside a process group."""
    return all_reduce(x) if several_processes() else x


def several_processes() -> bool:
    """Whether this is one of several processes that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class AttentionPool(nn.Module):
    """Attention over time with one learned score per head: x [N, T, D], mask [N, T] -> [N, heads * D]."""

    def __init__(self, dim: int, *, hidden: int = 64, heads: int = 1) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(dim, hidden), nn.Tanh(), nn.Linear(hidden, heads, bias=False))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """The weighted sum of the valid steps; zeros for a row without any."""
        weights = masked_softmax(self.score(x), mask.unsqueeze(-1), dim=1)
        return torch.einsum("nth,ntd->nhd", weights, x).flatten(1)


class MaskedGRU(nn.Module):
    """Bidirectional GRU over the valid steps only: x [N, T, D], mask [N, T] -> [N, T, 2 * hidden]."""

    def __init__(self, dim: int, hidden: int, *, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.gru = nn.GRU(dim, hidden, layers, batch_first=True, bidirectional=True, dropout=between)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """The states at their own steps, 0 where the mask is False."""
        return over_valid(self.gru, x, mask)


class MaskedLSTM(nn.Module):
    """Bidirectional LSTM over the valid steps only: x [N, T, D], mask [N, T] -> [N, T, 2 * hidden]."""

    def __init__(self, dim: int, hidden: int, *, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(dim, hidden, layers, batch_first=True, bidirectional=True, dropout=between)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """The states at their own steps, 0 where the mask is False."""
        return over_valid(self.lstm, x, mask)


def over_valid(network: nn.GRU | nn.LSTM, x: Tensor, mask: Tensor) -> Tensor:
    """The states of a recurrent network at their own steps of x [N, T, D], 0 where mask [N, T] is False.

    Steps without content are skipped as if they had been cut out (interior holes too): neither direction's state ever
    passes through them.
    """
    order = valid_first(mask)
    lengths = mask.sum(1).clamp_min(1).cpu()
    packed = pack_padded_sequence(take(x, order), lengths, batch_first=True, enforce_sorted=False)
    states, _ = pad_packed_sequence(network(packed)[0], batch_first=True, total_length=x.shape[1])
    return take(states, order.argsort(dim=1)) * mask.unsqueeze(-1)


def valid_first(mask: Tensor) -> Tensor:
    """[N, T]: the order of the steps that puts those of mask [N, T] first, as they follow each other."""
    return mask.logical_not().to(torch.int8).argsort(dim=1, stable=True)


def take(x: Tensor, order: Tensor) -> Tensor:
    """Steps of x [N, T, D] in the order [N, T]."""
    return x.gather(1, order.unsqueeze(-1).expand_as(x))
