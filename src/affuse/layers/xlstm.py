"""xLSTM: memory cells with exponential gates, over time or step by step, in one direction or both.

Beck et al., "xLSTM: Extended Long Short-Term Memory", NeurIPS 2024. mLSTM (eq. 19-27) has a matrix for its memory, and
gates that do not depend on its output, so that time runs in parallel; those of sLSTM (eq. 8-17) do, which takes a loop
over time. Everything is divided by exp(m), m being the largest exponent so far; the result does not depend on m,
because the least normaliser is exp(-m), which is 1 without the division.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from affuse.core.errors import BadConfig
from affuse.layers.masked import exact, take, valid_first

CHUNK = 64  # steps; what is done within a chunk grows with its square, and there is a loop over chunks
FARTHEST = 80.0  # exponent of what float32 still holds
Kind = Literal["mlstm", "slstm"]


class Memory(NamedTuple):
    """C [..., d, d + 1] divided by exp(m): the decayed sum of k_j [v_j, 1], so that its last column is n."""

    c: Tensor
    m: Tensor


def empty(q: Tensor) -> Memory:
    """The memory before the first step, for queries q [..., T, d]."""
    d = q.shape[-1]
    return Memory(q.new_zeros(*q.shape[:-2], d, d + 1), q.new_zeros(q.shape[:-2]))


def recurrent(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
    """h [..., T, d] and the memory after it, step by step: C = f C + i k [v, 1]^T, h = C q / max(|n q|, 1).

    q, k, v [..., T, d], k divided by sqrt(d); i, f [..., T]: the logarithms of the input and forget gate.
    """
    (c, m), found = memory, []
    v = F.pad(v, (0, 1), value=1.0)
    for t in range(q.shape[-2]):
        after = torch.maximum(f[..., t] + m, i[..., t]).detach()
        decay, share = (f[..., t] + m - after).exp(), (i[..., t] - after).exp()
        c = decay[..., None, None] * c + share[..., None, None] * k[..., t, :, None] * v[..., t, None, :]
        m = after
        found.append(_normalised(q[..., t : t + 1, :] @ c, -m.unsqueeze(-1)))
    return torch.cat(found, -2), Memory(c, m)


def chunkwise(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, memory: Memory, *, chunk: int = CHUNK
) -> tuple[Tensor, Memory]:
    """The same as `recurrent`: all steps of all chunks at once, and a loop over the memory before each chunk.

    With F_t the sum of f within the chunk: the weight of step j at step t is exp(F_t - F_j + i_j - mu_t), that of the
    memory before the chunk exp(F_t + m - mu_t), mu_t = F_t + max(m, max_(j <= t) i_j - F_j). Time and memory are
    linear in T. In float32 F loses digits where gates of a chunk are shut: f near -100 costs 1e-3 of h.
    """
    steps, lead = q.shape[-2], q.shape[:-2]
    size = min(chunk, steps)
    rest = -steps % size
    q, k, v = (F.pad(x, (0, 0, 0, rest)).reshape(*lead, -1, size, x.shape[-1]) for x in (q, k, v))
    i = F.pad(i, (0, rest), value=-1e30).reshape(*lead, -1, size)  # steps that leave the memory as it is
    f = F.pad(f, (0, rest)).reshape(*lead, -1, size)
    v = F.pad(v, (0, 1), value=1.0)
    summed = f.cumsum(-1)
    total, source = summed[..., -1], i - summed
    with torch.no_grad():  # h does not depend on the scale
        highest = source.cummax(-1).values
        until = total.cumsum(-1)
        peak = (highest[..., -1] + total - until).cummax(-1).values
        after = until + torch.maximum(peak, memory.m.unsqueeze(-1))
        before = torch.cat([memory.m.unsqueeze(-1), after[..., :-1]], -1)
        scale = torch.maximum(before.unsqueeze(-1), highest)  # mu - F
    decay = (total + before - after).exp()[..., None, None]
    added = (k * (source + (total - after).unsqueeze(-1)).exp().unsqueeze(-1)).mT @ v
    c, earlier = memory.c, []
    for part, more in zip(decay.unbind(-3), added.unbind(-3), strict=True):
        earlier.append(c)
        c = part * c + more
    later = torch.ones(size, size, dtype=torch.bool, device=q.device).triu(1)
    weight = (source.unsqueeze(-2) - scale.unsqueeze(-1)).masked_fill(later, -torch.inf).exp()
    old = (before.unsqueeze(-1) - scale).exp().unsqueeze(-1)
    h = _normalised(((q @ k.mT) * weight) @ v + (q * old) @ torch.stack(earlier, -3), -summed - scale)
    return h.flatten(-3, -2)[..., :steps, :], Memory(c, after[..., -1])


def _normalised(h: Tensor, least: Tensor) -> Tensor:
    """[..., T, d + 1] -> [..., T, d]: divided by the size of the last column, which counts as exp(least) or more."""
    return h[..., :-1] / torch.maximum(h[..., -1:].abs(), least.clamp(-FARTHEST, FARTHEST).exp().unsqueeze(-1))


class Headwise(nn.Module):
    """Linear layers without bias on neighbouring groups of features: x [..., D] -> [..., D]."""

    def __init__(self, dim: int, group: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(dim // group, group, group) * math.sqrt(2 / (5 * group)))

    def forward(self, x: Tensor) -> Tensor:
        """Every group of features times its own matrix."""
        return torch.einsum("...gi,gio->...go", x.unflatten(-1, self.weight.shape[:2]), self.weight).flatten(-2)


class CausalConv(nn.Module):
    """A convolution over time for every feature by itself, of this step and the ones before it, then SiLU."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.before = kernel - 1
        self.conv = nn.Conv1d(dim, dim, kernel, groups=dim)

    def begin(self, x: Tensor) -> Tensor:
        """What stands before the first step of x [N, T, D]: zeros [N, kernel - 1, D]."""
        return x.new_zeros(len(x), self.before, x.shape[2])

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """x [N, T, D] after past [N, kernel - 1, D] -> the same shape, and the past of what follows."""
        whole = torch.cat([past.to(x.dtype), x], 1)
        return F.silu(self.conv(whole.mT).mT), whole[:, whole.shape[1] - self.before :]


