"""Calibrated late fusion: what each number does."""

from __future__ import annotations

import pytest
import torch

from affuse.core.errors import BadConfig
from affuse.core.types import Encoded
from affuse.models.fusions.experts import Experts

DIMS = {"sound": 4, "face": 3}


def encoded(present: list[list[bool]], faces: list[int]) -> Encoded:
    n = len(present)
    masks = {"sound": torch.ones(n, 2, dtype=torch.bool), "face": torch.arange(9) < torch.tensor(faces)[:, None]}
    pooled = {s: torch.zeros(n, d) for s, d in DIMS.items()}
    return Encoded(tuple(DIMS), {}, masks, pooled, torch.tensor(present))


def test_an_expert_alone_keeps_its_calibrated_answer_and_fewer_frames_count_less():
    fusion = Experts(DIMS, temperature={"sound": 2.0}, reliability={"sound": 0.5, "face": 0.8}, halfway={"face": 3.0})
    logits = torch.randn(4, 2, 5)
    found = fusion.combine(logits, encoded([[True, False], [False, True], [True, True], [False, False]], [0, 9, 3, 0]))
    torch.testing.assert_close(found[0], logits[0, 0] / 2)
    torch.testing.assert_close(found[1], logits[1, 1] * 9 / 12)
    torch.testing.assert_close(found[2], 0.5 / 0.8 * logits[2, 0] / 2 + logits[2, 1] / 2)
    assert (found[3] == 0).all()


def test_masking_a_modality_lowers_the_mean_confidence_of_experts_that_are_right():
    torch.manual_seed(0)
    truth = torch.randint(5, (200,))
    logits = torch.randn(200, 2, 5) + 2 * torch.nn.functional.one_hot(truth, 5).unsqueeze(1)
    fusion = Experts(DIMS, reliability={"sound": 0.6, "face": 0.7})

    def confidence(sound: bool, face: bool) -> float:
        answer = fusion.combine(logits, encoded([[sound, face]] * 200, [9] * 200))
        return float(answer.softmax(-1).amax(1).mean())

    assert confidence(True, True) > max(confidence(True, False), confidence(False, True)) + 0.03


def test_what_experts_share_counts_once():
    logits = torch.randn(2, 2, 5)
    apart, alike = Experts(DIMS), Experts(DIMS, shared=1.0)
    given = encoded([[True, True], [True, False]], [9, 0])
    torch.testing.assert_close(alike.combine(logits, given)[0], apart.combine(logits, given)[0] / 2)
    torch.testing.assert_close(alike.combine(logits, given)[1], logits[1, 0])
    one = Experts(DIMS, shared=1.0, groups={"sound": "a", "face": "a"})
    torch.testing.assert_close(one.combine(logits, given), apart.combine(logits, given))


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": {"smell": 1.0}},
        {"reliability": {"face": 0.0}},
        {"halfway": {"face": -1.0}},
        {"shared": -1.0},
        {"groups": {"smell": "a"}},
    ],
)
def test_impossible_numbers_are_refused(options):
    with pytest.raises(BadConfig, match=r"temperature|reliability|halfway|shared|groups"):
        Experts(DIMS, **options)
