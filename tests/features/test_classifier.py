"""Classifiers answer as in transformers, by affuse's names, and say clearly when they cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from affuse.core import registry
from affuse.core.errors import BadConfig, MissingDependency
from affuse.features import classifier as module
from affuse.features.classifier import CLASSES, FLOOR, KNOWN, Classifier, classes_of, logarithms
from affuse.features.networks import pretrained
from affuse.media.clip import Clip

transformers = pytest.importorskip("transformers")
from tests.classifiers import save_classifier  # noqa: E402

SEVEN = ["anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise"]
NOISE = (0.1 * np.random.default_rng(0).standard_normal(16000 * 20)).astype(np.float32)


def wave(path: Path, samples: np.ndarray) -> Clip:
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    return Clip(audio=path)


def expected(folder: Path, architecture: str, labels: list[str], **fed: torch.Tensor) -> np.ndarray:
    """transformers' own log-probabilities [n, 7], by affuse's names."""
    with torch.inference_mode():
        own = pretrained.load(folder, architecture)(**fed).logits.softmax(-1).numpy()
    p = np.zeros((len(own), 7))
    for column, index in enumerate(classes_of(labels)):
        p[:, index] += own[:, column]
    logs = np.log(np.maximum(p, FLOOR))
    known = sorted(set(classes_of(labels)) - {-1})
    logs[:, np.setdiff1d(np.arange(7), known)] = logs[:, known].mean(1, keepdims=True)
    return logs


@pytest.mark.parametrize("family", ["wav2vec2", "layer", "hubert"])
def test_a_voice_is_answered_as_in_transformers(family: str, tmp_path: Path) -> None:
    labels = ["neu", "hap", "ang", "sad"]
    folder = save_classifier(tmp_path / "model", family, labels)
    prepare = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    fed = prepare(NOISE[:48000], sampling_rate=16000, return_tensors="pt").input_values
    feature = Classifier(modality="audio", model=str(folder))(wave(tmp_path / "a.wav", NOISE[:48000]))
    wanted = expected(folder, "AutoModelForAudioClassification", labels, input_values=fed)
    assert feature.values.shape == (1, 7)
    np.testing.assert_allclose(feature.values, wanted, atol=1e-4)
    lacking = [CLASSES.index(c) for c in ("fear", "disgust", "surprise")]
    np.testing.assert_allclose(feature.values[0, lacking], np.delete(feature.values[0], lacking).mean(), atol=1e-5)
    assert np.ptp(wanted[0, :4]) > 0.1


def test_whisper_too(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "model", "whisper", SEVEN)
    prepare = transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=10)
    fed = prepare(NOISE[:48000], sampling_rate=16000, return_tensors="pt").input_features
    feature = Classifier(modality="audio", model=str(folder))(wave(tmp_path / "a.wav", NOISE[:48000]))
    wanted = expected(folder, "AutoModelForAudioClassification", SEVEN, input_features=fed)
    np.testing.assert_allclose(feature.values, wanted, atol=1e-3)


def test_a_long_voice_is_the_mean_of_its_parts(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "model", "layer", SEVEN)
    (folder / "preprocessor_config.json").write_text('{"do_normalize": false}')
    extractor = Classifier(modality="audio", model=str(folder), chunk=8.0)
    clip = np.concatenate([NOISE[: 6 * 16000], 0.01 * NOISE[: 6 * 16000]])
    parts = [np.exp(extractor(wave(tmp_path / f"{i}.wav", part)).values) for i, part in enumerate(np.split(clip, 2))]
    assert np.abs(parts[0] - parts[1]).max() > 1e-5
    np.testing.assert_allclose(np.exp(extractor(wave(tmp_path / "all.wav", clip)).values), np.mean(parts, 0), atol=1e-5)


@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_faces_are_answered_as_in_transformers(family: str, tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, family, SEVEN)
    images = np.random.default_rng(0).integers(0, 256, (37, 32, 32, 3), dtype=np.uint8)
    fed = (torch.from_numpy(images).float() / 255 - torch.tensor([0.4, 0.5, 0.6])) / torch.tensor([0.2, 0.3, 0.4])
    wanted = expected(folder, "AutoModelForImageClassification", SEVEN, pixel_values=fed.permute(0, 3, 1, 2))
    extractor = Classifier(modality="vision", model=str(folder))
    np.testing.assert_allclose(extractor.embed(images), wanted, atol=1e-4)
    assert extractor.embed(images[:0]).shape == (0, 7)


def test_a_clip_of_faces_is_masked_where_there_is_none(tmp_path: Path, shared_data: Path) -> None:
    extractor = Classifier(modality="vision", model=str(save_classifier(tmp_path, "vit", SEVEN)), fps=2.0)
    assert extractor.spec.rate == 2.0
    clip = Clip(shared_data / "av_clips" / "pyfeat__face_noface.mov")
    assert extractor.crops is not None
    feature, crops = extractor(clip), extractor.crops(clip)
    np.testing.assert_array_equal(feature.valid, crops.valid)
    assert 0.2 < feature.coverage < 0.6
    np.testing.assert_allclose(feature.values[crops.valid], extractor.embed(crops.values[crops.valid]), atol=1e-5)


@pytest.mark.parametrize(("family", "limit"), [("bert", 18), ("roberta", 20), ("distilbert", 510)])
def test_words_are_answered_as_in_transformers(family: str, limit: int, tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, family, SEVEN)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    extractor = Classifier(modality="text", model=str(folder))
    for text in ("I am so happy!", "How dare you! " * 40):
        fed = tokenizer([text], truncation=True, max_length=limit, return_tensors="pt")
        wanted = expected(folder, "AutoModelForSequenceClassification", SEVEN, **fed)
        np.testing.assert_allclose(extractor(Clip(text=text)).values, wanted, atol=1e-4)


def test_models_of_several_labels_at_once_are_shares_of_their_sigmoids(tmp_path: Path) -> None:
    labels = ["admiration", *SEVEN]
    folder = save_classifier(tmp_path, "roberta", labels, problem_type="multi_label_classification")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        network = pretrained.load(folder, "AutoModelForSequenceClassification")
        logits = network(**tokenizer(["so sad"], return_tensors="pt")).logits
    own = logits.sigmoid()[0, 1:].numpy()
    p = dict(zip(classes_of(SEVEN), own / own.sum(), strict=True))
    found = Classifier(modality="text", model=str(folder))(Clip(text="so sad")).values[0]
    np.testing.assert_allclose(np.exp(found), [p[i] for i in range(7)], atol=1e-5)


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (["neu", "hap", "ang", "sad"], "neutral happy angry sad"),
        (SEVEN, "angry disgust fear happy neutral sad surprise"),
        (["Angry", "Disgusted", "Fearful", "Happy ", "Contempt", "SURPRISED"], "angry disgust fear happy - surprise"),
        (["calm", "neutral", "love", "optimism", "no emotion"], "neutral neutral - - neutral"),
        (["female_angry", "male_happy", "male_surprised", "female_fear"], "angry happy surprise fear"),
        (["LABEL_0", "positive", "excited"], "- - -"),
    ],
)
def test_labels_are_mapped_by_name(labels: list[str], wanted: str) -> None:
    assert classes_of(labels) == [-1 if name == "-" else CLASSES.index(name) for name in wanted.split()]


def test_labels_of_one_class_add_up_and_strangers_are_dropped(tmp_path: Path) -> None:
    labels = ["calm", "neutral", "contempt", "happy", "sad"]
    folder = save_classifier(tmp_path, "bert", labels)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        fed = tokenizer(["you"], return_tensors="pt")
        own = pretrained.load(folder, "AutoModelForSequenceClassification")(**fed).logits.softmax(-1)[0].numpy()
    kept = np.array([own[0] + own[1], own[3], own[4]]) / (1 - own[2])
    found = Classifier(modality="text", model=str(folder))(Clip(text="you")).values[0]
    np.testing.assert_allclose(np.exp(found[:3]), kept, atol=1e-5)
    np.testing.assert_allclose(found[3:], found[:3].mean(), atol=1e-6)


def test_certainty_stays_finite() -> None:
    found = logarithms(np.array([[1, 0, 0, 0, 0, 0, 0]], np.float32), [0, 1, 2, 3, 4, 5, 6])
    assert np.isfinite(found).all()
    assert np.exp(found[0, 0]) == 1


@pytest.mark.parametrize("labels", [["positive", "negative"], ["happy", "joy", "love"]])
def test_other_labels_are_refused_by_name(labels: list[str], tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, "bert", labels)
    with pytest.raises(BadConfig, match=", ".join(labels)):
        Classifier(modality="text", model=str(folder))(Clip(text="you"))


@pytest.mark.parametrize(
    ("modality", "family"), [("audio", "bert"), ("vision", "bert"), ("text", "wav2vec2"), ("text", "vit")]
)
def test_models_of_another_modality_are_refused(modality: str, family: str, tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, family, SEVEN)
    with pytest.raises(BadConfig, match=f"which is no {modality} classifier"):
        _ = Classifier(modality=modality, model=str(folder)).classes


def test_a_head_that_was_not_saved_is_refused(tmp_path: Path) -> None:
    """Hub files such as ehcalabres' hold classifier.dense and classifier.output: transformers would answer randomly."""
    from safetensors.torch import load_file, save_file

    folder = save_classifier(tmp_path / "model", "wav2vec2", SEVEN)
    tensors = {
        k.replace("classifier.", "classifier.output."): v for k, v in load_file(folder / "model.safetensors").items()
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadConfig, match=r"no weights for classifier\.bias"):
        Classifier(modality="audio", model=str(folder))(wave(tmp_path / "a.wav", NOISE[:16000]))


