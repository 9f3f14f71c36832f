from __future__ import annotations

import json
import pickle

import numpy as np
import pandas as pd
import pytest

from affuse.core.errors import BadCorpus, BadFeatures
from affuse.core.labels import SPACES
from affuse.corpora.manifest import make_splits
from affuse.corpora.mustard import CARD, import_mustard

LINE = "Was he the one who made you eat your arm hair?"


def item(utterance, speaker, context, show, sarcasm):
    return {
        "utterance": utterance,
        "speaker": speaker,
        "context": [words for _, words in context],
        "context_speakers": [name for name, _ in context],
        "show": show,
        "sarcasm": sarcasm,
    }


ITEMS = {
    "1_60": item("It's a privilege.", "SHELDON", [("LEONARD", "My apologies."), ("PERSON", LINE)], "BBT", True),
    "1_70": item(LINE, "PENNY", [("PERSON", "Thank you.")], "BBT", False),
    "1_80": item("Cool tiger.", "PENNY", [("RAJ", "Thank you.")], "BBT", False),
    "2_10": item("Yeah, right!", "CHANDLER", [("JOEY", "Thank\nyou.")], "FRIENDS", True),
    "2_20": item("No.", "DOROTHY", [("ROSE", LINE)], "GOLDENGIRLS", True),
}
PLUS = """\
SCENE,KEY,SENTENCE,END_TIME,SPEAKER,SHOW,Sarcasm,Sarcasm_Type,Implicit_Emotion,Explicit_Emotion,Valence,Arousal
1_S09E01_027,1_S09E01_027_c_0,Hello.,0:01,-,BBT,,,,,,
1_S09E01_027,1_S09E01_027_u,"Oh,
great.",0:02.43,SHELDON,BBT,1,PRO,Ridicule,Happiness,3,7
1_S09E01_039,1_S09E01_039_c_0,Well.,0:01,MONICA,0,,,,,,
1_S09E01_039,Disgust,Fine.,0:02,RAJ,BBT,0,NONE,Frustration,Frustration,,5
2_5,2_5_c_00,Well.,0:01,MONICA,FRIENDS,,,,,,
2_5,2_5_u,Fine.,0:02,ROSS,FRIENDS,0,NONE,Neutral,Neutral,5,5
"""


