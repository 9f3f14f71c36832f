"""MMCosine: angles only."""

from __future__ import annotations

import pytest
import torch
from tests.parts import CANDIDATES, make_model, random_batch

from affuse.core.errors import BadConfig
from affuse.core.labels import SPACES
from affuse.models.fusions.cosine import Cosine

STREAMS = (CANDIDATES[1], CANDIDATES[4])
SPACE = SPACES["iemocap-4"]


def test_logits_are_scaled_cosines_added_over_the_streams_present():
    model = make_model(STREAMS, {s.name: "mlp" for s in STREAMS}, "cosine", SPACE).eval()
    batch = random_batch(STREAMS, 4, len(SPACE))
    batch.present[1:3] = torch.tensor([[True, False], [False, True]])
    output, pooled = model(batch), model.encode(batch).pooled
    for row in range(4):
        for c in range(len(SPACE)):
            angles = [
                torch.cosine_similarity(pooled[s.name][row], model.stream_heads[s.name]["emotion"].weight[c], dim=0)
                for i, s in enumerate(STREAMS)
                if batch.present[row, i]
            ]
            torch.testing.assert_close(output.logits["emotion"][row, c], 15 * sum(angles))
    assert max(logits["emotion"].abs().max() for logits in output.unimodal.values()) <= 15
    assert [k for k in model.state_dict() if k.startswith("stream_heads") and k.endswith("bias")] == []


def test_no_size_of_features_or_weights_matters():
    head, x = Cosine({"face": 5}, scale=3.0).make_head(5, 4), torch.randn(6, 5)
    found = head(x)
    torch.testing.assert_close(head(100 * x), found)
    head.weight.data *= 0.01
    torch.testing.assert_close(head(x), found)
    assert (head(torch.zeros(1, 5)) == 0).all()


def test_a_scale_of_nothing_is_refused():
    with pytest.raises(BadConfig, match="scale"):
        Cosine({"face": 5}, scale=0.0)
