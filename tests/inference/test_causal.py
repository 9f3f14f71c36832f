"""Live conversations: `analyze --causal` uses nothing that comes later, and agrees with the whole conversation."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import affuse
from affuse.cli.app import main
from affuse.core.config import RECIPES
from affuse.core.errors import BadConfig
from affuse.inference.windows import blocks, tiles
from affuse.media.clip import Clip
from affuse.media.subtitles import Caption
from affuse.media.write import write_clip

CONTEXT = """context:
  - {name: recurrent, stands: before, dim: 8, attention: self, past: 3, mode: MODE}
  - {name: speaker_graph, past: 3, future: 3, dim: 8, mode: MODE}
"""


@pytest.fixture(scope="module")
def runs(demo_run, tmp_path_factory) -> dict[str, Path]:
    """The demo's model with a context, causal and offline, after one epoch."""
    base = tmp_path_factory.mktemp("runs")
    for mode in ("causal", "offline"):
        recipe = (RECIPES / "demo.yaml").read_text().replace("context: none\n", CONTEXT.replace("MODE", mode))
        (base / f"{mode}.yaml").write_text(recipe)
        command = ["train", str(base / f"{mode}.yaml"), "--corpus", str(demo_run[1]), "--out", str(base / mode)]
        assert main([*command, "train.epochs=1", "--quiet"]) == 0
    return {mode: base / mode for mode in ("causal", "offline")}


@pytest.fixture(scope="module")
def conversation(demo_run, tmp_path_factory) -> Path:
    """Six utterances one after the other, two of which overlap, and their captions."""
    path = tmp_path_factory.mktemp("talk") / "talk.mp4"
    clips = [Clip(p) for p in sorted((demo_run[1] / "clips").glob("*.mp4"))[:6]]
    frames = (f.image for clip in clips for f in list(clip.frames(10))[:15])
    write_clip(path, frames, 10, np.concatenate([clip.read_audio(16000).samples[:24000] for clip in clips]), 16000)
    times = [(1.5 * k, 1.5 * k + (1.9 if k == 3 else 1.5)) for k in range(6)]
    lines = [
        f"{k + 1}\n00:00:{a:06.3f} --> 00:00:{b:06.3f}\n{'ANN' if k % 2 else 'BEN'}: that is number {k}\n"
        for k, (a, b) in enumerate(times)
    ]
    path.with_suffix(".srt").write_text("\n".join(lines).replace(".", ","))
    return path


def numbers(timeline, count: int | None = None) -> np.ndarray:
    """Every probability of the segments: together, then of each modality alone."""
    views = [[s.probabilities, *(v.probabilities for v in s.modalities.values())] for s in timeline.segments[:count]]
    return np.array([[list(p.values()) for p in row] for row in views])


def test_live_is_what_the_whole_conversation_says(runs, conversation):
    recognizer = affuse.load(runs["causal"])
    whole, live = recognizer(conversation), recognizer(conversation, causal=True)
    assert len(live) == 6
    assert {s.speaker for s in live.segments} == {"ANN", "BEN"}
    np.testing.assert_allclose(numbers(live), numbers(whole), atol=1e-5)
    coverage = [[s.modalities["vision"].coverage for s in timeline.segments] for timeline in (live, whole)]
    assert coverage[0] == coverage[1]
    assert any("causally" in note for note in live.notes)


def test_what_comes_later_changes_nothing(runs, conversation, tmp_path):
    first = "\n\n".join(conversation.with_suffix(".srt").read_text().split("\n\n")[:3])
    (tmp_path / "first.srt").write_text(first)
    for mode, same in (("causal", True), ("offline", False)):
        recognizer = affuse.load(runs[mode])
        early = recognizer(conversation, tmp_path / "first.srt", causal=same)
        later = recognizer(conversation, causal=same)
        assert len(early) == 3
        assert np.allclose(numbers(early), numbers(later, 3), atol=1e-6) == same


def test_an_answer_rests_on_its_neighbours(runs, conversation):
    recognizer = affuse.load(runs["causal"])
    plain, asked = recognizer(conversation, causal=True), recognizer(conversation, causal=True, context=True)
    np.testing.assert_allclose(numbers(asked), numbers(plain), atol=1e-7)
    assert not any(s.context for s in plain.segments)
    assert any(s.context for s in asked.segments)
    for i, s in enumerate(asked.segments):
        strength = [c.influence for c in s.context]
        assert len(s.context) <= 5 and strength == sorted(strength, reverse=True)
        assert all(c.segment < i and 0.01 <= c.influence <= 1 for c in s.context)
    written = [c for s in json.loads(asked.to_json())["segments"] for c in s["context"]]
    assert written and all(c.keys() == {"segment", "influence"} for c in written)


def test_a_model_that_looks_ahead_is_refused_before_any_clip(runs, conversation, capsys):
    assert main(["analyze", str(conversation), "none.mp4", "--model", str(runs["offline"]), "--causal", "--quiet"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("error") == 1
    assert "later utterances" in printed.err and "mode=causal" in printed.err
    with pytest.raises(BadConfig, match="later"):
        affuse.load(runs["offline"])(conversation, causal=True)


def test_without_context_both_options_are_allowed_and_say_so(demo_run, conversation, tmp_path, capsys):
    options = ["--causal", "--context", "--format", "json", "--quiet"]
    command = ["analyze", str(conversation), "--model", str(demo_run[0]), *options]
    assert main(command) == 0
    row = json.loads(capsys.readouterr().out)
    assert any("by itself" in note for note in row["notes"])
    assert all(s["context"] == [] for s in row["segments"])
    assert main([*command, "--out", str(tmp_path)]) == 0
    command.remove("--causal")
    assert main([*command, "--out", str(tmp_path)]) == 1
    assert "holds answers" in capsys.readouterr().err


def test_windows_end_where_their_row_ends_and_hold_what_was_said_by_then(runs):
    captions = [Caption(0.2, 1.8, "one"), Caption(1.6, 2.4, "two"), Caption(2.5, 9.0, "three")]
    pieces, rows = affuse.load(runs["causal"])._intervals(7.2, captions, [], 2.0, True)
    assert rows == []
    assert [(c.start, c.end) for c in pieces] == tiles(7.2, 2.0) == [(0, 2), (2, 4), (4, 6), (6, 7.2)]
    assert [c.text for c in pieces] == ["one", "two", "", "three"]


def test_segments_are_read_alone_unless_they_overlap():
    spans = [(0, 2), (2, 3), (2.5, 4), (3.5, 5), (6, 7), (7, 60), (8, 9)]
    found = list(blocks([Caption(float(a), float(b), "") for a, b in spans], alone=True))
    assert [[(c.start, c.end) for c in b] for b in found] == [spans[:1], spans[1:4], spans[4:5], spans[5:6], spans[6:]]
    assert all(a[-1].start <= b[0].start for a, b in pairwise(found))
