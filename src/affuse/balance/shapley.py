"""Shapley values: the contribution of each player, averaged over all orders in which players can join."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import factorial

import torch
from torch import Tensor

from affuse.core.errors import BadConfig

Subset = frozenset[str]


def subsets(players: Sequence[str]) -> list[Subset]:
    """All 2^M subsets, the empty one first."""
    return [frozenset(chosen) for size in range(len(players) + 1) for chosen in combinations(players, size)]


def shapley(values: Mapping[Subset, Tensor]) -> dict[str, Tensor]:
    """Player -> phi, of the shape of the values [...]; the phi add up to values(all) - values(none).

    phi_m = sum over subsets S without m of |S|! (M - |S| - 1)! / M! (values(S + m) - values(S)) (Shapley, 1953).
    Players come in the order of their singletons. Raises BadConfig where a subset is missing.
    """
    players = [player for subset in values for player in subset if len(subset) == 1]
    missing = [sorted(s) for s in subsets(players) if s not in values]
    if missing or len(values) != 2 ** len(players):
        message = f"Shapley values of {players} from {len(values)} subsets, without {missing}"
        raise BadConfig(message, "give the values of all subsets")
    share = torch.tensor([[_share(p in s, len(s), len(players)) for s in values] for p in players], dtype=torch.float64)
    phi = torch.tensordot(share.to(next(iter(values.values()))), torch.stack(list(values.values())), 1)
    return dict(zip(players, phi, strict=True))


def _share(inside: bool, size: int, players: int) -> float:
    """The weight of the value of a subset, for a player inside or outside of it."""
    without = size - inside
    return (1 if inside else -1) * factorial(without) * factorial(players - without - 1) / factorial(players)
