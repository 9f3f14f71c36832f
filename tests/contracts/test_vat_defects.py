"""A test per known defect of the published code behind the video-audio transformer: each fails where affuse has it.

The numbers are those of the list of defects that came with the system's description; letters: the lesser ones.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from affuse.cli.app import main
from affuse.core import io
from affuse.core.config import make_recipe
from affuse.core.errors import BadConfig
from affuse.layers.pairs import Queue
from affuse.objectives.momentum_distillation import MomentumDistillation
from affuse.training.optim import make_optimizer
from affuse.training.teacher import Teacher
from tests.contracts.corpora import make_corpus
from tests.objectives.test_pairs import SPECS, TASK, contrast, make_batch, make_model, matching, step, vectors


def changed(model: torch.nn.Module, teacher: Teacher) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    teacher.update()


def test_1_a_teacher_shares_no_part_and_freezes_nothing_of_the_model():
    model = make_model().train()
    teacher = Teacher(model, 0.9)
    assert all(p.requires_grad for p in model.parameters())
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in teacher.model.parameters()}


def test_2_hard_negatives_end_in_a_batch_of_one_and_follow_similarity():
    model = make_model()
    (_, loss), counts = step(model, make_batch(1), contrast(model), matching(model))
    assert loss.tolist() == [0.0] and counts["without_negative"] > 0


def test_3_a_mismatch_is_no_sum_of_what_each_stream_says():
    """Of an additive score s(a) + t(b), s(a1) + t(b1) - s(a1) - t(b2) does not depend on a1."""
    model, batch = make_model(), make_batch(4)
    encoded, part = model.encode(batch), matching(model)

    def score(sound: int, face: int) -> float:
        one = encoded.take(torch.tensor([sound])).repaired("face", torch.tensor([face]), encoded)
        return float(part.head(model.fuse(one, batch).fused.pooled)[0, 1])

    gaps = [score(sound, 0) - score(sound, 1) for sound in range(4)]
    assert np.ptp(gaps) > 1e-5


def test_4_a_stream_is_not_compared_with_its_own_copy():
    with pytest.raises(BadConfig, match="two streams"):
        contrast(make_model(), streams=("sound", "sound"))


def test_5_every_part_of_the_teacher_follows_the_fusion_too():
    model = make_model()
    teacher = Teacher(model, 0.9, "constant")
    before = {k: v.clone() for k, v in teacher.model.named_parameters()}
    changed(model, teacher)
    now = dict(teacher.model.named_parameters())
    assert now.keys() == dict(model.named_parameters()).keys() and any(k.startswith("fusion.") for k in now)
    for name, value in now.items():
        torch.testing.assert_close(value, before[name] + 0.1)


def test_6_targets_are_probabilities_and_alpha_has_an_effect():
    model, batch = make_model(), make_batch()
    teacher = Teacher(model, 0.9)
    part = MomentumDistillation(TASK, alpha=0.4, ramp=0.0)
    part.setup(model)
    (found,), _ = step(model, batch, part, teacher=teacher.taught(batch))
    q = model(batch).logits["emotion"].softmax(1)
    hard = -q.log()[torch.arange(6), batch.target["emotion"]]
    torch.testing.assert_close(found, 0.4 * (-(q * q.log()).sum(1) - hard))  # an entropy, which logits do not give
    assert found.abs().sum() > 0


def test_7_an_epoch_is_chosen_by_a_metric_of_the_task_and_the_test_split_stays_closed(tmp_path, capsys):
    corpus = make_corpus(tmp_path / "corpus")
    recipe = tmp_path / "values.yaml"
    recipe.write_text(
        "streams: {audio_steps: {encoder: mlp}, vision_steps: {encoder: mlp}}\n"
        "tasks: {sentiment: {column: sentiment, space: sentiment}}\nobjectives: {l1: {}}\ntrain: {epochs: 2}\n"
    )
    command = ["train", str(recipe), "--corpus", str(corpus.path), "--quiet"]
    assert main([*command, "--out", str(tmp_path / "bad"), "train.selection=accuracy"]) == 2
    assert "does not fit" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "run"), "--no-score"]) == 0
    assert io.read_json(tmp_path / "run" / "run.json")["test_openings"] == 0
    rows = io.read_jsonl(tmp_path / "run" / "metrics.jsonl")
    assert all("test" not in key for row in rows for key in row)


def test_8_a_clip_is_no_negative_of_itself_and_neighbours_need_not_be():
    model, batch = make_model(), make_batch(4, id=["a", "a", "b", "c"], source=["x", "x", "x", "y"])
    part = contrast(model, negatives="other_source", temperature=0.3)
    (found,), _ = step(model, batch, part)
    a, b = vectors(model, batch, part)
    similar = a @ b.T / 0.3
    among = np.log(np.exp(similar[0, [0, 1, 3]]).sum())
    back = np.log(np.exp(similar.T[0, [0, 1, 3]]).sum())
    expected = (among - similar[0, :2].mean() + back - similar.T[0, :2].mean()) / 2
    assert found[0].item() == pytest.approx(expected, abs=1e-5)


def test_a_a_teacher_drops_nothing_out():
    model = make_model(dropout=0.5).train()
    taught = Teacher(model, 0.9).taught(make_batch())
    again = Teacher(model, 0.9).taught(make_batch())
    torch.testing.assert_close(taught.output.logits["emotion"], again.output.logits["emotion"])
    assert model.training


def test_b_one_process_needs_no_process_group_and_any_batch_fits_the_queue():
    model = make_model()
    part = contrast(model, queue=7).train()
    for n in (3, 5, 1):
        step(model, replace(make_batch(n), id=[f"{n}-{i}" for i in range(n)]), part)
        part.stepped()
    assert not torch.distributed.is_initialized() and int(part.queue.filled) == 7


def test_c_an_empty_queue_is_no_negative():
    model, batch = make_model(), make_batch()
    part = contrast(model, queue=64)
    (found,), _ = step(model, batch, part)
    part.queue = Queue(0, 4, ("a", "b"), ("id", "speaker", "source"))
    (expected,), _ = step(model, batch, part)
    torch.testing.assert_close(found, expected)


def test_d_the_temperature_is_not_decayed():
    model = make_model()
    part = contrast(model)
    recipe = make_recipe({"streams": {s.name: {"encoder": "mlp"} for s in SPECS}})
    groups = make_optimizer(model, torch.nn.ModuleDict({"objectives": torch.nn.ModuleDict({"c": part})}), recipe)
    own = [g for g in groups.param_groups if any(p is part.log_temperature for p in g["params"])]
    assert [g["weight_decay"] for g in own] == [0.0]


def test_e_buffers_follow_too():
    model = make_model()
    teacher = Teacher(model, 0.9)
    with torch.no_grad():
        for b in model.buffers():
            b.add_(1)
    teacher.update()
    own, there = dict(model.named_buffers()), dict(teacher.model.named_buffers())
    assert own and all(torch.equal(there[k], v) for k, v in own.items())


def test_f_a_row_whose_keys_are_all_left_out_raises_nothing():
    model, batch = make_model(), make_batch(3, source=["x", "x", "x"])
    first, part = contrast(model, negatives="other_source"), matching(model)
    (loss, match), counts = step(model, batch, first, part)
    assert loss.tolist() == [0.0] * 3 and match.tolist() == [0.0] * 3 and counts["without_negative"] == 6
