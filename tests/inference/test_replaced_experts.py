"""Classifiers in place of affuse-base's experts: their answers, the fusion with the others, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

import affuse
from affuse.cli.app import main
from affuse.core import io
from affuse.core.config import PRETRAINED
from affuse.core.errors import BadConfig, MissingDependency, UnknownName
from affuse.features.classifier import Classifier
from affuse.features.face_crops import FaceCrops
from affuse.inference.clips import Job, analyze_clips
from affuse.inference.recognizer import Recognizer, Rules
from affuse.inference.replaced_experts import Expert, parse_expert
from affuse.media.clip import Clip

pytest.importorskip("transformers")
from tests.classifiers import save_classifier

LABELS = ["anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise"]
RELIABILITY = io.read_json(PRETRAINED / "affuse-base" / "model.json")["parts"]["fusion"]["reliability"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A random classifier per modality."""
    base = tmp_path_factory.mktemp("models")
    families = {"audio": "hubert", "vision": "vit", "text": "roberta"}
    return {m: str(save_classifier(base / m, family, LABELS)) for m, family in families.items()}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two captions over a second of noise each."""
    path = tmp_path_factory.mktemp("clip") / "a.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(32000), 16000)
    path.with_suffix(".srt").write_text(
        "1\n00:00:00,000 --> 00:00:01,000\nANNA: I am so happy!\n\n2\n00:00:01,000 --> 00:00:02,000\nHow dare you!\n"
    )
    return path


def hearing(experts: dict[str, str]) -> Recognizer:
    """affuse-base with these experts, to which noise counts as a voice."""
    recognizer = affuse.load(experts=experts)
    recognizer.rules = Rules()
    return recognizer


def test_voice_and_words_are_answered_by_the_classifiers(models: dict[str, str], clip: Path) -> None:
    experts = {"audio": f"{models['audio']}@0.5", "text": models["text"]}
    recognizer = hearing(experts)
    assert [s.name for s in recognizer.models[0].streams] == ["face_crops", "audio_classifier", "text_classifier"]
    timeline = recognizer(clip)
    assert [s.speaker for s in timeline.segments] == ["ANNA", None]
    for segment in timeline.segments:
        sound = Clip(clip, start=segment.start, end=segment.end)
        own = [
            Classifier(modality="audio", model=models["audio"])(sound).values[0],
            Classifier(modality="text", model=models["text"])(Clip(text=segment.text)).values[0],
        ]
        for modality, log in zip(("audio", "text"), own, strict=True):
            found = list(segment.modalities[modality].probabilities.values())
            np.testing.assert_allclose(found, np.exp(log) / np.exp(log).sum(), atol=1e-5)
        trust = np.array([0.5, RELIABILITY["text"]]) / 0.5
        fused = np.exp(trust @ np.stack(own) / (1 + 0.4 * (trust.sum() - 1)))
        np.testing.assert_allclose(list(segment.probabilities.values()), fused / fused.sum(), atol=1e-5)


def test_an_answer_says_whose_it_is(models: dict[str, str], clip: Path) -> None:
    (note,) = hearing({"text": models["text"]})(clip).notes
    assert note.startswith(f"text: {models['text']} answers in place of affuse-base's own expert")
    assert "not measured here" in note
    assert affuse.load().notes == ()


def test_what_is_not_replaced_stays(models: dict[str, str], clip: Path) -> None:
    before, after = hearing({})(clip), hearing({"text": models["text"]})(clip)
    for old, new in zip(before.segments, after.segments, strict=True):
        assert new.modalities["audio"].probabilities == pytest.approx(old.modalities["audio"].probabilities, abs=1e-6)
        assert new.modalities["text"].probabilities != old.modalities["text"].probabilities


def test_the_fusion_keeps_its_numbers(models: dict[str, str]) -> None:
    (model,) = affuse.load(experts=models | {"vision": f"{models['vision']}@0.8"}).models
    fusion = model.parts.fusion.options
    assert fusion["groups"] == {f"{m}_classifier": m for m in ("audio", "vision", "text")}
    assert fusion["temperature"] == dict.fromkeys(fusion["groups"], 1.0)
    assert fusion["halfway"] == {"audio_classifier": 0.0, "vision_classifier": 0.5, "text_classifier": 0.0}
    assert fusion["reliability"] == {
        "audio_classifier": RELIABILITY["waveform"], "vision_classifier": 0.8, "text_classifier": RELIABILITY["text"]
    }  # fmt: skip
    assert sum(p.numel() for p in model.parameters()) == 3 * (49 + 7)


def test_faces_are_followed_once_and_each_read_once(
    models: dict[str, str], shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shared_data / "av_clips" / "pyfeat__face_noface.mov"
    wanted = Classifier(modality="vision", model=models["vision"])(Clip(path))
    recognizer, seen = affuse.load(experts={"vision": models["vision"]}), []
    extractor = recognizer.extractors["vision_classifier"]
    embed = extractor.embed
    monkeypatch.setattr(extractor, "embed", lambda images: seen.append(len(images)) or embed(images))
    monkeypatch.setattr(FaceCrops, "blocks", lambda *_: pytest.fail("the picture was decoded again"))
    timeline = recognizer(path, every=2.0)
    assert wanted.valid is not None
    assert sum(seen) == wanted.valid.sum()  # though the windows overlap
    first = timeline.segments[0]
    assert timeline.faces and first.modalities["vision"].present
    window = wanted.between(5.0, 0.0, 4.0)
    p = np.exp(window.values[window.valid].mean(0))
    np.testing.assert_allclose(list(first.modalities["vision"].probabilities.values()), p / p.sum(), atol=0.02)


def test_processes_answer_the_same(models: dict[str, str], clip: Path, tmp_path: Path) -> None:
    (tmp_path / "b.wav").write_bytes(clip.read_bytes())
    (tmp_path / "b.srt").write_text(clip.with_suffix(".srt").read_text())
    experts = {"text": models["text"]}
    clips = [str(clip), str(tmp_path / "b.wav")]
    recognizer, job = affuse.load(experts=experts), Job("affuse-base", experts=experts)
    alone = {t.clip: t for t in analyze_clips(recognizer, job, clips)}
    assert {t.clip: t for t in analyze_clips(recognizer, job, clips, workers=2)} == alone
    assert all(t.error is None and t.notes for t in alone.values())


def test_the_command(models: dict[str, str], clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["analyze", str(clip), "--format", "json", "--quiet"]
    experts = ["--expert", f"text={models['text']}@0.9", "--expert", f"audio={models['audio']}"]
    assert main([*command, *experts]) == 0
    timeline = json.loads(capsys.readouterr().out)
    assert len(timeline["notes"]) == 2
    assert all(s["modalities"]["text"]["present"] for s in timeline["segments"])
    assert main([*command, "--out", str(tmp_path)]) == 0
    assert main([*command, "--out", str(tmp_path), *experts]) == 1
    assert "holds answers for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (["text=nobody/no-such-model"], 1, "nobody/no-such-model"),
        (["vision=trpakov/vit-face-expression"], 1, "343 MB, Apache-2.0"),
        (["audio=hubert-er"], 1, "superb/hubert-base-superb-er, 378 MB, Apache-2.0"),
        (["voice=hubert-er"], 2, "audio"),
        (["hubert-er"], 2, "MODALITY=MODEL"),
        (["text=go-emotions", "text=other"], 2, "twice"),
        (["text=go-emotions@1.5"], 2, "reliability of 1.5"),
    ],
)
def test_what_cannot_be_had_is_one_message(
    given: list[str], code: int, said: str, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyze", str(clip), *(part for g in given for part in ("--expert", g))]) == code
    err = capsys.readouterr().err
    assert said in err
    assert err.count("error") == 1
    assert "Traceback" not in err


def test_misfits_are_refused(models: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="run folder"):
        affuse.load(tmp_path, experts={"text": models["text"]})
    with pytest.raises(UnknownName, match="words"):
        affuse.load(experts={"words": models["text"]})
    with pytest.raises(BadConfig, match="no vision classifier"):
        affuse.load(experts={"vision": models["text"]})
    with pytest.raises(MissingDependency, match="nobody/none"):
        affuse.load(experts={"text": "nobody/none"})


@pytest.mark.parametrize(
    ("given", "expert"),
    [
        ("go-emotions", Expert("go-emotions", None)),
        ("me/model@0.7", Expert("me/model", 0.7)),
        ("/home/a@b/model", Expert("/home/a@b/model", None)),
        (Path("folder"), Expert("folder", None)),
    ],
)
def test_a_reliability_stands_behind_the_name(given: str | Path, expert: Expert) -> None:
    assert parse_expert(given) == expert
