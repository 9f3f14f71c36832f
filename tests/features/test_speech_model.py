"""Speech encoders: equal to transformers', on the right clock, blind to padding, chunked without seams."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from affuse.core import registry
from affuse.core.errors import BadConfig, MissingDependency
from affuse.features import speech_model
from affuse.features.networks import pretrained
from affuse.features.speech_model import KNOWN, SpeechModel, whisper_mel, windows
from affuse.media.clip import Clip

transformers = pytest.importorskip("transformers")
soundfile = pytest.importorskip("soundfile")
SMALL = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "conv_dim": (8,) * 7
}  # fmt: skip
LARGE = {**SMALL, "feat_extract_norm": "layer", "do_stable_layer_norm": True}
WHISPER = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "vocab_size": 64, "num_mel_bins": 8, "max_source_positions": 500,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
MODELS = {
    "group": lambda: transformers.Wav2Vec2Config(**SMALL),
    "layer": lambda: transformers.Wav2Vec2Config(**LARGE),
    "hubert": lambda: transformers.HubertConfig(**SMALL),
    "wavlm": lambda: transformers.WavLMConfig(**SMALL),
    "data2vec": lambda: transformers.Data2VecAudioConfig(**SMALL),
    "whisper": lambda: transformers.WhisperConfig(**WHISPER),
}
RNG = np.random.default_rng(0)
SOUND = (0.1 * RNG.standard_normal(16000 * 26)).astype(np.float32)
Wave = Callable[..., Clip]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Random models of each kind in transformers' format."""
    base, made = tmp_path_factory.mktemp("speech"), {}

    def get(kind: str) -> Path:
        if kind not in made:
            torch.manual_seed(1)
            with pretrained.quiet():
                transformers.AutoModel.from_config(MODELS[kind]()).eval().save_pretrained(base / kind)
            made[kind] = base / kind
        return made[kind]

    return get


@pytest.fixture
def wave(tmp_path: Path) -> Wave:
    def make(samples: np.ndarray, name: str = "a", **segment: float) -> Clip:
        soundfile.write(tmp_path / f"{name}.wav", samples, 16000, subtype="FLOAT")
        return Clip(audio=tmp_path / f"{name}.wav", **segment)

    return make


@pytest.mark.parametrize("kind", [k for k in MODELS if k != "whisper"])
@pytest.mark.parametrize("samples", [400, 33000])
def test_equals_transformers(kind: str, samples: int, folder, wave: Wave) -> None:
    prepare = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    fed = prepare(SOUND[:samples], sampling_rate=16000, return_tensors="pt").input_values
    with torch.inference_mode():
        expected = pretrained.load(folder(kind))(fed).last_hidden_state[0]
    extractor = SpeechModel(model=str(folder(kind)))
    feature = extractor(wave(SOUND[:samples]))
    assert extractor.spec.rate == 50
    assert feature.values.shape == ((samples - 400) // 320 + 1, *extractor.spec.shape)
    assert feature.values.dtype == np.float32
    assert (feature.t0, feature.valid) == (0.0125, None)
    np.testing.assert_allclose(feature.values, expected, atol=5e-5)


def test_whisper_equals_transformers_and_is_cut_to_the_sound(folder, wave: Wave) -> None:
    prepare = transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=10)
    fed = prepare(SOUND[:33000], sampling_rate=16000, return_tensors="pt").input_features
    network = pretrained.load(folder("whisper"))
    with torch.inference_mode():
        expected = network.get_encoder()(fed).last_hidden_state[0]
    feature = SpeechModel(model=str(folder("whisper")))(wave(SOUND[:33000]))
    assert feature.values.shape == (104, 16)  # 2.0625 s in steps of 20 ms, the last one begun
    assert feature.t0 == 0
    np.testing.assert_allclose(feature.values, expected[:104], atol=1e-4)


@pytest.mark.parametrize("bands", [80, 128])
def test_whisper_mel_equals_whispers(bands: int, shared_data: Path) -> None:
    from affuse.layers.log_mel import mel_filters

    published = np.load(shared_data / "weights" / "whisper_mel_filters.npz")[f"mel_{bands}"]
    np.testing.assert_allclose(mel_filters(16000, 400, bands).T, published, atol=1e-7)
    audio = Clip(audio=shared_data / "speech_misc" / "emotion2vec_test.wav").read_audio()
    assert audio is not None
    prepare = transformers.WhisperFeatureExtractor(feature_size=bands)
    expected = prepare(audio.samples, sampling_rate=16000, return_tensors="np").input_features[0]
    np.testing.assert_allclose(whisper_mel(torch.as_tensor(audio.samples), bands, 480000), expected, atol=2e-4)


