from __future__ import annotations

from itertools import permutations

import pytest
import torch

from affuse.balance.shapley import shapley, subsets
from affuse.core.errors import BadConfig


def random_game(players: str, *shape: int) -> dict[frozenset[str], torch.Tensor]:
    torch.manual_seed(len(players))
    return {s: torch.randn(shape, dtype=torch.float64) for s in subsets(list(players))}


@pytest.mark.parametrize("players", ["ab", "abc", "abcd"])
def test_equals_the_mean_over_all_orders_of_joining(players):
    game = random_game(players, 5, 3)
    phi = shapley(game)
    orders = list(permutations(players))
    for p in players:
        gains = [game[frozenset(o[: o.index(p) + 1])] - game[frozenset(o[: o.index(p)])] for o in orders]
        torch.testing.assert_close(phi[p], torch.stack(gains).mean(0))


@pytest.mark.parametrize("players", ["a", "ab", "abc", "abcde"])
def test_the_values_add_up_to_what_all_have_over_none(players):
    game = random_game(players, 7)
    torch.testing.assert_close(sum(shapley(game).values()), game[frozenset(players)] - game[frozenset()])


def test_a_player_who_changes_nothing_has_nothing_and_the_same_have_the_same():
    game = {s: torch.tensor(float(len(s - {"null"}))) for s in subsets(["x", "null", "y"])}
    assert {p: float(v) for p, v in shapley(game).items()} == pytest.approx({"x": 1.0, "null": 0.0, "y": 1.0}, abs=1e-6)


def test_players_keep_the_order_in_which_they_were_given():
    assert list(shapley(random_game("cab"))) == ["c", "a", "b"]


def test_a_missing_subset_is_named():
    game = random_game("abc")
    del game[frozenset("ab")]
    with pytest.raises(BadConfig, match=r"\['a', 'b'\]"):
        shapley(game)