def test_absence(tmp_path: Path) -> None:
    voice = Classifier(modality="audio", model=str(save_classifier(tmp_path / "voice", "wav2vec2", SEVEN)))
    face = Classifier(modality="vision", model=str(save_classifier(tmp_path / "face", "vit", SEVEN)))
    words = Classifier(modality="text", model=str(save_classifier(tmp_path / "words", "bert", SEVEN)))
    for clip in (Clip(text="  "), Clip()):
        assert [e(clip).values.shape for e in (voice, face, words)] == [(0, 7)] * 3
    assert voice(wave(tmp_path / "silent.wav", np.zeros(32000, np.float32))).values.shape == (0, 7)
    assert voice(wave(tmp_path / "short.wav", NOISE[:399])).values.shape == (0, 7)


def test_spec_needs_no_files_and_classes_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Classifier(modality="audio", model="none").spec.shape == (7,)
    monkeypatch.setattr(pretrained, "load", lambda *_, **__: pytest.fail("weights were read"))
    extractor = Classifier(modality="vision", model=str(save_classifier(tmp_path, "vit", SEVEN)))
    assert len(extractor.classes) == 7
    assert extractor.weights_hash.startswith(pretrained.weights_hash(tmp_path))
    assert len(extractor.weights_hash) > 64  # the detector's too


