"""Golden texts of the template, what a budget drops and in which order, and changes that are refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from affuse.core.errors import BadConfig, UnknownName
from affuse.features.description.cues import Cue
from affuse.features.description.template import Template, make_template

ALL = ("text", "vision", "audio")
WORDS = Cue("words", "I did not expect that", "text", 0.2, 1.8)
FACE = [Cue(n, v, "vision", 0.0, 2.0) for n, v in (("face", 0.8), ("surprise", 0.55), ("happy", 0.3), ("fear", 0.09))]
SOUND = [Cue(n, v, "audio", 0.0, 2.0) for n, v in (("sound", 0.9), ("voice", 0.6))]
MEASURES = {
    "pitch": 230.0, "pitch variation": 8.0, "loudness": -40.0, "loudness variation": 18.5,
    "speech rate": 3.0, "pausing": 0.04,
}  # fmt: skip
VOICE = [
    *SOUND,
    *(Cue(n, v, "audio", 0.1, 1.9) for n, v in MEASURES.items()),
    *(Cue(n, v, "audio", 0.1, 1.9) for n, v in (("angry", 0.45), ("disgust", 0.15), ("sad", 0.12), ("neutral", 0.11))),
]


def short(most: int):
    return lambda text: len(text.split()) <= most


def render(cues, modalities=ALL, most=1000, template: Template | None = None) -> str:
    return (template or Template()).render(cues, modalities, short(most))


FULL = (
    'They say: "I did not expect that" The face shows strong surprise, some happiness. '
    "The voice expresses some anger, weak disgust, weak sadness. The voice has high pitch, medium pitch variation, "
    "low loudness, high loudness variation, medium speech rate, low pausing."
)
GOLDEN = {
    "all": ([WORDS, *FACE, *VOICE], FULL),
    "a voice without words": (
        [*FACE, *SOUND, Cue("fear", 0.7, "audio", 0, 2)],
        "The words are not known. The face shows strong surprise, some happiness. The voice expresses strong fear.",
    ),
    "no face": (
        [WORDS, Cue("face", 0.0, "vision", 0, 2)],
        'They say: "I did not expect that" No face is visible. There is no sound.',
    ),
    "silence": (
        [Cue("sound", 0.0, "audio", 0, 2), Cue("voice", 0.0, "audio", 0, 2)],
        "Nobody speaks. There is no picture. There is silence.",
    ),
    "a sound that is no voice": (
        [Cue("sound", 0.5, "audio", 0, 2), Cue("voice", 0.0, "audio", 0, 2)],
        "Nobody speaks. There is no picture. There is no voice.",
    ),
    "a face that is sure of nothing": (
        [Cue("face", 1.0, "vision", 0, 2), Cue("neutral", 0.09, "vision", 0, 2), Cue("sad", 0.08, "vision", 0, 2)],
        "Nobody speaks. The face shows weak neutrality. There is no sound.",
    ),
    "nothing": ([], ""),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_texts(name):
    cues, text = GOLDEN[name]
    assert render(cues) == text


def test_the_published_template_has_not_changed_without_its_version():
    """A store is bound to this hash: after a change of the sentences, count `version` up and put the new hash here."""
    assert (Template().version, Template().hash) == (1, "45f8f719d3bef4d0")


def test_order_and_choice_of_modalities_are_those_asked_for():
    cues = [WORDS, *FACE]
    assert render(cues, ("vision", "text")) == (
        'The face shows strong surprise, some happiness. They say: "I did not expect that"'
    )
    assert render(cues, ("text",)) == 'They say: "I did not expect that"'


def test_defect_no_face_was_written_for_a_neutral_face():
    neutral = [Cue("face", 1.0, "vision", 0, 2), Cue("neutral", 0.95, "vision", 0, 2)]
    assert render(neutral, ("vision",)) == "The face shows strong neutrality."




def test_a_budget_drops_the_least_informative_first():
    texts = list(dict.fromkeys(render([WORDS, *FACE, *VOICE], most=n) for n in range(len(FULL.split()), 0, -1)))
    lost = ["speech rate", "pitch variation", "sadness", "disgust", "happiness", "pausing", "loudness variation"]
    lost += ["loudness", "pitch", "anger", "surprise", "that", "expect", "not", "did"]
    for (before, after), word in zip(pairwise(texts), lost, strict=True):
        assert word in before and word not in after
    assert texts[0] == FULL
    assert texts[-1] == 'They say: "I"'
    for n in range(4, 50):
        assert len(render([WORDS, *FACE, *VOICE], most=n).split()) <= n


def test_what_is_absent_goes_before_the_first_expressions():
    cues = [*FACE[:2], Cue("sound", 0.0, "audio", 0, 2), Cue("voice", 0.0, "audio", 0, 2)]
    assert render(cues, most=6) == "The face shows strong surprise."


def test_thresholds_are_those_of_the_template():
    high = Cue("pitch", 220.0, "audio", 0, 2)
    medium, low = replace(high, value=219.9), replace(high, value=149.9)
    texts = [render([*SOUND, c], ("audio",)) for c in (low, medium, high)]
    assert [t.split()[-2] for t in texts] == ["low", "medium", "high"]
    own = make_template({"bins": {"pitch": [300, 400]}})
    assert "low pitch" in render([*SOUND, high], ("audio",), template=own)


def test_changes_change_the_text_and_the_hash():
    own = make_template({"no_face": "Nobody is there.", "names": {"happy": "joy"}})
    assert render([Cue("face", 0.0, "vision", 0, 2)], ("vision",), template=own) == "Nobody is there."
    assert "some joy" in render(FACE, ("vision",), template=own)
    hashes = {make_template(c).hash for c in (None, {"version": 2}, {"top": 2}, {"no_face": "Nobody is there."})}
    assert len(hashes) == 4
    assert make_template({}).hash == Template().hash


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"noface": "x"}, UnknownName, "template.no_face"),
        ({"face": "A face."}, BadConfig, "template.face"),
        ({"levels": ["low", "high"]}, BadConfig, "template.levels has 2 words"),
        ({"bins": {"pitch": [200, 100]}}, BadConfig, "'pitch'"),
        ({"bins": {"jitter": [1, 2]}}, BadConfig, "template.bins.jitter"),
        ({"top": 0}, BadConfig, "template.top = 0"),
        ({"top": "many"}, BadConfig, "template.top"),
    ],
)
def test_changes_that_cannot_be_are_refused(changes, error, said):
    with pytest.raises(error, match=r"(.|\n)*" + said):
        make_template(changes)
