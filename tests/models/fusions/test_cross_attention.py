from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.contracts.corpora import make_corpus

from affuse.core.config import make_recipe
from affuse.core.errors import BadConfig
from affuse.core.types import Encoded
from affuse.models.fusions.cross_attention import CrossAttention
from affuse.stores.store import import_arrays
from affuse.training import binding

DIMS = {"audio": 6, "vision": 4, "text": 5}


def encoded(n: int = 3) -> Encoded:
    """Random tokens of three streams at 10 Hz, at 4 Hz and of no time."""
    torch.manual_seed(0)
    lengths = {"audio": 9, "vision": 4, "text": 6}
    tokens = {s: torch.randn(n, t, DIMS[s], requires_grad=True) for s, t in lengths.items()}
    mask = {s: torch.ones(n, t, dtype=torch.bool) for s, t in lengths.items()}
    rate = {"audio": 10.0, "vision": 4.0, "text": 0.0}
    t0 = {s: torch.zeros(n, dtype=torch.float64) for s in DIMS}
    pooled = {s: x.mean(1) for s, x in tokens.items()}
    return Encoded(tuple(DIMS), tokens, mask, pooled, torch.ones(n, 3, dtype=torch.bool), rate, t0)


def test_attention_itself_turns_to_other_keys_when_the_query_changes():
    """Not the residual path: the same keys, their mixture alone."""
    torch.manual_seed(0)
    layer = CrossAttention(DIMS, dim=8, dropout=0.0).layers["text over audio"][0]
    kv, attended = torch.randn(1, 5, 8), torch.ones(1, 1, 5, dtype=torch.bool)
    seen = []
    layer.out.register_forward_hook(lambda module, given, found: seen.append(found))
    for scale in (1.0, -4.0):
        layer(torch.ones(1, 1, 8) * scale, kv, attended)
    assert (seen[0] - seen[1]).abs().max() > 1e-3
    one_key = torch.zeros(1, 1, 5, dtype=torch.bool)
    one_key[..., 0] = True
    for scale in (1.0, -4.0):
        layer(torch.ones(1, 1, 8) * scale, kv, one_key)
    torch.testing.assert_close(seen[2], seen[3])  # what the published fusion did with its one key


def test_all_six_directions_of_three_streams():
    pairs = set(CrossAttention(DIMS).pairs)
    assert pairs == {f"{a} over {b}" for a in DIMS for b in DIMS if a != b}


def test_padding_is_attended_to_by_nobody():
    fusion, batch = CrossAttention(DIMS, dim=8).eval(), encoded()
    batch.mask["audio"][:, 6:] = False
    expected = fusion(batch).pooled
    with torch.no_grad():
        batch.tokens["audio"][:, 6:] = 1e3
    torch.testing.assert_close(fusion(batch).pooled, expected)


def test_a_vector_per_utterance_is_refused_and_named(tmp_path: Path):
    corpus = make_corpus(tmp_path / "c")
    ids = corpus.table["id"].to_numpy().astype(str)
    import_arrays(corpus.store_path("vision_vector"), ids, torch.randn(len(ids), 6).numpy())
    values = {
        "summary": "a test",
        "source": "a test",
        "streams": {"audio_steps": {"encoder": "transformer"}, "vision_vector": {"encoder": "mlp"}},
        "fusion": {"name": "cross_attention", "dim": 8},
        "objectives": {"cross_entropy": {}},
    }
    recipe = binding.bind(make_recipe(values), corpus)
    everything = corpus.table["id"].notna().to_numpy()
    with pytest.raises(BadConfig, match=r"vision_vector.*one key"):
        binding.training_set(corpus, recipe, binding.tasks_of(recipe, corpus), everything)
    values["streams"] = {s: {"encoder": "transformer"} for s in ("audio_steps", "vision_steps")}
    recipe = binding.bind(make_recipe(values), corpus)
    binding.training_set(corpus, recipe, binding.tasks_of(recipe, corpus), everything)
