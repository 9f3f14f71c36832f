"""GFPush of GRAND+ (Feng et al. 2022): propagation over several steps at once, as one sparse matrix of weights.

Row s of sum_n w_n P^n, P = D^-1 A, by pushing a unit of mass from s for `order` steps along the edges from target to
source: of the mass r at v, w_n r stays, and r / d_v goes on to each of the d_v neighbours of v. Mass below r_max d_v
is dropped; mass at a node without neighbours returns to s. The `top_k` largest entries of a row are kept, unscaled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from affuse.core.errors import BadConfig
from affuse.layers.edges import Edges

Weights = Literal["ppr", "avg", "single"]
LONG, THIN = 256, 16  # the sparse push is faster on more than 256 nodes with fewer than a 16th of all edges
CELLS = 2**20  # of one dense batch: it should stay in the processor's cache


def mixture(weights: Weights, order: int, alpha: float) -> list[float]:
    """w_0..w_order, of sum 1: "ppr" alpha (1 - alpha)^n, "avg" all the same, "single" the last alone."""
    if order < 0 or not 0 < alpha < 1:
        raise BadConfig(f"order={order}, alpha={alpha} weigh no steps", "give order >= 0 and 0 < alpha < 1")
    if weights == "single":
        return [0.0] * order + [1.0]
    raw = [(1 - alpha) ** n if weights == "ppr" else 1.0 for n in range(order + 1)]
    return [w / sum(raw) for w in raw]


@torch.no_grad()
def propagation(
    edges: Edges,
    n: int,
    weights: Weights = "ppr",
    *,
    order: int = 10,
    alpha: float = 0.2,
    top_k: int = 32,
    r_max: float = 0.0,
    conversation: Tensor | None = None,
    method: Literal["auto", "dense", "sparse"] = "auto",
) -> tuple[Edges, Tensor]:
    """Edges (from source v to target s) and their weights [E] float32, ordered by target, then source.

    `conversation` [n] names each node's conversation (any numbers, any order; None: one graph); edges must stay inside
    one. Rows sum to 1 less what was dropped; of equal entries those of the lowest node numbers are kept. Conversations
    of similar length share dense batches of powers; long ones with few edges take the sparse push, with the same
    result.
    """
    w = mixture(weights, order, alpha)
    block = torch.zeros(n, dtype=torch.int64, device=edges.source.device) if conversation is None else conversation
    block = torch.unique(block, return_inverse=True)[1]
    if bool((block[edges.source] != block[edges.target]).any()):
        raise BadConfig("an edge joins two conversations", "build edges and conversation numbers from the same batch")
    size = torch.bincount(block)
    count = torch.bincount(block[edges.target], minlength=len(size))
    if method == "auto":
        thin = (size > LONG) & (count * THIN < size**2)
    else:
        thin = torch.full_like(size, method == "sparse") > 0
    found = list(_dense(edges, block, size, ~thin, w, top_k, r_max))
    if bool(thin.any()):
        found += _sparse(edges, n, thin[block], w, top_k, r_max)
    target, source, value = (torch.cat(parts) for parts in zip(*found)) if found else _nothing(edges)
    rank = torch.argsort(target * n + source)
    return Edges(source[rank], target[rank]), value[rank]


def _nothing(edges: Edges) -> tuple[Tensor, Tensor, Tensor]:
    none = edges.source.new_zeros(0)
    return none, none, none.float()


def _batches(size: Tensor, wanted: Tensor) -> Iterator[tuple[Tensor, int]]:
    """(blocks, length of the longest) of the `wanted` blocks, at most a quarter apart: little of a batch is padding."""
    step = size.double().log().div(math.log(1.25)).ceil().long().masked_fill(~wanted, -1)
    for bucket in step.unique().tolist():
        if bucket >= 0:
            blocks = (step == bucket).nonzero().squeeze(1)
            longest = int(size[blocks].max())
            for part in blocks.split(max(1, CELLS // longest**2)):
                yield part, longest


def _dense(
    edges: Edges, block: Tensor, size: Tensor, wanted: Tensor, w: list[float], top_k: int, r_max: float
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(target, source, value) of the `wanted` [B] blocks."""
    by_block = torch.argsort(block, stable=True)
    start = size.cumsum(0) - size
    place = torch.empty_like(block).index_copy_(0, by_block, torch.arange(len(block), device=block.device))
    place = place - start[block]
    for blocks, longest in _batches(size, wanted):
        among = torch.full_like(size, -1).index_copy_(0, blocks, torch.arange(len(blocks), device=size.device))
        b = among[block[edges.target]]
        here = b >= 0
        adjacency = torch.zeros(len(blocks), longest, longest, dtype=torch.float64, device=block.device)
        at = (b[here], place[edges.target[here]], place[edges.source[here]])
        adjacency.index_put_(at, adjacency.new_ones(()), accumulate=True)
        q = _powers(adjacency, w, r_max).float()
        inside = torch.arange(longest, device=size.device) < size[blocks].unsqueeze(1)
        b, row, column = (_largest(q, top_k) & inside.unsqueeze(2)).nonzero(as_tuple=True)
        first = start[blocks][b]
        yield by_block[first + row], by_block[first + column], q[b, row, column]


