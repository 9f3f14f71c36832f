"""A test per known defect of a published audio, text and face system (and of MME2E, whose data and trainer it took).

Each test fails where affuse has that defect.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import Tensor
from torch.nn.functional import one_hot

from affuse.cli.app import main
from affuse.core import io, registry
from affuse.core.errors import BadConfig, UnknownName
from affuse.core.labels import SPACES, LabelSpace
from affuse.core.tasks import Task
from affuse.core.types import Batch, Feature, Fused, Output, StreamSpec
from affuse.corpora.iemocap import import_iemocap
from affuse.corpora.manifest import Corpus
from affuse.features.face_crops import FaceCrops
from affuse.features.tokens import Tokens
from affuse.layers.repvgg import RepVGGBlock, fused
from affuse.layers.xlstm import XLSTM, CausalConv, chunkwise, empty
from affuse.media.clip import Clip
from affuse.media.write import write_clip
from affuse.metrics import value
from affuse.models.model import Model
from affuse.models.saved import load_model
from affuse.objectives.binary_cross_entropy import BinaryCrossEntropy
from affuse.objectives.focal import Focal
from affuse.stores.collate import collate
from affuse.training.run_folder import split_of
from tests.contracts.corpora import LABELS, make_corpus
from tests.parts import CANDIDATES, make_model, random_batch
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


# ---- model -----------------------------------------------------------------------------------------------------------

STREAMS = (CANDIDATES[0], CANDIDATES[2], CANDIDATES[4])  # sound, faces, words
ENCODERS = {"sound": "wave_cnn", "faces": "repvgg", "words": "xlstm"}


def trimodal(fusion: str = "cross_attention") -> tuple[Model, Batch]:
    """Samples, face crops and vectors of words through the encoders of the system, and a batch of six."""
    return make_model(STREAMS, ENCODERS, fusion, SPACES["iemocap-4"]), random_batch(STREAMS, 6, 4)


def test_cross_attention_answers_to_its_query():
    """With one key the query changed nothing: a difference and a gradient of exactly 0."""
    torch.manual_seed(0)
    model, batch = trimodal()
    model.eval()
    encoded = model.encode(batch)
    layer = model.fusion.layers["words over sound"][0]
    seen: list[Tensor] = []
    layer.out.register_forward_hook(lambda module, given, found: seen.append(found))
    model.fuse(encoded, batch)
    other = replace(encoded, tokens=encoded.tokens | {"words": encoded.tokens["words"].flip(0)})
    model.fuse(other, batch)
    assert (seen[0] - seen[1]).abs().max() > 1e-4


def test_every_tensor_of_the_model_is_trained():
    """Of three blocks run side by side one got no gradient at all; 33.6 million audio weights were dead."""
    dead = []
    for fusion in ("cross_attention", "late"):  # the one reads steps, the other what each encoder pools of them
        model, batch = trimodal(fusion)
        output = model.train()(batch).logits["emotion"]
        (output * torch.randn_like(output)).sum().backward()
        dead.append({name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()})
    assert not dead[0] & dead[1]
    assert all(".pool." in name for name in dead[0]) and not dead[1]


def test_blocks_follow_each_other_and_directions_share_nothing():
    """Every block read the input; the backward pass was one step, with the forward weights."""
    net = XLSTM(8, kinds=("mlstm", "mlstm")).eval()
    x, mask = torch.randn(1, 20, 8), torch.ones(1, 20, dtype=torch.bool)
    seen: list[Tensor] = []
    net.blocks[1].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    net(x, mask)
    assert not torch.equal(seen[0], x)
    forward, backward = (list(cell.parameters()) for cell in net.blocks[0].cells)
    assert not {id(p) for p in forward} & {id(p) for p in backward}
    last = x.clone()
    last[:, -1] += 1
    middle = x.clone()
    middle[:, 10] += 1
    for changed in (last, middle):  # the first step knows of the last one, and of all between
        assert (net(changed, mask)[:, 0] - net(x, mask)[:, 0]).abs().max() > 1e-7


def test_the_convolution_of_a_block_runs_over_time():
    """It slid over the features of one step: a step knew nothing of the one before it but through the memory."""
    conv = CausalConv(4, 3).eval()
    x = torch.zeros(1, 6, 4)
    x[0, 2, 1] = 1.0
    changed = (conv(x, conv.begin(x))[0] - conv(torch.zeros_like(x), conv.begin(x))[0])[0].abs() > 1e-8
    assert changed[2:5, 1].any() and not changed[:2].any() and not changed[5:].any()
    assert not changed[:, [0, 2, 3]].any()


def test_a_negative_normaliser_is_not_replaced():
    """clamp(n q, min=1) replaced half of all normalisers; what counts is their size."""
    q = torch.tensor([[[-2.0, 0.0]]], dtype=torch.float64)
    k, v = torch.tensor([[[3.0, 0.0]]], dtype=torch.float64), torch.tensor([[[5.0, 7.0]]], dtype=torch.float64)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    found, _ = chunkwise(q, k, v, zero, zero, empty(q))
    torch.testing.assert_close(found, -v)  # C q = v (k q) = -6 v, |n q| = 6


def test_repvgg_trains_on_after_an_evaluation():
    """Evaluation fused the model in training: convolutions that the optimiser did not know, without gradient."""
    model, batch = trimodal("late")
    before = [name for name, _ in model.named_parameters()]
    fused(model.eval())(batch)
    model.train()
    assert [name for name, _ in model.named_parameters()] == before
    model(batch).logits["emotion"].square().sum().backward()
    kernels = [m.conv3.weight for m in model.modules() if isinstance(m, RepVGGBlock)]
    assert kernels and all(k.requires_grad and k.grad is not None and k.grad.any() for k in kernels)


@pytest.mark.parametrize("gone", [{"words"}, {"faces"}, {"sound", "words"}, {"sound", "faces"}])
@pytest.mark.parametrize("fusion", ["cross_attention", "late"])
def test_any_subset_of_the_modalities_answers(fusion, gone):
    """Sound and face needed the text; a batch without any face gave two logits to a layer of three."""
    model, batch = trimodal(fusion)
    model.eval()
    found = model(batch.without(gone)).logits["emotion"]
    assert found.isfinite().all() and not torch.allclose(found, model(batch).logits["emotion"])


@pytest.mark.parametrize("n", [1, 9, 17])
def test_any_size_of_a_batch_works(n):
    """More than eight failed, as did one alone."""
    model, _ = trimodal()
    assert model.eval()(random_batch(STREAMS, n, 4)).logits["emotion"].shape == (n, 4)


def test_the_epoch_that_is_kept_is_the_best_and_no_epoch_is_scored_on_the_test_split(corpus, run):
    """The last epoch was saved as the best, and the test split was scored after every one."""
    rows, told = io.read_jsonl(run / "metrics.jsonl"), io.read_json(run / "run.json")
    scores = [row["valid"][told["selection"]["metric"]] for row in rows]
    assert told["best_epoch"] == 1 + int(np.argmax(scores)) and told["best_score"] == pytest.approx(max(scores))
    assert all("test" not in row for row in rows)