def test_normalisation_is_what_the_folder_says(folder, wave: Wave, tmp_path: Path) -> None:
    import shutil

    own = shutil.copytree(folder("layer"), tmp_path / "own")
    quiet, loud = SOUND[:8000], 0.5 + 3 * SOUND[:8000]
    asked = SpeechModel(model=str(own))
    np.testing.assert_allclose(asked(wave(loud)).values, asked(wave(quiet)).values, atol=1e-3)
    (own / "preprocessor_config.json").write_text('{"do_normalize": false, "sampling_rate": 16000}')
    raw = SpeechModel(model=str(own))
    with torch.inference_mode():
        expected = pretrained.load(own)(torch.as_tensor(loud)[None]).last_hidden_state[0]
    np.testing.assert_allclose(raw(wave(loud)).values, expected, atol=5e-5)


@pytest.mark.parametrize("kind", ["group", "layer", "wavlm", "whisper"])
def test_unrecorded_ends_change_nothing_but_the_clock(kind: str, folder, wave: Wave) -> None:
    extractor = SpeechModel(model=str(folder(kind)))
    alone = extractor(wave(SOUND[:20000]))
    tail = extractor(wave(SOUND[:20000], "tail", end=5.0))
    np.testing.assert_array_equal(tail.values, alone.values)
    assert (tail.t0, tail.valid) == (alone.t0, None)
    muted = np.concatenate([np.zeros(32000, np.float32), SOUND[:20000]])
    late = extractor(wave(muted, "late"))
    np.testing.assert_array_equal(late.values, alone.values)
    assert late.t0 == pytest.approx(alone.t0 + 2.0)