def _powers(adjacency: Tensor, w: list[float], r_max: float) -> Tensor:
    """sum_n w_n R_n [B, L, L] of the pushes R_0 = I, R_1...; adjacency [B, target, source] counts edges."""
    degree = adjacency.sum(2)
    step = adjacency / degree.clamp_min(1).unsqueeze(2)
    stuck = (degree == 0).to(adjacency.dtype).unsqueeze(2)
    r = torch.eye(adjacency.shape[1], dtype=adjacency.dtype, device=adjacency.device).expand_as(adjacency)
    q = w[0] * r
    for share in w[1:]:
        back = (r @ stuck).squeeze(2)
        r = (r * (r >= r_max * degree.unsqueeze(1)) if r_max > 0 else r) @ step
        r.diagonal(dim1=1, dim2=2).add_(back)
        q = q + share * r
    return q


def _largest(q: Tensor, k: int) -> Tensor:
    """Mask of the k largest positive entries of each row of float32 q [B, L, L], the first of equal ones."""
    if k >= q.shape[2]:
        return q > 0
    # less than the spacing of float32, so it decides between equal entries only
    place = torch.arange(q.shape[2], dtype=torch.float64, device=q.device)
    ordered = q.double() * (1 - 1e-12 * place)
    return torch.zeros_like(q, dtype=torch.bool).scatter_(2, ordered.topk(k, 2).indices, True) & (q > 0)


def _sparse(
    edges: Edges, n: int, wanted: Tensor, w: list[float], top_k: int, r_max: float
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(target, source, value) of the `wanted` [n] rows: the same pushes on scipy's sparse rows, 1024 at a time."""
    from scipy import sparse

    target, source = edges.target.cpu().numpy(), edges.source.cpu().numpy()
    adjacency = sparse.csr_matrix((np.ones(len(target)), (target, source)), shape=(n, n))
    degree = np.asarray(adjacency.sum(1)).ravel()
    step = sparse.diags(1 / np.maximum(degree, 1)) @ adjacency
    chosen = wanted.nonzero().squeeze(1).cpu().numpy()
    for rows in np.array_split(chosen, math.ceil(len(chosen) / 1024)):
        q = _push(step.tocsr(), degree, rows, w, r_max)
        row, column, value = _first(q, top_k)
        parts = (rows[row], column, value)
        yield tuple(torch.from_numpy(part).to(edges.source.device) for part in parts)  # type: ignore[misc]


def _push(step: Any, degree: np.ndarray, rows: np.ndarray, w: list[float], r_max: float) -> Any:
    """sum_n w_n R_n [len(rows), n] as CSR, float64."""
    from scipy import sparse

    index = np.arange(len(rows))
    r = sparse.csr_matrix((np.ones(len(rows)), (index, rows)), shape=(len(rows), len(degree)))
    q = w[0] * r
    for share in w[1:]:
        back = r @ (degree == 0).astype(float)
        r.data[r.data < r_max * degree[r.indices]] = 0
        r.eliminate_zeros()
        r = r @ step
        if back.any():
            r = r + sparse.csr_matrix((back, (index, rows)), shape=r.shape)
        q = q + share * r
    return q.tocsr()


def _first(q: Any, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row, column, float32 value) of the k largest positive entries of each row, the first of equal ones."""
    coo = q.tocoo()
    row, column, value = coo.row.astype(np.int64), coo.col.astype(np.int64), coo.data.astype(np.float32)
    order = np.lexsort((column, -value, row))
    row, column, value = row[order], column[order], value[order]
    start = np.searchsorted(row, row)  # rows rise: where each one's entries begin
    keep = (np.arange(len(row)) - start < k) & (value > 0)
    return row[keep], column[keep], value[keep]
