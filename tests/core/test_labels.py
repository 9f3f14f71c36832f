from __future__ import annotations

import pytest

from affuse.core.errors import BadCorpus, UnknownName
from affuse.core.labels import SPACES, canonical, infer_space, map_by_name, space


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("Joy", "happy"),
        ("ANG", "angry"),
        (" Sadness ", "sad"),
        ("fearful", "fear"),
        ("surprised", "surprise"),
        ("exc", "excited"),
    ],
)
def test_spellings(spelling, name):
    assert canonical(spelling) == name


def test_index_accepts_spellings_and_names_the_closest():
    assert SPACES["meld-7"].index("joy") == SPACES["meld-7"].labels.index("happy")
    with pytest.raises(BadCorpus, match="angr") as caught:
        SPACES["meld-7"].index("angrr")
    assert "angry" in caught.value.remedy
    assert "--label CLASS=angrr" in caught.value.remedy


def test_mapping_is_by_name_never_by_order():
    index, missing, extra = map_by_name(SPACES["crema-d-6"], SPACES["ekman-7"])
    names = [SPACES["ekman-7"].labels[i] for i in index]
    assert names == list(SPACES["crema-d-6"].labels)
    assert missing == ["surprise"]
    assert extra == []


def test_calm_counts_as_neutral_where_the_corpus_has_no_calm():
    index, missing, _ = map_by_name(SPACES["ravdess-8"], SPACES["emodb-7"])
    assert index[SPACES["ravdess-8"].labels.index("calm")] == SPACES["emodb-7"].labels.index("neutral")
    assert missing == ["boredom"]


def test_infer_space():
    assert infer_space(["joy", "sadness", "neutral", "anger"]).name == "iemocap-4"
    assert infer_space(["b", "a"]).labels == ("a", "b")
    with pytest.raises(UnknownName):
        space("ekman7")