class HeadNorm(nn.Module):
    """Layer normalisation of every head by itself: h [N, T, H, d] -> [N, T, H d]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, h: Tensor) -> Tensor:
        """Mean 0 and variance 1 in every head, times a learned weight per feature."""
        return F.layer_norm(h, h.shape[-1:]).flatten(-2) * self.weight


class MLSTM(nn.Module):
    """x [N, T, dim] -> (headnorm(h) + s c) silu(z) [N, T, expand dim], forward in time (Beck et al., fig. 10).

    (a, z) = W x, c = silu(conv(a)), queries and keys of c, values of a; gates of all three.
    """

    def __init__(self, dim: int, heads: int, expand: int, kernel: int) -> None:
        super().__init__()
        self.heads, self.width = heads, expand * dim
        self.up, self.conv = nn.Linear(dim, 2 * self.width), CausalConv(self.width, kernel)
        group = math.gcd(4, self.width)
        self.query, self.key, self.value = (Headwise(self.width, group) for _ in range(3))
        self.gates, self.norm = nn.Linear(3 * self.width, 2 * heads), HeadNorm(self.width)
        self.skip = nn.Parameter(torch.ones(self.width))
        nn.init.zeros_(self.gates.weight)
        _start_gates(self.gates, heads)

    def begin(self, x: Tensor) -> tuple[Tensor, Memory]:
        """The state before the first step of x [N, T, dim]."""
        like = exact(x.new_zeros(len(x), self.heads, 0, self.width // self.heads))
        return self.conv.begin(x.new_zeros(len(x), 0, self.width)), empty(like)

    def forward(self, x: Tensor, state: tuple[Tensor, Memory] | None = None) -> tuple[Tensor, tuple[Tensor, Memory]]:
        """x [N, T, dim] after `state` (None: nothing) -> [N, T, width] and the state after it."""
        past, memory = state or self.begin(x)
        a, z = self.up(x).chunk(2, -1)
        c, past = self.conv(a, past)
        q, k, v = self.query(c), self.key(c), self.value(a)
        gates = self.gates(torch.cat([q, k, v], -1)).mT
        with torch.autocast(x.device.type, enabled=False):  # sums of exponents need all their digits
            i, f = exact(gates).chunk(2, 1)
            q, k, v = (exact(part).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
            over = chunkwise if x.shape[1] > 1 else recurrent
            h, memory = over(q, k * k.shape[-1] ** -0.5, v, i, F.logsigmoid(f), memory)
        h = self.norm(h.transpose(1, 2)).to(c.dtype)
        return (h + self.skip * c) * F.silu(z), (past, memory)


class Cells(NamedTuple):
    """State of the sLSTM [N, H, d] each: c and the normaliser n divided by exp(m), m, and the output h."""

    c: Tensor
    n: Tensor
    m: Tensor
    h: Tensor


class SLSTM(nn.Module):
    """x [N, T, dim] -> headnorm(h) [N, T, dim], forward in time (Beck et al., fig. 9), with a loop over time.

    i and f read silu(conv(x)), z and o read x; all four read h of the step before, each head its own.
    """

    def __init__(self, dim: int, heads: int, kernel: int) -> None:
        super().__init__()
        self.heads, self.width, d = heads, dim, dim // heads
        self.conv = CausalConv(dim, kernel)
        self.gates, self.inputs = nn.Linear(dim, 2 * dim), nn.Linear(dim, 2 * dim)
        self.recurrent = nn.Parameter(torch.empty(heads, d, 4 * d).uniform_(-(d**-0.5), d**-0.5))
        self.norm = HeadNorm(dim)
        _start_gates(self.gates, dim)

    def begin(self, x: Tensor) -> tuple[Tensor, Cells]:
        """The state before the first step of x [N, T, dim]."""
        zero = exact(x.new_zeros(len(x), self.heads, self.width // self.heads))
        return self.conv.begin(x), Cells(zero, zero, torch.full_like(zero, -torch.inf), zero)

    def forward(self, x: Tensor, state: tuple[Tensor, Cells] | None = None) -> tuple[Tensor, tuple[Tensor, Cells]]:
        """x [N, T, dim] after `state` (None: nothing) -> [N, T, dim] and the state after it."""
        past, cells = state or self.begin(x)
        c, past = self.conv(x, past)
        ahead = torch.cat([self.gates(c), self.inputs(x)], -1).unflatten(-1, (4, self.heads, -1))
        ahead = ahead.transpose(2, 3).flatten(3)  # [N, T, H, 4 d], as the recurrent part gives it
        found = []
        with torch.autocast(x.device.type, enabled=False):
            for step in exact(ahead).unbind(1):
                cells = self._step(step, cells)
                found.append(cells.h)
        return self.norm(torch.stack(found, 1)).to(x.dtype), (past, cells)

    def _step(self, ahead: Tensor, before: Cells) -> Cells:
        """ahead [N, H, 4 d]: what the gates have of x."""
        more = torch.einsum("nhd,hde->nhe", before.h, self.recurrent.to(ahead.dtype))
        i, f, z, o = (ahead + more).chunk(4, -1)
        f = F.logsigmoid(f)
        m = torch.maximum(f + before.m, i).detach()
        decay, share = (f + before.m - m).exp(), (i - m).exp()
        c, n = decay * before.c + share * z.tanh(), decay * before.n + share
        return Cells(c, n, m, o.sigmoid() * c / n)


def _start_gates(gates: nn.Linear, each: int) -> None:
    """Input gates of about 1, forget gates between .95 and .998: nothing is forgotten before it was learnt."""
    assert gates.bias is not None
    with torch.no_grad():
        gates.bias[:each].normal_(std=0.1)
        gates.bias[each:] = torch.linspace(3.0, 6.0, each)


class Block(nn.Module):
    """y = x + W cell(norm(x)); both ways: W [forward, backward], with a cell of its own for each direction.

    After an sLSTM, y + W_2 (gelu(u) w), (u, w) = W_1 norm(y), 4/3 as wide.
    """

    def __init__(
        self, dim: int, kind: Kind, heads: int, *, expand: int, kernel: int, both: bool, dropout: float, deep: int
    ) -> None:
        super().__init__()
        self.norm, self.dropout = nn.LayerNorm(dim), nn.Dropout(dropout)
        made = [
            MLSTM(dim, heads, expand, kernel) if kind == "mlstm" else SLSTM(dim, heads, kernel) for _ in range(1 + both)
        ]
        self.cells, width = nn.ModuleList(made), sum(cell.width for cell in made)
        self.down = nn.Linear(width, dim)
        nn.init.normal_(self.down.weight, std=math.sqrt(2 / (5 * width * deep)))
        self.feed = GatedFeed(dim, dropout) if kind == "slstm" else None

    def forward(self, x: Tensor, state: Any = None, turned: Tensor | None = None) -> tuple[Tensor, Any]:
        """x [N, T, dim] after `state` -> [N, T, dim] and the state after it; `turned` [N, T]: the order backwards."""
        own = self.norm(x)
        h, state = self.cells[0](own, state)
        if turned is not None:
            back, _ = self.cells[1](take(own, turned))
            h = torch.cat([h, take(back, turned)], -1)
        x = x + self.dropout(self.down(h))
        return x if self.feed is None else x + self.feed(x), state


class GatedFeed(nn.Module):
    """W_2 (gelu(u) w), (u, w) = W_1 norm(x): x [..., dim] -> [..., dim]."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        inner = math.ceil(dim * 4 / 3)
        self.norm, self.up, self.down = nn.LayerNorm(dim), nn.Linear(dim, 2 * inner), nn.Linear(inner, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """The gated layer of the normalised x."""
        u, w = self.up(self.norm(x)).chunk(2, -1)
        return self.dropout(self.down(F.gelu(u) * w))


class XLSTM(nn.Module):
    """Blocks of `kinds` over the valid steps of x [N, T, dim]: 0 elsewhere, and no state ever saw what stands there.

    `both`: in both directions, the backward one from the last valid step; else forward only, as `step` is. Raises
    BadConfig for a `dim` that does not divide by `heads`.
    """

    def __init__(
        self,
        dim: int,
        *,
        kinds: Sequence[Kind] = ("mlstm",),
        heads: int = 4,
        expand: int = 2,
        kernel: int = 4,
        both: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if min(heads, expand, kernel) < 1 or dim % heads or dim < 2 * heads or not kinds:
            message = f"no xLSTM has dim={dim}, heads={heads}, expand={expand}, kernel={kernel}, kinds={list(kinds)}"
            raise BadConfig(message, "give at least 1 of each, and dim as 2, 3, ... times heads")
        if strange := sorted(set(kinds) - {"mlstm", "slstm"}):
            raise BadConfig(f"no xLSTM block is called {', '.join(strange)}", "choose mlstm or slstm")
        self.both = both
        more: dict[str, Any] = {"expand": expand, "kernel": kernel, "both": both, "dropout": dropout}
        self.blocks = nn.ModuleList(Block(dim, kind, heads, deep=len(kinds), **more) for kind in kinds)
        self.last = nn.LayerNorm(dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [N, T, dim], mask [N, T] -> [N, T, dim]."""
        order = valid_first(mask)
        x = take(x, order)
        turned = _turned(mask.sum(1), x.shape[1]) if self.both else None
        for block in self.blocks:
            x, _ = block(x, turned=turned)
        return take(self.last(x), order.argsort(dim=1)) * mask.unsqueeze(-1)

    def begin(self) -> list[Any]:
        """The blocks' states before the first step; BadConfig where both directions are read."""
        if self.both:
            raise BadConfig("an xLSTM in both directions reads what comes later", "make it with both=false")
        return [None] * len(self.blocks)

    def step(self, x: Tensor, states: Sequence[Any]) -> tuple[Tensor, list[Any]]:
        """The next step x [N, dim] -> [N, dim], and the states after it; the cost per step does not grow."""
        h, after = x.unsqueeze(1), []
        for block, state in zip(self.blocks, states, strict=True):
            h, state = block(h, state)
            after.append(state)
        return self.last(h).squeeze(1), after


def _turned(length: Tensor, steps: int) -> Tensor:
    """[N, steps]: the first `length` steps of every row from the last to the first, then the others."""
    step = torch.arange(steps, device=length.device)
    back = length.unsqueeze(1) - 1 - step
    return torch.where(back >= 0, back, step)
