"""Runs that answer per frame against runs that answer per utterance: on the same utterances."""

from __future__ import annotations

import json

import pytest
import yaml
from tests.contracts.corpora import make_corpus

from affuse.cli.app import main
from affuse.core import io
from affuse.core.errors import ProtocolError
from affuse.evaluation.compare import Scored, compare

STREAMS = {s: {"encoder": {"name": "mlp", "hidden": 8}} for s in ("audio_steps", "vision_steps")}
FRAMES = {"fusion": "framewise", "tasks": {"emotion": {"resolution": "frame", "rate": 5.0}}}
ARMS = {"frames": FRAMES, "whole": {"fusion": "concat", "tasks": {"emotion": {}}}}
TRACKED = {"fusion": "framewise", "tasks": {"emotion": {"resolution": "frame", "track": "expression"}}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    corpus = make_corpus(folder / "corpus", same_rate=True)
    for name, values in {**ARMS, "tracked": TRACKED}.items():
        recipe = {"streams": STREAMS, "train": {"epochs": 2}, "optim": {"lr": 0.01}, **values}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
        command = ["train", str(folder / f"{name}.yaml"), "--corpus", str(corpus.path), "--out", str(folder / name)]
        assert main([*command, "--quiet"]) == 0
    return folder


def test_scores_of_the_compared_utterances_are_those_of_the_evaluation(runs):
    found = Scored([runs / "frames"], utterances=True)
    said = io.read_json(runs / "frames" / "evaluation.json")["per_utterance"]
    assert len(found.ids) == said["n"] == len(Scored([runs / "whole"]).ids)
    assert found.each("uar")[0] == pytest.approx(said["metrics"]["uar"]["value"])


def test_frames_and_utterances_compare_only_as_utterances(runs, capsys):
    with pytest.raises(ProtocolError, match="different protocols"):
        compare(runs / "frames", runs / "whole")
    assert main(["compare", str(runs / "frames"), str(runs / "whole"), "--utterances", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    each = [Scored([runs / name], utterances=True).each("uar")[0] for name in ARMS]
    assert found["mean"] == pytest.approx(each)
    assert found["difference"]["value"] == pytest.approx(each[0] - each[1])


def test_frames_with_labels_of_their_own_are_not_put_together(runs):
    assert not (runs / "tracked" / "predictions-utterances.parquet").exists()
    with pytest.raises(ProtocolError, match="several labels"):
        Scored([runs / "tracked"], utterances=True)


@pytest.mark.parametrize("utterances", [True, False])
def test_a_suite_scores_its_arms_per_utterance_or_per_frame(runs, tmp_path, utterances):
    arms = {name: {"recipe": str(runs / f"{name}.yaml")} for name in (ARMS if utterances else ["frames"])}
    setting = {"recipe": str(runs / "frames.yaml"), "corpus": str(runs / "corpus"), "utterances": utterances}
    suite = {"name": "s", "arms": arms, "settings": {"one": setting}, "baselines": ["frames"], "metrics": ["uar"]}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(suite | {"seeds": 2}))
    assert main(["bench", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "runs"), "--quiet"]) == 0
    page = (tmp_path / "runs" / "s-one.md").read_text()
    evaluation = io.read_json(runs / "frames" / "evaluation.json")
    n = evaluation["per_utterance"]["n"] if utterances else evaluation["n"]
    assert f"{n} {'utterances' if utterances else 'frames'} scored (every one of the split)" in page
