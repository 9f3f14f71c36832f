"""Clips in compound emotions: from affuse-base, through decisions, formats, processes and the command line."""

from __future__ import annotations

import json

import pytest

import affuse
from affuse.cli.app import main
from affuse.core import registry
from affuse.core.compound import LABELS, Compound
from affuse.core.errors import BadConfig, UnknownName
from affuse.inference.clips import Job, analyze_clips
from affuse.inference.recognizer import load


@pytest.fixture(scope="module")
def clip(shared_data) -> str:
    return str(shared_data / "av_clips" / "ravdess__01-01-01-01-01-01-01.mp4")


@pytest.fixture(scope="module")
def happy(shared_data) -> str:
    return str(shared_data / "av_clips" / "eamm__happy.mp4")


def test_segments_are_the_mapping_of_the_model_s_own(clip, happy):
    """Where all of a segment is covered, decisions change no probability: so the mapping can be checked on them."""
    basic, compound = affuse.load(), affuse.load(labels="compound")
    assert compound.labels == LABELS
    for file in (clip, happy):
        ours, theirs = compound(file), basic(file)
        assert (ours.labels, ours.tasks["emotion"].labels) == (LABELS, LABELS)
        assert any("compound emotions made of the basic ones of affuse-base (rule: product)" in n for n in ours.notes)
        assert len(ours) == len(theirs) > 0
        for a, b in zip(ours.segments, theirs.segments, strict=True):
            assert set(a.probabilities) == set(LABELS)
            assert a.label in (None, *LABELS)
            full = [m for m, view in b.modalities.items() if view.present and view.coverage == 1]
            for m in full:
                alone = Compound()._named(b.modalities[m].probabilities)
                assert a.modalities[m].probabilities == pytest.approx(alone, abs=1e-6)
            if full:
                assert a.probabilities == pytest.approx(Compound()._named(b.probabilities), abs=1e-6)
        absent = [m for m, view in theirs.segments[0].modalities.items() if not view.present]
        assert all(ours.segments[0].modalities[m].probabilities == {} for m in absent)
    assert {label for _, label in compound(happy)} == {"happily surprised"}
    assert {label for _, label in compound(happy, every=1.0)} == {"happily surprised"}


def test_every_format_and_several_processes(happy, clip, tmp_path):
    recognizer, job = affuse.load(labels="compound-sum"), Job("affuse-base", labels="compound-sum")
    timeline = recognizer(happy)
    for format in registry.cards("writers"):
        content = timeline.render(format)
        text = content if isinstance(content, str) else content.decode(errors="replace")
        assert format == "png" or "happily surprised" in text
    shared = {t.clip: t for t in analyze_clips(recognizer, job, [happy, clip], workers=2)}
    assert shared == {t.clip: t for t in analyze_clips(recognizer, job, [happy, clip])}


def test_the_command(happy, tmp_path, capsys):
    out = str(tmp_path / "out")
    arguments = ["analyze", happy, "--format", "json", "--out", out, "--quiet"]
    assert main([*arguments, "--labels", "compound-avcer"]) == 0
    found = json.loads((tmp_path / "out" / "eamm__happy.json").read_text())
    assert found["labels"] == list(LABELS)
    assert found["segments"][0]["label"] == "happily surprised"
    assert main(arguments) == 1  # the folder holds answers to another question
    assert "compound-avcer" in capsys.readouterr().err
    assert main(["analyze", happy, "--labels", "compounds"]) == 2


def test_models_without_the_six_emotions_and_unknown_names_are_refused(demo_run, capsys):
    with pytest.raises(BadConfig, match="need disgust, fear, surprise: the model's labels are neutral, happy, sad"):
        load(demo_run[0], labels="compound")
    with pytest.raises(UnknownName, match="labels 'compund'"):
        affuse.load(labels="compund")
    assert main(["analyze", "a.mp4", "--model", str(demo_run[0]), "--labels", "compound"]) == 2
    assert "compound emotions need disgust" in capsys.readouterr().err
