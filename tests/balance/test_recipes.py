"""The recipes of this family hold what was published where they claim it, and inherit nothing by accident."""

from __future__ import annotations

import pytest

from affuse.core.config import load_recipe, recipe_names

FAMILY = [name for name in recipe_names() if name.startswith("cremad-")]


@pytest.mark.parametrize("name", FAMILY)
def test_the_weight_decay_of_adamw_is_not_inherited_under_sgd(name):
    """0.01 is decoupled under AdamW; under SGD it is a hundred times the published 1e-4."""
    optim = load_recipe(name).optim
    assert optim.weight_decay == (1e-4 if optim.name == "sgd" else 0.01)


@pytest.mark.parametrize("name", ["cremad-mmpareto", "cremad-opm", "cremad-relearning"])
def test_what_was_published_without_warm_up_has_none(name):
    assert load_recipe(name).optim.warmup == 0


def test_relearning_is_as_published():
    recipe = load_recipe("cremad-relearning")
    assert [recipe.balance.options[k] for k in ("every", "times", "gain", "scaled")] == [20, 3, 3.0, True]
    assert (recipe.optim.name, recipe.optim.lr, recipe.optim.schedule) == ("sgd", 2e-3, "constant")
    assert recipe.train.epochs == 90


def test_the_guides_of_bcgm_learn_at_the_main_rate():
    assert load_recipe("mosi-bcgm").balance.options["guide_rate"] == 1.0
