"""Text embeddings: equal to sentence-transformers, blind to padding, quiet, and clear when absent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from affuse.core import hub as module
from affuse.core.errors import BadConfig, MissingDependency
from affuse.core.hub import TEXT_MODELS
from affuse.features.text import TextEmbedding
from affuse.media.clip import Clip

WORDS = ["I am so happy!", "no", "The bus left at nine. " * 5, "Oh, that's wonderful, is it?", "word " * 400]


@pytest.fixture(scope="module")
def minilm() -> TextEmbedding:
    pytest.importorskip("transformers")
    if module.find_spec(TEXT_MODELS["minilm"].wheel) is None:
        pytest.skip("needs affuse[minilm]")
    return TextEmbedding()


def test_equals_sentence_transformers(minilm: TextEmbedding) -> None:
    library = pytest.importorskip("sentence_transformers")
    expected = library.SentenceTransformer(str(minilm.folder), device="cpu").encode(WORDS)
    np.testing.assert_allclose(minilm.batch(WORDS), expected, atol=1e-5)


def test_padding_and_order_change_nothing(minilm: TextEmbedding) -> None:
    together = minilm.batch(WORDS)
    alone = np.concatenate([minilm(Clip(text=t)).values for t in WORDS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(minilm.batch(WORDS[::-1]), together[::-1], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_spec_absence_and_hash(minilm: TextEmbedding) -> None:
    assert minilm.spec.shape == (384,)
    assert minilm.spec.rate == 0
    assert len(minilm.weights_hash) == 64
    shapes = [f.values.shape for f in minilm.many([Clip(text="yes"), Clip(), Clip(text="  "), Clip(text="no")])]
    assert shapes == [(1, 384), (0, 384), (0, 384), (1, 384)]
    assert minilm.batch([]).shape == (0, 384)


def test_tokens(minilm: TextEmbedding) -> None:
    tokens = TextEmbedding(tokens=True)
    short, long = tokens.many([Clip(text="happy day"), Clip(text=WORDS[-1])])
    assert short.values.shape == (2, 384)
    assert long.values.shape == (254, 384)
    np.testing.assert_allclose(tokens(Clip(text="happy day")).values, short.values, atol=1e-5)
    np.testing.assert_allclose(tokens.batch(["happy day"]), minilm.batch(["happy day"]), atol=1e-6)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A random BERT in transformers' format."""
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.BertConfig(vocab_size=7, max_position_embeddings=12, **sizes)
    transformers.BertModel(config).save_pretrained(tmp_path)
    return tmp_path


def test_no_layer_at_all_is_refused(tiny: Path) -> None:
    with pytest.raises(BadConfig, match="no layer of the model"):
        TextEmbedding(model=str(tiny), layers=())(Clip(text="good"))


def test_own_folder_and_its_limit(tiny: Path) -> None:
    extractor = TextEmbedding(model=str(tiny), tokens=True)
    assert extractor.spec.shape == (8,)
    assert 1 <= len(extractor(Clip(text="good bad " * 50)).values) <= 10


def test_incomplete_weights_are_refused(tiny: Path) -> None:
    from safetensors.torch import load_file, save_file

    kept = {k: v for k, v in load_file(tiny / "model.safetensors").items() if "attention" not in k}
    save_file(kept, tiny / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadConfig, match="no weights for"):
        TextEmbedding(model=str(tiny))(Clip(text="good"))


@pytest.mark.parametrize("model", ["minilm", "nobody/no-such-model", "./no such folder"])
def test_absent_model_says_how_to_get_it(model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def offline(*_: object, **__: object) -> str:
        raise hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(module, "find_spec", lambda _: None)
    monkeypatch.setattr(hub, "snapshot_download", offline)
    with pytest.raises(MissingDependency, match=r"91 MB, Apache-2\.0") as caught:
        _ = TextEmbedding(model=model).spec
    assert model in str(caught.value)
    assert "HF_HOME" in caught.value.remedy


def test_quiet_and_lazy(minilm: TextEmbedding) -> None:
    code = (
        "import sys; from affuse.features.text import TextEmbedding; e = TextEmbedding(); e.spec\n"
        "assert not {'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)\n"
        "e.batch(['hello']); assert 'sentence_transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