def test_a_gap_is_invalid_and_pooling_leaves_it_out(folder, wave: Wave) -> None:
    gap = SOUND[:64000].copy()
    gap[16000:48000] = 0
    extractor = SpeechModel(model=str(folder("layer")))
    feature = extractor(wave(gap))
    assert feature.valid is not None
    times = feature.t0 + np.arange(len(feature.values)) / 50
    np.testing.assert_array_equal(feature.valid, (times < 1) | (times >= 3))
    pooled = SpeechModel(model=str(folder("layer")), pool="mean")
    assert pooled.spec.rate == 0
    one = pooled(wave(gap))
    assert one.t0 == 0 and one.valid is None
    np.testing.assert_allclose(one.values, feature.values[feature.valid].mean(0, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("kind", ["group", "whisper"])
def test_absent(kind: str, folder, wave: Wave, tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text("")
    extractor = SpeechModel(model=str(folder(kind)))
    for clip in (Clip(text="words"), wave(np.zeros(32000, np.float32), "muted")):
        assert extractor(clip).values.shape == (0, 16)
    short = extractor(wave(SOUND[:399], "short"))
    assert len(short.values) == (0 if kind == "group" else 2)


def test_earlier_clips_leave_no_trace(folder, wave: Wave) -> None:
    extractor = SpeechModel(model=str(folder("group")))
    first = extractor(wave(SOUND[:16000]))
    extractor(wave(5 * SOUND[:48000], "b"))
    np.testing.assert_array_equal(extractor(wave(SOUND[:16000])).values, first.values)


@pytest.mark.parametrize("steps", [1, 499, 500, 501, 1300, 7777])
@pytest.mark.parametrize(("size", "context"), [(500, 100), (301, 100), (1500, 64)])
def test_windows_join_without_gap(steps: int, size: int, context: int) -> None:
    parts = windows(steps, size, context)
    kept = np.concatenate([np.arange(b, e)[k] for b, k, e in parts])
    np.testing.assert_array_equal(kept, np.arange(steps))
    assert max(e - b for b, _, e in parts) <= size
    for begin, part, end in parts:
        assert begin == 0 or part.start == context
        assert end == steps or end - begin - part.stop == context


@pytest.mark.parametrize("kind", ["layer", "data2vec", "group", "wavlm"])
def test_chunks_change_little(kind: str, folder, wave: Wave) -> None:
    clip = wave(SOUND)
    whole, parts = (SpeechModel(model=str(folder(kind)), layers=(0,), chunk=c)(clip).values for c in (30, 9))
    assert whole.shape == parts.shape == (1299, 16)
    # the context covers the receptive field, so only a group norm (over all samples of a window) can differ
    if kind in ("layer", "data2vec"):
        np.testing.assert_allclose(parts, whole, atol=2e-5)
    assert np.abs(parts - whole).mean() < 0.02 * whole.std()
    whole, parts = (SpeechModel(model=str(folder(kind)), chunk=c)(clip).values for c in (30, 9))
    assert np.abs(parts - whole).mean() < 0.02 * whole.std()


def test_whisper_hears_whole_windows(folder, wave: Wave) -> None:
    extractor = SpeechModel(model=str(folder("whisper")))
    feature = extractor(wave(SOUND))
    assert feature.values.shape == (1300, 16)
    # five parts of 5.2 s, each encoded in a window of 10 s that begins 2 s earlier
    for part in range(5):
        begin = max(0, part * 260 - 100)
        window = extractor(wave(SOUND[begin * 320 : (begin + 500) * 320], "b"))
        kept = slice(part * 260, part * 260 + 260)
        np.testing.assert_allclose(feature.values[kept], window.values[kept.start - begin :][:260], atol=1e-5)


def test_layers_are_mixed(folder, wave: Wave) -> None:
    path, clip = str(folder("group")), wave(SOUND[:16000])
    each = [SpeechModel(model=path, layers=(n,))(clip).values for n in (0, 1, 2)]
    mixed = SpeechModel(model=path, layers=(0, 2), weights=(3.0, 1.0))(clip).values
    together = SpeechModel(model=path, layers=(0, 2))
    np.testing.assert_array_equal(together(clip).values, np.concatenate([each[0], each[2]], 1))
    assert together.spec.shape == together(clip).values.shape[1:]
    np.testing.assert_allclose(mixed, 0.75 * each[0] + 0.25 * each[2], atol=1e-6)
    np.testing.assert_allclose(SpeechModel(model=path)(clip).values, each[2], atol=0)
    with pytest.raises(BadConfig, match="no layer 3"):
        SpeechModel(model=path, layers=(3,))(clip)


def test_older_files_load(folder, wave: Wave, tmp_path: Path) -> None:
    """Hub files of fine-tuned models prefix their names, and have weight norms as weight_g and weight_v."""
    import shutil

    from safetensors.torch import load_file, save_file

    own = shutil.copytree(folder("group"), tmp_path / "own")
    norm = "conv.parametrizations.weight.original"
    old = {
        "wav2vec2." + name.replace(f"{norm}0", "conv.weight_g").replace(f"{norm}1", "conv.weight_v"): tensor
        for name, tensor in load_file(own / "model.safetensors").items()
    }
    old["classifier.dense.weight"] = torch.zeros(16, 16)
    save_file(old, own / "model.safetensors", {"format": "pt"})
    clip = wave(SOUND[:16000])
    expected = SpeechModel(model=str(folder("group")))(clip).values
    np.testing.assert_array_equal(SpeechModel(model=str(own))(clip).values, expected)


def test_wrong_models_and_options_are_refused(folder, tmp_path: Path) -> None:
    import shutil

    bert = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=9
    )
    with pretrained.quiet():
        transformers.BertModel(bert).save_pretrained(tmp_path / "bert")
    with pytest.raises(BadConfig, match="'bert' model"):
        _ = SpeechModel(model=str(tmp_path / "bert")).spec
    own = shutil.copytree(folder("group"), tmp_path / "adapter")
    (own / "config.json").write_text(
        (own / "config.json").read_text().replace('"add_adapter": false', '"add_adapter": true')
    )
    with pytest.raises(BadConfig, match="adapter"):
        _ = SpeechModel(model=str(own)).spec
    for chunk in (4, float("nan"), float("inf")):
        with pytest.raises(BadConfig, match="chunk"):
            SpeechModel(chunk=chunk)
    with pytest.raises(BadConfig, match="layers"):
        SpeechModel(layers=())


def test_absent_model_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def offline(*_: object, **__: object) -> str:
        raise hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    for name, entry in KNOWN.items():
        with pytest.raises(MissingDependency) as caught:
            _ = SpeechModel(model=name).spec
        assert f"{entry.hub}, {entry.size} MB, {entry.licence}" in str(caught.value)
    assert "NC" in KNOWN["emotion"].licence
    assert "NC" in speech_model.CARD["licence"]


def test_options_come_from_the_command_line(folder) -> None:
    given = {"model": str(folder("whisper")), "layers": [0, -1], "weights": [1, 2], "pool": "mean"}
    full = registry.resolve("extractors", "speech_model", given, "speech_model")
    extractor = registry.build("extractors", "speech_model", **full)
    assert (extractor.layers, extractor.weights) == ((0, -1), (1.0, 2.0))
    assert len(extractor.weights_hash) == 64
