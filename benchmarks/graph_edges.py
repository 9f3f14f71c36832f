"""Edges of a conversation graph: DialogueGCN's way (sets of pairs, one look-up per edge) against `affuse.layers.edges`.

python benchmarks/graph_edges.py     (needs torch; about half a minute; one JSON line of milliseconds, one thread; exit
status 1 where 32 dialogues of 100 utterances, window 10, are not built 500 times as fast, or edges or types differ)

The published algorithm (Ghosal et al. 2019, as released) is written anew here, kindly: it grows its set of pairs once,
not twice per batch, and stores no attention weight per edge. `pairs_only` is a still kinder bound: the sets of pairs
without tensors, speakers or types.
"""

from __future__ import annotations

import json
import os
import sys
import time

os.environ["OMP_NUM_THREADS"] = "1"

import torch

from affuse.layers.conversation import Conversations, conversations
from affuse.layers.edges import Edges, relations, window

SIZES = [(32, 100), (1, 500), (200, 10)]
LIMIT = 500


def dialogues(count: int, length: int, speakers: int = 2) -> Conversations:
    """`count` dialogues of `length` utterances in which the speakers take turns."""
    turn = [i for _ in range(count) for i in range(length)]
    return conversations(
        [f"d{b}" for b in range(count) for _ in range(length)], turn, [f"s{i % speakers}" for i in turn]
    )


def published_pairs(length: int, past: int, future: int) -> list[tuple[int, int]]:
    """Pairs (i, j) of one dialogue, -1 for no bound: a new union of all pairs so far for every utterance."""
    pairs: set[tuple[int, int]] = set()
    for i in range(length):
        first = 0 if past == -1 else max(0, i - past)
        last = length if future == -1 else min(length, i + future + 1)
        pairs = pairs.union({(i, j) for j in range(first, last)})
    return list(pairs)


def published(lengths: list[int], one_hot: torch.Tensor, past: int, future: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(pairs (i, j) [2, E] as node numbers, types [E]); one_hot [L, B, S] says who speaks."""
    s = one_hot.shape[2]
    types = {f"{a}{b}{late}": 2 * (s * a + b) + late for a in range(s) for b in range(s) for late in (0, 1)}
    start, edges, found = 0, [], []
    for b, length in enumerate(lengths):
        for i, j in published_pairs(length, past, future):
            edges.append(torch.tensor([start + i, start + j]))
            here, there = (int((one_hot[k, b] == 1).nonzero()[0][0]) for k in (i, j))
            found.append(types[f"{here}{there}{int(i >= j)}"])
        start += length
    return torch.stack(edges).T, torch.tensor(found)


def in_order(pairs: torch.Tensor, types: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs and types by i, then j: sets have no order of their own."""
    rank = torch.argsort(pairs[0] * n + pairs[1])
    return pairs[:, rank], types[rank]


def speaks(c: Conversations, speakers: int) -> torch.Tensor:
    """[L, B, S] one-hot of dialogues in which speakers take turns from the first."""
    grid = torch.zeros(int(c.length.max()), len(c.length), speakers)
    grid[c.position, c.conversation, c.position % speakers] = 1
    return grid


def agree(c: Conversations, pairs: torch.Tensor, types: torch.Tensor, edges: Edges, found: torch.Tensor) -> bool:
    """Whether the published pairs and types are ours, one by one."""
    theirs, theirs_type = in_order(pairs, types, len(c))
    return torch.equal(theirs, torch.stack([edges.target, edges.source])) and torch.equal(theirs_type, found)


def milliseconds(work, repeats: int) -> float:
    """Shortest of `repeats` runs."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return 1000 * min(times)


def measured(count: int, length: int, reach: int = 10) -> dict[str, float | int | bool]:
    """Times of one size: published, its sets of pairs alone, and ours (edges and types)."""
    c = dialogues(count, length)
    one_hot, lengths = speaks(c, 2), c.length.tolist()
    pairs, types = published(lengths, one_hot, reach, reach)
    edges = window(c, reach, reach)
    slow = milliseconds(lambda: published(lengths, one_hot, reach, reach), 2)
    sets = milliseconds(lambda: [published_pairs(n, reach, reach) for n in lengths], 2)
    alone = milliseconds(lambda: window(c, reach, reach), 50)
    fast = milliseconds(lambda: relations(c, window(c, reach, reach), "absolute", speakers=2), 50)
    return {
        "edges": len(edges),
        "identical": agree(c, pairs, types, edges, relations(c, edges, "absolute", speakers=2)[0]),
        "published_ms": round(slow, 1),
        "ours_ms": round(fast, 3),
        "ratio": round(slow / fast),
        "pairs_only_ms": round(sets, 2),
        "ours_edges_only_ms": round(alone, 3),
        "pairs_only_ratio": round(sets / alone),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    result = {f"{count}x{length}": measured(count, length) for count, length in SIZES}
    print(json.dumps(result))
    sys.exit(not (result["32x100"]["ratio"] >= LIMIT and all(row["identical"] for row in result.values())))
