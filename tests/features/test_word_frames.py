"""Words at their times, or spread over the speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from affuse.core.errors import BadConfig
from affuse.features.text import TextEmbedding
from affuse.features.word_frames import WordFrames, spread
from affuse.media.clip import Clip


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "##ly"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.BertConfig(vocab_size=8, max_position_embeddings=8, **sizes)
    transformers.BertModel(config).save_pretrained(tmp_path)
    return str(tmp_path)


def test_a_word_is_there_while_it_is_said(tiny):
    times = ((0.0, 0.5), (0.5, 0.8), (1.0, 2.0))
    feature = WordFrames(rate=10, model=tiny)(Clip(text="good badly good", start=3.0, end=5.0, word_times=times))
    assert feature.values.shape == (20, 8)
    assert feature.valid.tolist() == [True] * 8 + [False] * 2 + [True] * 10
    vectors, known = TextEmbedding(model=tiny, tokens=True).words(["good", "badly", "good"])
    assert known.all()
    np.testing.assert_allclose(feature.values[[0, 4, 5, 7, 10]], vectors[[0, 0, 1, 1, 2]], rtol=1e-5)
    assert (feature.values[8:10] == 0).all()


def test_words_beyond_the_models_limit_are_not_valid(tiny):
    feature = WordFrames(rate=5, model=tiny)(Clip(text="good " * 12, start=0.0, end=12.0))
    assert feature.valid.sum() == 4 * 5  # of 6 tokens two are markers


def test_no_words_are_absent_and_wrong_times_are_named(tiny):
    assert len(WordFrames(model=tiny)(Clip(start=0.0, end=1.0)).values) == 0
    with pytest.raises(BadConfig, match="1 word times for 2 words"):
        WordFrames(model=tiny)(Clip(text="good bad", end=1.0, word_times=((0.0, 1.0),)))
    for rate in (0, float("nan"), float("inf")):
        with pytest.raises(BadConfig, match="no rate"):
            WordFrames(rate=rate)


def test_words_share_the_speech_by_their_letters():
    speech = np.array([[1.0, 2.0], [4.0, 5.0]])
    np.testing.assert_allclose(spread(["ab", "ab"], speech), [[1, 2], [4, 5]])
    np.testing.assert_allclose(spread(["a", "abc"], speech), [[1, 1.5], [1.5, 5]])
    np.testing.assert_allclose(spread(["a"] * 8, speech)[:, 0], [1, 1.25, 1.5, 1.75, 4, 4.25, 4.5, 4.75])
