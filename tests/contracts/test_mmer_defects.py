"""A test per known defect of a published audio, text and face system (and of MME2E, whose data and trainer it took).

Data, metrics and losses: each test fails where affuse has that defect.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch.nn.functional import one_hot

from affuse.cli.app import main
from affuse.core import io, registry
from affuse.core.errors import BadConfig, UnknownName
from affuse.core.labels import LabelSpace
from affuse.core.tasks import Task
from affuse.core.types import Batch, Feature, Fused, Output, StreamSpec
from affuse.corpora.iemocap import import_iemocap
from affuse.corpora.manifest import Corpus
from affuse.features.face_crops import FaceCrops
from affuse.features.tokens import Tokens
from affuse.media.clip import Clip
from affuse.media.write import write_clip
from affuse.metrics import value
from affuse.models.saved import load_model
from affuse.objectives.binary_cross_entropy import BinaryCrossEntropy
from affuse.objectives.focal import Focal
from affuse.stores.collate import collate
from affuse.training.run_folder import split_of
from tests.contracts.corpora import LABELS, make_corpus
from tests.tiny_bert import WORDS, save_tiny_bert

CLASSES = Task("emotion", LabelSpace("custom", ("angry", "happy", "neutral", "sad")))
SEVERAL = Task("emotion", LabelSpace("custom", ("angry", "fear"), "multilabel"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    """Forty utterances, every fifth without a picture."""
    return make_corpus(tmp_path_factory.mktemp("made") / "corpus")


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory) -> Path:
    """A run on six labels, in batches that leave one utterance over."""
    folder = tmp_path_factory.mktemp("run")
    recipe = {
        "streams": {"audio_steps": {"encoder": "mlp"}, "vision_steps": {"encoder": "mlp"}},
        "tasks": {"emotions": {"space": "mosei-6", "kind": "multilabel"}},
        "objectives": {"focal": {"name": "binary_cross_entropy", "gamma": 2.0, "alpha": 0.6}},
        "train": {"epochs": 3, "batch_size": 3},
        "split": {"valid": 0.25, "test": 0.25},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    where = ["--corpus", str(corpus.path), "--out", str(folder / "run"), "--quiet"]
    assert main(["train", str(folder / "recipe.yaml"), *where]) == 0
    return folder / "run"


def loss(objective: torch.nn.Module, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    n = len(logits)
    known = {"emotion": torch.ones(n, dtype=torch.bool)}
    batch = Batch((), {}, {}, torch.ones(n, 1, dtype=torch.bool), target={"emotion": target}, target_mask=known)
    return objective(Output({"emotion": logits}, Fused(torch.zeros(n, 1)), {}), batch)


# ---- scoring ---------------------------------------------------------------------------------------------------------


def test_drop_last_every_test_item_is_scored(corpus, run):
    """drop_last=True on all splits: 1,108 of 1,110 test clips were scored, in batches of 4."""
    split = split_of(run, corpus)
    wanted = set(corpus.table["id"][split == "test"])
    assert len(wanted) % 3
    assert set(pd.read_parquet(run / "predictions.parquet")["id"]) == wanted
    assert io.read_json(run / "evaluation.json")["protocol"]["n"] == len(wanted)


def test_clips_without_picture_are_scored_too(corpus, run):
    """The published batches left out, without a word, the clips in which no face was found."""
    scored = pd.read_parquet(run / "predictions.parquet")["id"].str[1:].astype(int)
    assert (scored % 5 == 0).any()
    faces, sound = StreamSpec("faces", "vision", (2,), 5.0), StreamSpec("sound", "audio", (2,), 5.0)
    found, none = Feature(np.ones((3, 2))), Feature(np.ones((3, 2)), np.zeros(3, bool))
    batch = collate([faces, sound], {"faces": [none, none, found], "sound": [found] * 3})
    assert batch.present.tolist() == [[False, True], [False, True], [True, True]]


def test_thresholds_are_those_of_the_selection_split_and_never_of_the_test_split(corpus, run):
    """A run that only tests chose its thresholds on the test split."""
    described = io.read_json(run / "model.json")
    task = load_model(described, run / "model.safetensors").tasks["emotions"]
    table = pd.read_parquet(run / "predictions.parquet").set_index("id")
    truth = corpus.table.set_index("id").loc[table.index, list(LABELS)].to_numpy(float)
    predicted = table[[f"p:{name}" for name in LABELS]].to_numpy()
    assert table[[f"t:{name}" for name in LABELS]].iloc[0].tolist() == pytest.approx(task.thresholds)
    assert task.with_thresholds(truth, predicted).thresholds != pytest.approx(task.thresholds)
    assert main(["evaluate", str(run), "--corpus", str(corpus.path)]) == 0
    assert io.read_json(run / "model.json") == described


# ---- metrics ---------------------------------------------------------------------------------------------------------


def test_the_mean_of_binary_accuracies_is_not_called_accuracy():
    """84.5 % on six classes is a hit rate of 53.5 %; naming no class at all has 83.3 %."""
    truth = np.arange(600) % 6
    answer = np.where(np.arange(600) < 321, truth, (truth + 1) % 6)
    predicted = np.eye(6)[answer]
    assert value("accuracy", truth, predicted) == pytest.approx(0.535)
    assert value("one_vs_rest_accuracy", truth, predicted) == pytest.approx(0.845)


def test_f1_of_labels_is_at_the_prevalence_of_the_data():
    """The published F1 of a rare emotion, .52, follows from a prevalence of one half; at 10 % it is .24."""
    recall, false_alarms = 0.5, 0.42

    def found(present: int, absent: int) -> float:
        truth = np.repeat([1.0, 0.0], [present, absent])[:, None]
        hits, alarms = round(recall * present), round(false_alarms * absent)
        predicted = np.repeat([1.0, 0.0, 1.0, 0.0], [hits, present - hits, alarms, absent - alarms])[:, None]
        return value("label_f1", truth, predicted)

    assert found(500, 500) == pytest.approx(2 * recall / (1 + recall + false_alarms))
    assert found(100, 900) < 0.5 * found(500, 500)


def test_a_label_that_nobody_has_divides_by_nothing():
    truth = np.array([[1.0, 0.0], [0.0, 0.0]])
    assert value("label_weighted_accuracy", truth, truth) == 1.0


# ---- losses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_the_focal_factor_is_per_item_and_not_per_batch(kind):
    """(1 - exp(-mean))^2 of the batch's mean loss: an item's loss depended on the others of its batch."""
    torch.manual_seed(0)
    if kind == "classes":
        objective, logits, target = Focal(CLASSES), torch.randn(2, 4), torch.tensor([0, 3])
        plain = Focal(CLASSES, gamma=0.0)
    else:
        objective, logits, target = BinaryCrossEntropy(SEVERAL, gamma=2.0), torch.randn(2, 2), torch.eye(2)
        plain = BinaryCrossEntropy(SEVERAL)
    both, mean = loss(objective, logits, target), loss(plain, logits, target).mean()
    alone = [loss(objective, logits[i : i + 1], target[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(both, torch.cat(alone))
    assert both.mean() != pytest.approx(((1 - (-mean).exp()) ** 2 * mean).item(), rel=0.01)


def test_a_false_positive_is_never_rewarded():
    """alpha was a balanced weight, above 1 for rare labels, so that absent ones weighed 1 - alpha < 0."""
    with pytest.raises(BadConfig, match="alpha = 6"):
        BinaryCrossEntropy(SEVERAL, alpha=6.0)
    for options in ({"alpha": 0.9}, {"positive_weight": "balanced"}):
        objective = BinaryCrossEntropy(SEVERAL, gamma=2.0, **options)
        objective.fit(torch.tensor([[1.0, 0.0]] + 9 * [[0.0, 1.0]]))
        low, high = (loss(objective, torch.full((1, 2), z), torch.zeros(1, 2)).item() for z in (-1.0, 1.0))
        assert 0 < low < high


def test_an_utterance_without_any_label_is_not_the_first_label():
    """Weights came from the argmax of every vector: all-zero rows counted as anger."""
    objective = BinaryCrossEntropy(SEVERAL, positive_weight="balanced")
    objective.fit(torch.tensor([[0.0, 0.0]] * 6 + [[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 2))
    assert objective.positive.tolist() == pytest.approx([4.0, 4.0])


def test_a_loss_that_is_not_there_is_refused():
    """`if loss == "bce" or "focalloss"` is true of every name."""
    with pytest.raises(UnknownName, match="'focalloss'"):
        registry.load("objectives", "focalloss")


def test_a_class_is_decided_as_it_was_trained():
    """Trained by a softmax, decided by sigmoids with thresholds: no class or two of a clip that has one."""
    logits = torch.tensor([[-3.0, -4.0, -5.0, -6.0], [5.0, 4.0, 3.0, 2.0]])
    predicted = CLASSES.predict(logits)
    torch.testing.assert_close(predicted, logits.softmax(-1))
    assert CLASSES.with_thresholds(one_hot(torch.tensor([0, 0]), 4).numpy(), predicted.numpy()).thresholds == ()
    assert CLASSES.decide(predicted.numpy()).tolist() == [0, 0]


# ---- data ------------------------------------------------------------------------------------------------------------


def test_frames_without_a_face_keep_their_place(tmp_path):
    """They were dropped, so that what followed moved forward in time; all-black frames ended in a crash."""
    write_clip(tmp_path / "black.mp4", np.zeros((20, 64, 64, 3), np.uint8), fps=10.0)
    crops = FaceCrops(fps=5.0)(Clip(tmp_path / "black.mp4"))
    assert len(crops.values) == 10
    assert crops.valid is not None
    assert not crops.valid.any()
    assert crops.coverage == 0


def test_words_are_padded_to_the_longest_of_their_batch_and_cut_at_the_limit(tmp_path):
    """Every text was padded to 100 tokens."""
    tokens = Tokens(model=str(save_tiny_bert(tmp_path)), length=12)
    clips = [Clip(text="good day"), Clip(text="bad"), Clip(text="night " * 40)]
    found = tokens.many(clips)
    assert collate([tokens.spec], {"tokens": found[:2]}).x["tokens"].shape == (2, 4)
    assert len(found[2].values) == 12
    assert WORDS[found[2].values[-1]] == "[SEP]"


def test_words_follow_the_first_colon_of_a_transcript_not_the_last(tmp_path):
    """`line.split(":")[-1]` kept what follows the last colon."""
    dialog = tmp_path / "r" / "Session1" / "dialog"
    for folder, text in (
        ("EmoEvaluation", "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\n"),
        ("transcriptions", "Ses01F_impro01_F000 [006.2901-008.2357]: He said [1]: at 5:30, at the latest.\n"),
    ):
        (dialog / folder).mkdir(parents=True)
        (dialog / folder / "Ses01F_impro01.txt").write_text(text)
    corpus = import_iemocap(tmp_path / "r", tmp_path / "c", partial=True)
    assert corpus.table["text"].tolist() == ["He said [1]: at 5:30, at the latest."]
