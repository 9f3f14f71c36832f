"""Message passing over `Edges`: sums along edges, without tensors [E, d_in, d_out] or [N, N].

Conventions: x [N, d] are nodes; `relation` [E] is each edge's type; `weight` [E] scales each message, after the layer's
own normalisation, and is differentiable (attention, similarity, DropNode). No layer ends in an activation. Degrees
count the messages that a node receives, so that with edges from the past only, nothing depends on the future. A node
without neighbours gets 0 from them.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from affuse.core.errors import BadConfig
from affuse.layers.edges import Edges, Hyperedges


class _Sum(torch.autograd.Function):
    """sum_e weight_e x[source_e] at target_e as one sparse product, without a tensor that has a row per edge."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, source: Tensor, target: Tensor, n: int) -> Tensor:
        ctx.save_for_backward(x, weight, source, target)
        size = (n, len(x))
        matrix = torch.sparse_coo_tensor(torch.stack([target, source]), weight, size, check_invariants=False)
        with torch.autocast("cpu", enabled=False):  # it would add up in half precision
            return torch.sparse.mm(matrix, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, source, target = ctx.saved_tensors
        for_x, for_weight, *_ = ctx.needs_input_grad
        along = _Sum.apply(gradient.contiguous(), weight, target, source, len(x)) if for_x else None
        each = (gradient.index_select(0, target) * x.index_select(0, source)).sum(-1) if for_weight else None
        return along, each, None, None, None


def aggregate(x: Tensor, edges: Edges, n: int | None = None, weight: Tensor | None = None) -> Tensor:
    """[n, ...]: the sum of weight * x[source] at each target (n: as many as x unless given).

    x [S, d] with weight [E], or x [S, H, d] with a weight per head [E, H]. Sums are float32 at least.
    """
    n = len(x) if n is None else n
    weight = x.new_ones(len(edges)) if weight is None else weight
    dtype = torch.promote_types(torch.promote_types(x.dtype, weight.dtype), torch.float32)
    if weight.dim() == 2:
        heads = weight.shape[1]
        head = torch.arange(heads, device=x.device)
        each = Edges(*((end.unsqueeze(1) * heads + head).flatten() for end in (edges.source, edges.target)))
        return aggregate(x.flatten(0, 1), each, n * heads, weight.flatten()).unflatten(0, (n, heads))
    x, weight = x.to(dtype), weight.to(dtype)
    if x.device.type == "cpu":
        return _Sum.apply(x, weight, edges.source, edges.target, n)
    return _scattered(x, weight, edges, n)


def _scattered(x: Tensor, weight: Tensor, edges: Edges, n: int) -> Tensor:
    """The same sum by gather and scatter-add, for devices other than the CPU."""
    messages = x.index_select(0, edges.source) * weight.unsqueeze(1)
    return x.new_zeros(n, x.shape[1]).index_add(0, edges.target, messages)


def mean(x: Tensor, edges: Edges, n: int | None = None, weight: Tensor | None = None) -> Tensor:
    """`aggregate` divided by the sum of the weights; 0 where that is 0.

    With GFPush's weights times DropNode's this is GRAND+'s random propagation.
    """
    weight = x.new_ones(len(edges)) if weight is None else weight
    total = aggregate(x.new_ones(len(x), 1), edges, n, weight)
    return aggregate(x, edges, n, weight) / torch.where(total == 0, 1.0, total)


def segment_softmax(scores: Tensor, target: Tensor, n: int) -> Tensor:
    """Softmax of scores [E] or [E, H] over the edges into each of n targets; a score of -inf always gets 0."""
    shape, scores = (n, *scores.shape[1:]), scores.to(torch.promote_types(scores.dtype, torch.float32))
    index = target.view(-1, *[1] * (scores.dim() - 1)).expand_as(scores)
    with torch.no_grad():
        top = scores.new_full(shape, -math.inf).scatter_reduce(0, index, scores, "amax")
        top = top.masked_fill(top == -math.inf, 0.0)
    power = (scores - top[target]).exp()
    total = power.new_zeros(shape).index_add(0, target, power)
    return power / torch.where(total == 0, 1.0, total)[target]


def symmetric(edges: Edges, n: int, weight: Tensor | None = None) -> Tensor:
    """[E]: w_ij / sqrt(d_i d_j) with d the sum of |w| that a node receives; D^-1/2 A D^-1/2 on symmetric edges.

    A node that receives nothing (the first utterance of a causal graph without loops) counts as d = 1, so that others
    still receive its messages.
    """
    w = torch.ones(len(edges), device=edges.source.device) if weight is None else weight
    degree = w.new_zeros(n).index_add(0, edges.target, w.abs())
    scale = torch.where(degree == 0, 1.0, degree).rsqrt()
    return w * scale[edges.source] * scale[edges.target]


def _glorot(*shape: int) -> nn.Parameter:
    bound = math.sqrt(6 / (shape[-2] + shape[-1]))
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


class RelationalConv(nn.Module):
    """R-GCN (Schlichtkrull et al. 2018): W_0 x_i + b + sum_r 1/|N_r(i)| sum_{j in N_r(i)} W_r x_j.

    With `bases` B, W_r = sum_b a_rb V_b. normalise="sum" leaves out 1/|N_r(i)| (then, with one relation: GraphConv).
    """

    def __init__(
        self, dim: int, out: int, relations: int, *, bases: int | None = None,
        normalise: Literal["mean", "sum"] = "mean", root: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.normalise = normalise
        self.bases = _glorot(bases or relations, dim, out)
        self.mixture = _glorot(relations, bases) if bases else None
        self.root = nn.Linear(dim, out) if root else None
        self.relations, self.out = relations, out

    def forward(self, x: Tensor, edges: Edges, relation: Tensor, weight: Tensor | None = None) -> Tensor:
        """x [N, dim], relation [E] 0..relations-1 -> [N, out]."""
        n, key = len(x), relation * len(x) + edges.target
        count = torch.bincount(key, minlength=self.relations * n)
        pair = count.nonzero().squeeze(1)  # the (relation, target) that occur, by relation: never N x relations rows
        slot = (count > 0).cumsum(0) - 1
        h = aggregate(x, Edges(edges.source, slot[key]), len(pair), weight)
        if self.normalise == "mean":
            h = h / count[pair].unsqueeze(1)
        sizes = torch.bincount(pair // max(n, 1), minlength=self.relations).tolist()
        parts = [rows @ w for rows, w in zip(h.split(sizes), self.weights()) if len(rows)]
        messages = torch.cat(parts) if parts else h.new_zeros(0, self.out)
        base = x.new_zeros(n, self.out) if self.root is None else self.root(x)
        return base.index_add(0, pair % max(n, 1), messages.to(base.dtype))

    def weights(self) -> Tensor:
        """W [relations, dim, out]."""
        return self.bases if self.mixture is None else torch.einsum("rb,bio->rio", self.mixture, self.bases)


def _known(table: nn.Embedding | None, relation: Tensor | None) -> bool:
    """Whether edges have types; raises BadConfig for types without a table, and for a table without types."""
    if (table is None) != (relation is None):
        found = "edges carry types" if table is None else "edges carry no types"
        remedy = "give relations=COUNT and relation [E], or neither"
        raise BadConfig(f"{found}, and the layer was built otherwise", remedy)
    return table is not None


class GraphAttention(nn.Module):
    """GATv2 (Brody et al. 2022): sum_j alpha W_s x_j + b, alpha = softmax_j a^T leaky_relu(W_s x_j + W_t x_i + e_r).

    `relations` > 0 adds an embedding e_r of the edge's type. Heads are concatenated [N, heads * out] or averaged.
    """

    def __init__(
        self, dim: int, out: int, *, heads: int = 1, concat: bool = True, relations: int = 0, dropout: float = 0.0,
        slope: float = 0.2,
    ) -> None:  # fmt: skip
        super().__init__()
        self.heads, self.out, self.concat, self.dropout, self.slope = heads, out, concat, dropout, slope
        self.of_source, self.of_target = nn.Linear(dim, heads * out), nn.Linear(dim, heads * out)
        self.attention = _glorot(heads, out)
        self.relation = nn.Embedding(relations, heads * out) if relations else None
        self.bias = nn.Parameter(torch.zeros(heads * out if concat else out))

    def forward(self, x: Tensor, edges: Edges, relation: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
        """x [N, dim] -> [N, heads * out] (concat) or [N, out]."""
        value = self.of_source(x)
        z = value.index_select(0, edges.source) + self.of_target(x).index_select(0, edges.target)
        if _known(self.relation, relation):
            z = z + self.relation(relation)  # type: ignore[misc]
        scores = (F.leaky_relu(z, self.slope).unflatten(1, (self.heads, self.out)) * self.attention).sum(-1)
        alpha = _attention(scores, edges, len(x), weight, self.dropout if self.training else 0.0)
        heads = aggregate(value.unflatten(1, (self.heads, self.out)), edges, weight=alpha)
        return (heads.flatten(1) if self.concat else heads.mean(1)) + self.bias


def _attention(scores: Tensor, edges: Edges, n: int, weight: Tensor | None, dropout: float) -> Tensor:
    """[E, H]: attention over the edges of each target, after dropout, scaled by the edges' own weights [E]."""
    alpha = F.dropout(segment_softmax(scores, edges.target, n), dropout)
    return alpha if weight is None else alpha * weight.unsqueeze(1)


class GraphTransformer(nn.Module):
    """Dot-product attention over edges (Shi et al. 2021): m = sum_j softmax_j(q_i (k_j + e_r) / sqrt(out)) (v_j + e_r).

    The node's own term s = W x_i is added, or with `beta` gated: b s + (1 - b) m, b = sigmoid(w [m; s; m - s]).
    """

    def __init__(
        self, dim: int, out: int, *, heads: int = 1, concat: bool = True, relations: int = 0, dropout: float = 0.0,
        beta: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.heads, self.out, self.concat, self.dropout = heads, out, concat, dropout
        self.query, self.key, self.value = (nn.Linear(dim, heads * out) for _ in range(3))
        self.relation = nn.Embedding(relations, heads * out) if relations else None
        width = heads * out if concat else out
        self.skip = nn.Linear(dim, width)
        self.gate = nn.Linear(3 * width, 1, bias=False) if beta else None

    def forward(self, x: Tensor, edges: Edges, relation: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
        """x [N, dim] -> [N, heads * out] (concat) or [N, out]."""
        shape = (self.heads, self.out)
        query, key, value = (part(x).unflatten(1, shape) for part in (self.query, self.key, self.value))
        scores = (query.index_select(0, edges.target) * key.index_select(0, edges.source)).sum(-1)
        typed = _known(self.relation, relation)
        if typed:
            table = self.relation.weight.unflatten(1, shape)  # type: ignore[union-attr]
            scores = scores + torch.einsum("nhd,rhd->nrh", query, table)[edges.target, relation]
        alpha = _attention(scores / math.sqrt(self.out), edges, len(x), weight, self.dropout if self.training else 0.0)
        message = aggregate(value, edges, weight=alpha)
        if typed:
            message = message + aggregate(table, Edges(relation, edges.target), len(x), alpha)  # type: ignore[arg-type]
        message = message.flatten(1) if self.concat else message.mean(1)
        own = self.skip(x)
        if self.gate is None:
            return own + message
        share = self.gate(torch.cat([message, own, message - own], 1)).sigmoid()
        return share * own + (1 - share) * message


class GCNII(nn.Module):
    """Layer l = 1, 2... of GCNII (Chen et al. 2020): ((1-a) A h + a h_0) ((1-b) I + b W), b = log(lam / l + 1).

    With `variant` (MMGCN's) W is applied to [A h; h_0], twice as wide. The caller computes A h (such as by `aggregate`
    with `symmetric` weights) and applies the usual relu, residual or depth gate.
    """

    def __init__(self, dim: int, layer: int, *, alpha: float = 0.1, lam: float = 0.5, variant: bool = False) -> None:
        super().__init__()
        self.alpha, self.beta, self.variant = alpha, math.log(lam / layer + 1), variant
        self.weight = nn.Parameter(torch.empty(dim * (1 + variant), dim).uniform_(-(dim**-0.5), dim**-0.5))

    def forward(self, propagated: Tensor, initial: Tensor) -> Tensor:
        """propagated = A h and initial = h_0 [..., dim] -> [..., dim]."""
        mixed = (1 - self.alpha) * propagated + self.alpha * initial
        inputs = torch.cat([propagated, initial], -1) if self.variant else mixed
        return (1 - self.beta) * mixed + self.beta * (inputs @ self.weight)


class HypergraphConv(nn.Module):
    """D^-1 H W B^-1 H^T X Theta (Bai et al. 2021): the mean of each group's nodes, then of each node's groups.

    linear=False leaves Theta out, as M3Net does. The weights W of the groups are an argument of the call; M3Net learns
    them per position in the batch.
    """

    def __init__(self, dim: int, out: int, *, linear: bool = True, bias: bool = True) -> None:
        super().__init__()
        if not linear and dim != out:
            raise BadConfig(f"dim={dim} cannot become out={out} without a linear map", "set linear=true or out=dim")
        self.linear = nn.Linear(dim, out, bias=False) if linear else nn.Identity()
        self.bias = nn.Parameter(torch.zeros(out)) if bias else None

    def forward(
        self, x: Tensor, groups: Hyperedges, weight: Tensor | None = None, member: Tensor | None = None
    ) -> Tensor:
        """x [N, dim] -> [N, out]; weight [groups.count] of each group, member [len(groups.into)] of each membership."""
        grouped = mean(self.linear(x), groups.into, groups.count, member)
        found = mean(grouped, groups.out, len(x), None if weight is None else weight[groups.out.source])
        return found if self.bias is None else found + self.bias


class HighPass(nn.Module):
    """x_i + sum_j tanh(w^T [x_i; x_j] + b) x_j / sqrt(d_i d_j) (M3Net's; Bo et al. 2021).

    The sign of each message is learned, so that a layer can sharpen differences between neighbours as well as average.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.of_target, self.of_source = nn.Linear(dim, 1), nn.Linear(dim, 1, bias=False)

    def forward(self, x: Tensor, edges: Edges, weight: Tensor | None = None) -> Tensor:
        """x [N, dim] -> [N, dim]."""
        gate = torch.tanh(self.of_target(x)[edges.target] + self.of_source(x)[edges.source]).squeeze(1)
        gate = gate * symmetric(edges, len(x)).to(gate.dtype)
        return x + aggregate(x, edges, weight=gate if weight is None else gate * weight)
