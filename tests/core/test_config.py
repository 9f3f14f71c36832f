from __future__ import annotations

import pytest

from affuse.core import config, registry
from affuse.core.config import load_recipe, make_recipe
from affuse.core.errors import AffuseError, BadConfig, MissingFile, UnknownName
from affuse.core.parts import Part

BASE = {"streams": {"text": {"encoder": "mlp"}}}


@pytest.mark.parametrize("name", list(config.recipe_names()))
def test_every_recipe_resolves_and_survives_its_own_yaml(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.summary
    assert recipe.source
    path = tmp_path / "again.yaml"
    path.write_text(config.to_yaml(recipe))
    assert load_recipe(str(path)) == recipe


@pytest.mark.parametrize("name", list(config.recipe_names()))
def test_every_recipe_begins_with_a_comment_and_its_command(name):
    head = [line for line in config.recipe_names()[name].read_text().splitlines() if line.startswith("#")]
    assert any("affuse " in line for line in head)


@pytest.mark.parametrize("word", ["on", "off", "auto"])
def test_on_and_off_are_words_where_words_are_asked_for(word):
    assert make_recipe(BASE, [f"train.amp={word}"]).train.amp == word


def test_a_recipe_can_extend_another(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "streams: {a: {encoder: {name: mlp, hidden: 8}}}\nfusion: {name: concat, dim: 9}\noptim: {lr: 0.5}\n"
    )
    over = tmp_path / "over.yaml"
    over.write_text(
        f"extends: {tmp_path / 'base.yaml'}\nstreams: {{a: {{encoder: {{dropout: 0.1}}}}}}\nfusion: "
        f"{{name: late}}\noptim: {{clip: 0.0}}\n"
    )
    recipe = load_recipe(str(over), ["optim.weight_decay=0"])
    encoder = recipe.streams["a"].encoder.options
    assert (encoder["hidden"], encoder["dropout"]) == (8, 0.1)
    assert recipe.fusion == Part("late", {"how": "sum", "shared": False})
    assert (recipe.optim.lr, recipe.optim.clip, recipe.optim.weight_decay) == (0.5, 0.0, 0.0)
    (tmp_path / "base.yaml").write_text("streams: {a: {encoder: mlp}}\nfusion: concat\n")
    over.write_text(f"extends: {tmp_path / 'base.yaml'}\nfusion: {{dim: 9}}\n")
    assert load_recipe(str(over)).fusion.options["dim"] == 9
    over.write_text(f"extends: {over}\n")
    with pytest.raises(BadConfig, match="extends itself"):
        load_recipe(str(over))


def test_there_is_a_recipe_on_crema_d_for_every_balancer():
    named = {f"cremad-{name.replace('_', '-')}" for name in registry.cards("balancers")}
    assert named <= set(config.recipe_names())
    for name in registry.cards("balancers"):
        assert load_recipe(f"cremad-{name.replace('_', '-')}").balance.name == name


def test_overrides_reach_every_level():
    recipe = make_recipe(
        BASE, ["optim.lr=1e-4", "fusion=gated", "fusion.dim=7", "streams.text.encoder.hidden=9", "train.epochs=3"]
    )
    assert recipe.optim.lr == 1e-4
    assert recipe.fusion == Part("gated", {"dim": 7})
    assert recipe.streams["text"].encoder.options["hidden"] == 9
    assert recipe.train.epochs == 3


def test_defaults_of_parts_are_written_out():
    recipe = make_recipe(BASE)
    assert recipe.streams["text"].encoder.options["dropout"] == 0.3
    assert recipe.objectives["cross_entropy"].part.options["smoothing"] == 0.0


@pytest.mark.parametrize(
    ("override", "closest"),
    [
        ("optim.lrr=1", "optim.lr"),
        ("trian.epochs=1", "train"),
        ("fusion=gate", "gated"),
        ("streams.text.encoder.hiden=3", "streams.text.encoder.hidden"),
        ("streams.text.encoder=mlpp", "mlp"),
        ("objectives.focall.weight=1", "focal"),
        ("objectives.cross_entropy.task=nobody", "emotion"),
        ("objectives.cross_entropy.class_weights=balance", "balanced"),
    ],
)
def test_unknown_names_list_the_closest(override, closest):
    with pytest.raises(UnknownName) as caught:
        make_recipe(BASE, [override])
    assert closest in caught.value.remedy


@pytest.mark.parametrize(
    "override", ["optim.lr=fast", "train.epochs=2.5", "train.epochs=true", "optim", "streams.text.encoder.hidden=[1]"]
)
def test_wrong_values_raise(override):
    with pytest.raises(BadConfig):
        make_recipe(BASE, [override])


@pytest.mark.parametrize(
    "override",
    [
        "fusion.name=5",
        "fusion={name: [a]}",
        "streams.text.encoder.name=",
        "streams.text.extractor.name=5",
        "context={name: null}",
        "tasks={}",
    ],
)
def test_a_part_whose_name_is_no_word_raises(override):
    with pytest.raises(BadConfig):
        make_recipe(BASE, [override])


@pytest.mark.parametrize("base", [{}, {"context": "none"}, {"context": []}])
@pytest.mark.parametrize("override", ["context.0.dim=5", "context.dim=5", "context.0=transformer"])
def test_options_of_a_context_that_is_not_there_are_not_passed_over(base, override):
    with pytest.raises(BadConfig):
        make_recipe(BASE | base, [override])
    assert make_recipe(BASE | base, ["context=none"]).context == []


@pytest.mark.parametrize(
    "override",
    [
        "optim.lr=-1", "optim.lr=.nan", "optim.lr=1e400", "optim.momentum=-1",
        "train.seed=-1", "split.seed=-1", "split.valid=-0.1",
        "train.ema=2", "augment.modality_dropout=30", "augment.words=-0.1", "streams.text.lr=-1",
    ],
)  # fmt: skip
def test_impossible_numbers_are_refused_before_anything_runs(override):
    with pytest.raises(BadConfig) as caught:
        make_recipe(BASE, [override])
    assert caught.value.message.startswith(override.partition("=")[0])


def test_a_metric_that_is_none_cannot_select():
    with pytest.raises(UnknownName) as caught:
        make_recipe(BASE, ["train.selection=uarr", "train.keep=last"])
    assert "uar" in caught.value.remedy


def test_broken_recipe_files(tmp_path):
    with pytest.raises(MissingFile):
        load_recipe(str(tmp_path / "none.yaml"))
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(BadConfig, match="not valid YAML"):
        load_recipe(str(tmp_path / "bad.yaml"))
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(BadConfig, match="mapping"):
        load_recipe(str(tmp_path / "list.yaml"))
    with pytest.raises(UnknownName):
        load_recipe("ravdes-audio")


@pytest.mark.parametrize("kind", list(registry.KINDS))
def test_every_card_has_what_listing_needs(kind):
    for name, card in registry.cards(kind).items():
        assert card["summary"], name
        assert card["source"], name
        assert card["licence"], name
        assert callable(registry.load(kind, name))
        for key, (annotation, _) in registry.schema(registry.load(kind, name)).items():
            assert annotation is not None, f"{name}.{key} has no annotation"


def test_errors_survive_a_process_boundary():
    import pickle

    error = pickle.loads(pickle.dumps(BadConfig("what", "do this")))
    assert (error.message, error.remedy, str(error)) == ("what", "do this", "what\n  -> do this")
    assert issubclass(BadConfig, AffuseError)