def release(folder, items=ITEMS, clips=True):
    """MUStARD as published: the json file and the two folders of clips."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sarcasm_data.json").write_text(json.dumps(items))
    for place, name in (("utterances_final", "{}.mp4"), ("context_final", "{}_c.mp4")):
        (folder / place).mkdir(exist_ok=True)
        for key in items if clips else ():
            (folder / place / name.format(key)).touch()
    return folder


def plus_release(folder, text=PLUS):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mustard++_text.csv").write_text(text)
    return folder


def test_items_are_conversations(tmp_path):
    corpus = import_mustard(release(tmp_path / "r"), tmp_path / "c", partial=True)
    table = corpus.table.set_index("id")
    assert corpus.space is SPACES["sarcasm-2"]
    assert list(table.index[:3]) == ["1_60_c00", "1_60_c01", "1_60"]
    assert list(table["position"][:3]) == [0, 1, 2]
    assert list(table["label"][:3]) == ["", "", "sarcastic"]
    assert list(table["speaker"][:3]) == ["BBT LEONARD", "PERSON of 1_60", "BBT SHELDON"]
    assert set(table["conversation"][:3]) == {"1_60"}
    assert table.loc["2_10_c00", "text"] == "Thank you."
    assert table.loc["1_60", "video"].endswith("utterances_final/1_60.mp4")
    assert table.loc["1_60_c00", "video"] == ""  # the release cuts the context no finer than one clip
    assert corpus.info["partial"] == ["sarcastic: 3 of 345", "sincere: 2 of 345"]


def test_scenes_share_a_telling_line_and_a_show(tmp_path):
    table = import_mustard(release(tmp_path / "r"), tmp_path / "c", partial=True).table.set_index("id")
    assert table.loc["1_60", "source"] == table.loc["1_70", "source"] == "bbt 1_60"
    assert table.loc["1_80", "source"] == "bbt 1_80"
    assert table.loc["2_20", "source"] == "goldengirls 2_20"


def test_the_published_split_is_by_show(tmp_path):
    corpus = import_mustard(release(tmp_path / "r"), tmp_path / "c", partial=True)
    assert set(corpus.table.loc[corpus.table["split"] == "test", "show"]) == {"FRIENDS"}
    assert corpus.info["overlap"] == {}
    assert set(import_mustard(tmp_path / "r", tmp_path / "d", partial=True, split="none").table["split"]) == {""}


def test_the_context_as_a_clip_or_left_out(tmp_path):
    src = release(tmp_path / "r")
    table = import_mustard(src, tmp_path / "c", partial=True, context="clip").table.set_index("id")
    assert table.loc["1_60_c", "video"].endswith("context_final/1_60_c.mp4")
    assert table.loc["1_60_c", "text"] == f"My apologies. {LINE}"
    assert (table.loc["1_60_c", "label"], table.loc["1_60", "position"]) == ("", 1)
    assert len(import_mustard(src, tmp_path / "d", partial=True, context="none").table) == len(ITEMS)


def test_missing_clips_need_partial(tmp_path, monkeypatch):
    monkeypatch.setitem(CARD["counts"], "mustard", {"sarcastic": 3, "sincere": 2})
    src = release(tmp_path / "r")
    assert "partial" not in import_mustard(src, tmp_path / "c").info
    assert "partial" not in import_mustard(release(tmp_path / "s", clips=False), tmp_path / "c").info
    (src / "context_final" / "2_10_c.mp4").unlink()
    with pytest.raises(BadCorpus, match=r"clips: incomplete .contexts: 4 of 5"):
        import_mustard(src, tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_published_folds(tmp_path, monkeypatch):
    monkeypatch.setitem(CARD["counts"], "mustard", {"sarcastic": 3, "sincere": 2})
    src = release(tmp_path / "r", clips=False)
    tests = [[0, 3], [1], [2, 4]]
    folds = [(np.setdiff1d(np.arange(5), t), np.array(t)) for t in tests]
    (src / "split_indices.p").write_bytes(pickle.dumps(folds, protocol=2))
    corpus = import_mustard(src, tmp_path / "c", split="folds")
    assert corpus.table.groupby("conversation")["fold"].unique().map(list).to_dict() == {
        "1_60": [0], "1_70": [1], "1_80": [2], "2_10": [0], "2_20": [2],
    }  # fmt: skip
    assert "optimistic" in corpus.info["warnings"][0]
    for k, split in enumerate(make_splits(corpus.table, "source", 0.0, 0.2, 3, 0)):
        assert ((split == "test") == (corpus.table["fold"] == k)).all()


@pytest.mark.parametrize(
    ("content", "error", "kind"),
    [
        (None, "no split_indices.p", BadCorpus),
        (pickle.dumps([(np.arange(4), np.arange(2))]), "not of these 5 items", BadCorpus),
        (pickle.dumps([1, 2]), "holds no folds", BadCorpus),
        (b"no pickle", "damaged or not a pickle", BadFeatures),
    ],
)
def test_damaged_folds(tmp_path, content, error, kind):
    src = release(tmp_path / "r", clips=False)
    if content is not None:
        (src / "split_indices.p").write_bytes(content)
    with pytest.raises(kind, match=error):
        import_mustard(src, tmp_path / "c", partial=True, split="folds")


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("{", "not readable JSON"),
        ("[]", "not MUStARD's file"),
        (json.dumps({"a": {**ITEMS["1_60"], "sarcasm": "maybe"}}), "maybe"),
        (json.dumps({"a": {**ITEMS["1_60"], "context": ["one"]}}), "not MUStARD's file"),
        (json.dumps({"a": {**ITEMS["1_60"], "utterance": None}}), "not MUStARD's file"),
        (json.dumps({"a": {k: v for k, v in ITEMS["1_60"].items() if k != "show"}}), "show"),
        (json.dumps({"a": {**ITEMS["1_60"], "speaker": None}}), "a speaker or the show of a is not a text"),
        (json.dumps({"a": {**ITEMS["1_60"], "show": 7}}), "a speaker or the show of a is not a text"),
        (json.dumps({f"1_{i}": ITEMS["1_60"] for i in range(346)}), "346 of 'sarcastic', the release has 345"),
    ],
)
def test_damaged_json(tmp_path, content, error):
    (tmp_path / "sarcasm_data.json").write_text(content)
    with pytest.raises(BadCorpus, match=error):
        import_mustard(tmp_path, tmp_path / "c", partial=True)


def test_an_incomplete_release_needs_partial(tmp_path):
    with pytest.raises(BadCorpus, match=r"incomplete .sarcastic: 3 of 345"):
        import_mustard(release(tmp_path / "r"), tmp_path / "c")


def test_plus(tmp_path):
    src = plus_release(tmp_path / "r")
    for name in ("1_S09E01_027_u", "1_S09E01_027_c"):
        (src / f"{name}.mp4").touch()
    corpus = import_mustard(src, tmp_path / "c", partial=True, release="mustard++")
    table = corpus.table.set_index("id")
    said = table.loc["1_S09E01_027"]
    assert (said["label"], said["text"], said["sarcasm_type"]) == ("sarcastic", "Oh, great.", "pro")
    assert (said["implicit_emotion"], said["explicit_emotion"]) == ("ridicule", "happy")
    assert (said["valence"], said["arousal"]) == (3.0, 7.0)
    assert said["video"].endswith("1_S09E01_027_u.mp4")
    assert table.loc["1_S09E01_027_c00", "speaker"] == ""
    assert table.loc["1_S09E01_027_c00", "implicit_emotion"] == ""
    assert np.isnan(table.loc["1_S09E01_039", "valence"])
    assert (table.loc["1_S09E01_039_c00", "show"], table.loc["1_S09E01_039_c00", "speaker"]) == ("BBT", "BBT MONICA")
    assert said["source"] == table.loc["1_S09E01_039", "source"] == "bbt 1_S09E01_027"  # one episode
    assert "clips of utterances: 1 of 3" in corpus.info["partial"]
    assert corpus.info["overlap"] == {}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("Sarcasm_Type", "Type"), "no column 'Sarcasm_Type'"),
        (("BBT,1,PRO", "BBT,2,PRO"), "scene 1_S09E01_027 does not end in its one labelled line"),
        (("BBT,1,PRO", "BBT,,PRO"), "does not end in its one labelled line"),
        (("-,BBT,,", "-,BBT,1,"), "does not end in its one labelled line"),
        (("Happiness,3,7", "Happiness,30,7"), "'30' of scene 1_S09E01_027 is not on the scale"),
        (("Happiness,3,7", "Happiness,low,7"), "'low' of scene"),
    ],
)
def test_damaged_plus(tmp_path, change, error):
    assert change[0] in PLUS
    with pytest.raises(BadCorpus, match=error):
        import_mustard(
            plus_release(tmp_path / "r", PLUS.replace(*change)), tmp_path / "c", partial=True, release="mustard++"
        )


def test_the_real_files(shared_data, tmp_path):
    src = shared_data / "mustard_text"
    corpus = import_mustard(src, tmp_path / "c")
    said = corpus.table[corpus.table["label"] != ""].set_index("id")
    theirs = json.loads((src / "sarcasm_data.json").read_text())
    assert dict(said["label"]) == {k: "sarcastic" if v["sarcasm"] else "sincere" for k, v in theirs.items()}
    assert said.groupby(["show", "label"]).size().to_dict() == {
        ("BBT", "sarcastic"): 140, ("BBT", "sincere"): 140, ("FRIENDS", "sarcastic"): 152, ("FRIENDS", "sincere"): 204,
        ("GOLDENGIRLS", "sarcastic"): 39, ("GOLDENGIRLS", "sincere"): 1, ("SARCASMOHOLICS", "sarcastic"): 14,
    }  # fmt: skip
    assert len(corpus) == 690 + sum(len(v["context"]) for v in theirs.values())
    assert said["source"].nunique() == 674
    assert corpus.info["overlap"] == {}


def test_the_real_files_of_plus(shared_data, tmp_path):
    src = shared_data / "mustard_text"
    corpus = import_mustard(src, tmp_path / "c", release="mustard++")
    said = corpus.table[corpus.table["label"] != ""].set_index("id")
    assert said["label"].value_counts().to_dict() == {"sarcastic": 601, "sincere": 601}
    table = pd.read_csv(src / "mustard++_text.csv", dtype=str, keep_default_na=False)
    theirs = table[table["Sarcasm"] != ""].set_index("SCENE")
    assert len(corpus) == len(table)
    assert said["valence"].tolist() == theirs["Valence"].astype(float).loc[said.index].tolist()
    assert set(said["implicit_emotion"]) == set(SPACES["mustard-10"].labels)
    assert set(said["explicit_emotion"]) < set(SPACES["mustard-10"].labels)
    assert corpus.info["overlap"] == {}
    both = json.loads((src / "sarcasm_data.json").read_text())
    assert all((said["label"][k] == "sarcastic") == v["sarcasm"] for k, v in both.items() if k in said.index)