@pytest.mark.parametrize("modality", list(KNOWN))
def test_absent_models_say_how_to_get_them(modality: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def offline(name: str, revision: str | None = None, **_: object) -> str:
        asked.append((name, revision))
        raise hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    for name, entry in KNOWN[modality].items():
        for given in (name, entry.hub):
            with pytest.raises(MissingDependency) as caught:
                _ = Classifier(modality=modality, model=given).folder
            assert f"{entry.hub}, {entry.size} MB, {entry.licence}" in str(caught.value)
            assert asked[-1] == (entry.hub, entry.revision)
    with pytest.raises(MissingDependency, match="nobody/none"):
        _ = Classifier(modality=modality, model="nobody/none").folder


def test_options_come_from_the_command_line(tmp_path: Path) -> None:
    given = {"modality": "vision", "model": str(tmp_path), "fps": 2}
    full = registry.resolve("extractors", "classifier", given, "face")
    assert registry.build("extractors", "classifier", **full).spec.rate == 2.0
    with pytest.raises(BadConfig, match=r"face\.model has no value"):
        registry.resolve("extractors", "classifier", {"modality": "text"}, "face")
    for chunk in (1, float("inf")):
        with pytest.raises(BadConfig, match=r"classifier\.chunk"):
            Classifier(modality="audio", model="x", chunk=chunk)
    assert set(module.CARD["modalities"]) == set(KNOWN)
