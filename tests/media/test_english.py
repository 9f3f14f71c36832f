from __future__ import annotations

import pytest

from affuse.media.english import is_english


@pytest.mark.parametrize(
    "text", ["", "Yeah.", "Bonjour!", "I don’t know what to say to you", "ich", "OH MY GOD, look at that!"]
)
def test_english_or_too_short_to_tell(text: str) -> None:
    assert is_english(text)


@pytest.mark.parametrize(
    "text",
    [
        "Я не знаю, что тебе сказать",
        "我不知道该说什么",
        "Das kann doch nicht wahr sein, ich glaube dir kein Wort mehr",
        "Je ne sais pas quoi te dire aujourd'hui",
        "No sé qué decirte, estoy muy contento de verte",
    ],
)
def test_other_languages_are_recognised(text: str) -> None:
    assert not is_english(text)


def test_real_dialogue_is_english(shared_data) -> None:
    import pandas as pd

    said = pd.read_csv(next((shared_data / "meld_text" / "MELD").rglob("dev_sent_emo.csv")))["Utterance"]
    assert said.map(is_english).mean() > 0.97
