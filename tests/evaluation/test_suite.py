"""A suite of two arms and two seeds: queue, ledger, resumption, failures, and the numbers of its pages."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from tests.conftest import make_vector_corpus

from affuse.cli.app import main
from affuse.core import io, registry
from affuse.core.config import load_recipe
from affuse.core.errors import BadConfig, ProtocolError, UnknownName
from affuse.corpora.manifest import Corpus
from affuse.evaluation.compare import Scored, Sums, compare
from affuse.evaluation.intervals import Difference, Estimate, holm
from affuse.evaluation.protocol import evaluate
from affuse.evaluation.suite import load_suite, plan
from affuse.reporting.bench_pages import _row, interval, page, signed
from affuse.stores.store import FeatureStore, import_arrays
from affuse.training import binding
from affuse.training import train as training

SMALL = ["streams.*.encoder.hidden=8", "split.test=0.4", "train.epochs=2", "train.keep=last", "train.ema=0"]


def write_suite(
    folder: Path, corpus: Path, arms: dict[str, object], changes: dict[str, object] | None = None, seeds: int = 2
) -> Path:
    values = {
        "name": "tiny",
        "seeds": seeds,
        "metrics": ["accuracy", "uar"],
        "baselines": ["none"],
        "arms": arms,
        "settings": {"vectors": {"recipe": "vectors", "corpus": str(corpus), "overrides": SMALL}},
    }
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(values | (changes or {}), sort_keys=False))
    return path


ARMS = {"none": [], "uniform": {"overrides": ["balance=uniform"], "note": "a loss per stream"}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """(suite file, folder of its runs, page) of a suite that was run; no test writes there."""
    base = tmp_path_factory.mktemp("bench")
    corpus = make_vector_corpus(base / "corpus")
    suite = write_suite(base, corpus.path, ARMS)
    assert main(["bench", str(suite), "--out", str(base / "out"), "--quiet"]) == 0
    return suite, base / "out", base / "out" / "tiny-vectors.md"


@pytest.fixture
def again(finished: tuple[Path, Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """(suite file, folder of its runs), a copy to change."""
    suite, out, _ = finished
    shutil.copytree(out, tmp_path / "out")
    return suite, tmp_path / "out"


def ledger(out: Path) -> list[tuple[str, int, str]]:
    return [(row["arm"], row["seed"], row["status"]) for row in io.read_jsonl(out / "ledger.jsonl")]


def test_seeds_are_outermost_and_every_run_is_a_line_of_the_ledger(finished):
    assert ledger(finished[1]) == [
        ("none", 0, "done"),
        ("uniform", 0, "done"),
        ("none", 1, "done"),
        ("uniform", 1, "done"),
    ]


def test_a_run_of_the_queue_is_what_affuse_train_makes(finished, tmp_path):
    suite = load_suite(finished[0])
    corpus = Corpus.open(suite.settings["vectors"].corpus)
    recipe = binding.bind(load_recipe("vectors", [*SMALL, "balance=uniform", "train.seed=1"]), corpus)
    training.train(recipe, "vectors", corpus, tmp_path / "alone")
    evaluate(tmp_path / "alone", corpus, missing="each")
    queued = finished[1] / "vectors" / "uniform" / "seed1"
    assert (queued / "config.yaml").read_text() == (tmp_path / "alone" / "config.yaml").read_text()
    pd.testing.assert_frame_equal(*(io.read_table(run / "predictions.parquet") for run in (queued, tmp_path / "alone")))


def test_the_page_has_the_numbers_of_compare(finished):
    _, out, path = finished
    text = path.read_text()
    found = compare(out / "vectors" / "uniform", out / "vectors" / "none", "accuracy")
    row = next(line for line in text.splitlines() if line.startswith("| uniform | "))
    assert f"| {found['mean'][0]:.3f} [" in row
    assert f"| {signed(Difference(**found['difference']))} |" in row
    evaluation = io.read_json(out / "vectors" / "none" / "seed0" / "evaluation.json")
    assert f"{evaluation['n']} utterances scored" in text
    assert "Holm" in text and "a loss per stream" in text and "`balance=uniform`" in text
    assert re.search(r"\| arm \| audio \| text \| vision \|", text)


def test_a_page_is_written_again_from_its_table_alone_under_any_metric_of_the_same_sums(finished, tmp_path, capsys):
    _, out, path = finished
    table = shutil.copy(path.with_suffix(".parquet"), tmp_path / "tiny-vectors.parquet")
    assert main(["bench", "--table", str(table), "--quiet"]) == 0
    assert (tmp_path / "tiny-vectors.md").read_text() == path.read_text()
    assert main(["bench", "--table", str(table), "--metric", "macro_f1"]) == 0
    again = (tmp_path / "tiny-vectors-macro_f1.md").read_text()
    found = compare(out / "vectors" / "uniform", out / "vectors" / "none", "accuracy")
    for subset in ("", "audio"):
        values = Scored(sorted((out / "vectors" / "uniform").iterdir())).each("macro_f1", subset)
        assert Sums.read(table).each("macro_f1", "uniform", subset) == pytest.approx(values, abs=1e-12)
    assert "less none (macro_f1)" in again and f"| {found['mean'][0]:.3f} [" in again
    capsys.readouterr()
    assert main(["bench", "--table", str(table), "--metric", "ccc"]) == 2
    assert "unknown metric of this table 'ccc'" in capsys.readouterr().err
    assert main(["bench", "--table", str(out / "vectors" / "none" / "seed0" / "predictions.parquet")]) == 1
    assert "not the table of a result page" in capsys.readouterr().err


def test_runs_of_several_arms_are_not_averaged_as_seeds(again):
    _, out = again
    shutil.move(out / "vectors" / "uniform" / "seed0", out / "vectors" / "none" / "seed7")
    with pytest.raises(ProtocolError, match="more than their seed"):
        compare(out / "vectors" / "none", out / "vectors" / "uniform")


def test_what_is_complete_is_not_trained_again(again, monkeypatch):
    suite, out = again
    monkeypatch.setattr("affuse.evaluation.suite.perform", lambda job, device: pytest.fail(f"{job.key} again"))
    assert main(["bench", str(suite), "--out", str(out), "--quiet"]) == 0
    assert len(ledger(out)) == 4


def test_after_an_interruption_the_queue_goes_on_without_training_again(again, monkeypatch):
    suite, out = again
    (out / "ledger.jsonl").unlink()
    cut = out / "vectors" / "none" / "seed1"
    (cut / "predictions.parquet").unlink()  # interrupted while scoring
    monkeypatch.setattr("affuse.training.train._OneModel.train", lambda *given: pytest.fail("trained again"))
    with monkeypatch.context() as patch:
        interrupt = lambda *given, **options: (_ for _ in ()).throw(KeyboardInterrupt)  # noqa: E731
        patch.setattr("affuse.evaluation.suite.evaluate", interrupt)
        assert main(["bench", str(suite), "--out", str(out), "--quiet"]) == 130
    assert ledger(out) == [("none", 0, "done"), ("uniform", 0, "done")]
    assert main(["bench", str(suite), "--out", str(out), "--quiet"]) == 0
    assert {row[2] for row in ledger(out)} == {"done"} and len(ledger(out)) == 4
    assert (cut / "predictions.parquet").is_file()


def test_a_failing_arm_is_listed_and_the_others_finish(tmp_path, capsys):
    corpus = make_vector_corpus(tmp_path / "corpus")
    suite = write_suite(tmp_path, corpus.path, {"none": [], "wild": ["optim.lr=1e30"]}, seeds=1)
    assert main(["bench", str(suite), "--out", str(tmp_path / "out"), "--quiet"]) == 1
    assert "failed: vectors/wild/seed0: the loss is" in capsys.readouterr().out
    assert ledger(tmp_path / "out") == [("none", 0, "done"), ("wild", 0, "failed")]
    text = (tmp_path / "out" / "tiny-vectors.md").read_text()
    assert "| none | 0." in text and "wild (0): the loss is" in text


def test_changed_overrides_do_not_take_an_old_run_for_their_own(again, tmp_path, capsys):
    suite, out = again
    corpus = load_suite(suite).settings["vectors"].corpus
    changed = write_suite(tmp_path, corpus, {"none": [], "uniform": ["balance=uniform", "balance.weight=2"]})
    assert main(["bench", str(changed), "--out", str(out), "--quiet"]) == 1
    assert f"{out / 'vectors' / 'uniform' / 'seed0'} holds another run" in capsys.readouterr().out
    text = (out / "tiny-vectors.md").read_text()
    assert "| uniform |" not in text and "holds another run" in text


def test_a_run_that_misses_an_item_raises(again):
    suite, out = again
    path = out / "vectors" / "none" / "seed1" / "predictions.parquet"
    table = io.read_table(path)
    io.write_table(path, table[table["id"] != table["id"].iloc[0]])
    with pytest.raises(ProtocolError, match=r"seed1 scored \d+ of the \d+ items"):
        page(load_suite(suite), "vectors", out)


def test_only_chooses_and_the_rest_stays_open(tmp_path):
    corpus = make_vector_corpus(tmp_path / "corpus")
    suite = load_suite(write_suite(tmp_path, corpus.path, ARMS))
    assert [job.key for job in plan(suite, tmp_path, ["*/uniform"])] == [
        ("vectors", "uniform", 0),
        ("vectors", "uniform", 1),
    ]
    assert len(plan(suite, tmp_path, ["vectors"])) == 4
    with pytest.raises(UnknownName, match="unifrom"):
        plan(suite, tmp_path, ["vectors/unifrom"])


@pytest.mark.parametrize(
    ("changes", "error", "named"),
    [
        ({"baselin": ["none"]}, UnknownName, "baselines"),
        ({"baselines": ["nome"]}, UnknownName, "none"),
        ({"metrics": ["uarr"]}, UnknownName, "uar"),
        ({"settings": {"v": {"recipe": "vectors", "corpus": "c", "fold": 3}}}, UnknownName, "settings.v.folds"),
        ({"settings": {"v": {"recipe": "vectors"}}}, BadConfig, "settings.v.corpus"),
        ({"settings": {"v": {"recipe": "vectors", "corpus": "c", "arms": ["unifom"]}}}, UnknownName, "uniform"),
        ({"arms": {"none": {"override": []}}}, UnknownName, "arms.none.overrides"),
        ({"settings": {}}, BadConfig, "settings"),
        ({"seeds": 0}, BadConfig, "seeds = 0"),
    ],
)
def test_what_a_suite_cannot_have_is_named(tmp_path, changes, error, named):
    path = write_suite(tmp_path, tmp_path / "corpus", ARMS, changes)
    with pytest.raises(error) as caught:
        load_suite(path)
    assert named in str(caught.value)


def test_an_arm_that_no_recipe_can_have_is_named_before_anything_runs(tmp_path, capsys):
    corpus = make_vector_corpus(tmp_path / "corpus")
    suite = write_suite(tmp_path, corpus.path, {"none": [], "typo": ["balance=unifrom"]})
    assert main(["bench", str(suite), "--out", str(tmp_path / "out"), "--quiet"]) == 2
    shown = capsys.readouterr().err
    assert "vectors/typo" in shown and "uniform" in shown and not (tmp_path / "out").exists()


def test_cells_stay_cells_and_nothing_is_less_than_nothing():
    assert _row("a", "audio|vision,\n  in two lines\n") == r"| a | audio\|vision, in two lines |"
    assert interval(Estimate(-1e-9, -2e-9, 0.1, 9)) == "0.000 [0.000, 0.100]"
    assert signed(Difference(-1e-9, -0.1, 0.1, 1.0, 9)) == "+0.000 [-0.100, +0.100]"


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0] and holm([]).tolist() == []


def test_the_shipped_suite_names_every_balancer():
    suite = load_suite(Path(__file__).resolve().parents[2] / "benchmarks" / "suites" / "balancers.yaml")
    overrides = [o for arm in suite.arms.values() for o in arm.overrides]
    named = {o.removeprefix("balance=") for o in overrides if o.startswith("balance=")}
    assert named | {"none"} == set(registry.cards("balancers"))


def test_an_arm_of_one_modality(tmp_path):
    corpus = make_vector_corpus(tmp_path / "corpus")
    suite = write_suite(tmp_path, corpus.path, {"none": [], "alone": {"only": ["audio"]}}, seeds=1)
    kept = {job.arm: list(job.recipe.streams) for job in plan(load_suite(suite), tmp_path / "out")}
    assert kept["alone"] == [s for s in kept["none"] if s.startswith("audio")]
    assert main(["bench", str(suite), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    text = (tmp_path / "out" / "tiny-vectors.md").read_text()
    assert "| alone | `--only audio` |" in text
    write_suite(tmp_path, corpus.path, {"none": [], "alone": {"only": ["smell"]}}, seeds=1)
    with pytest.raises(UnknownName, match="smell"):
        load_suite(suite)


def test_metrics_of_another_kind_of_task_are_refused_before_anything_runs(tmp_path):
    corpus = make_vector_corpus(tmp_path / "corpus")
    suite = write_suite(tmp_path, corpus.path, ARMS, {"metrics": ["ccc"]})
    with pytest.raises(BadConfig, match="ccc is no metric for a task of classes"):
        plan(load_suite(suite), tmp_path / "out")


def test_the_page_says_what_the_setting_changes(finished):
    assert all(f"`{o}`" in finished[2].read_text() for o in SMALL)


def test_arms_start_from_the_stage_without_labels_that_they_share(tmp_path):
    corpus = make_vector_corpus(tmp_path / "corpus")
    contrast = "{name: pair_contrastive, teacher: false, streams: [audio_vec, vision_vec]}"
    stage = [f"pretrain.objectives={{c: {contrast}}}", "pretrain.train.epochs=1"]
    fewer = [*stage, "pretrain.train.epochs=2"]
    arms = {
        "none": [],
        "pretrained": {"pretrain": stage},
        "uniform": {"overrides": ["balance=uniform"], "pretrain": stage},
        "longer": {"pretrain": fewer},
    }
    suite = write_suite(tmp_path, corpus.path, arms, seeds=1)
    out = tmp_path / "out"
    assert main(["bench", str(suite), "--out", str(out), "--quiet"]) == 0
    before = sorted((out / "before").iterdir())
    assert len(before) == 2 and all(io.read_json(b / "run.json")["pretrained"] for b in before)
    started = {arm: io.read_json(out / "vectors" / arm / "seed0" / "run.json").get("init") for arm in arms}
    assert started["none"] is None and started["pretrained"]["run"] == started["uniform"]["run"]
    assert started["longer"]["run"] != started["pretrained"]["run"]
    assert "pair_contrastive" in (out / "tiny-vectors.md").read_text()
    lines = io.read_jsonl(out / "ledger.jsonl")
    assert main(["bench", str(suite), "--out", str(out), "--quiet"]) == 0
    assert io.read_jsonl(out / "ledger.jsonl") == lines


def test_a_stage_of_other_features_is_another_stage(tmp_path):
    corpora = [make_vector_corpus(tmp_path / name) for name in ("one", "two")]
    store = corpora[1].store_path("audio_vec")
    values = np.stack([FeatureStore(store)[i].values[0] for i in FeatureStore(store).ids])
    ids = FeatureStore(store).ids
    shutil.rmtree(store)
    import_arrays(store, np.array(ids), values + 1)
    assert corpora[0].hash == corpora[1].hash
    contrast = "{name: pair_contrastive, teacher: false, streams: [audio_vec, vision_vec]}"
    arms = {"none": [], "pretrained": {"pretrain": [f"pretrain.objectives={{c: {contrast}}}"]}}
    settings = {c.path.name: {"recipe": "vectors", "corpus": str(c.path), "overrides": SMALL} for c in corpora}
    suite = write_suite(tmp_path, corpora[0].path, arms, {"settings": settings}, seeds=1)
    assert main(["bench", str(suite), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    assert len(list((tmp_path / "out" / "before").iterdir())) == 2
