from __future__ import annotations

import json

import pandas as pd
import pytest

from affuse.core.errors import BadCorpus
from affuse.core.labels import canonical
from affuse.corpora.emorynlp import CARD, CSV, EMOTIONS, JSON, PUBLISHED, TIMED, import_emorynlp

HEADER = "Utterance,Speaker,Emotion,Scene_ID,Utterance_ID,Season,Episode,Start_Time,End_Time\n"
LINES = {
    "train": "\"Yeah, right!\",['Joey Tribbiani'],Neutral,1,2,1,2,00:00:04.504,00:00:07.548\n"
    "\"Oh, yeah!\",\"[\"\"Joey's Co-Star\"\", 'Phoebe Buffay']\",Joyful,1,3,1,2,00:00:07.924,00:00:09.508\n",
    "valid": "Coffee.,['Rachel Green'],Scared,1,1,1,15,00:00:03.795,00:00:05.004\n",
    "test": "Fine.,['Ross Geller'],Powerful,2,1,1,1,00:00:03.795,00:00:05.004\n",
}


def csv_release(folder, splits=("train", "valid", "test")):
    folder.mkdir(parents=True, exist_ok=True)
    for split in splits:
        (folder / CSV[split]).write_text(HEADER + LINES[split], encoding="utf-8")
    return folder


def json_release(folder):
    """The same scenes as in the csv files, as episodes of scenes of utterances, and one utterance without times."""
    folder.mkdir(parents=True, exist_ok=True)

    def utterance(name, speakers, text, emotion):
        return {
            "utterance_id": name, "speakers": speakers, "transcript": text, "tokens": [text.split()],
            "emotion": emotion,
        }

    def episodes(*utterances):
        name = utterances[0]["utterance_id"][:7]
        return {
            "episodes": [{"episode_id": name, "scenes": [{"scene_id": f"{name}_c01", "utterances": list(utterances)}]}]
        }

    content = {
        "train": episodes(
            utterance("s01_e02_c01_u001", ["Monica Geller"], "What?", "Mad"),
            utterance("s01_e02_c01_u002", ["Joey Tribbiani"], "Yeah, right!", "Neutral"),
            utterance("s01_e02_c01_u003", ["Joey's Co-Star", "Phoebe Buffay"], "Oh, yeah!", "Joyful"),
        ),
        "valid": episodes(utterance("s01_e15_c01_u001", ["Rachel Green"], "Coffee.", "Scared")),
        "test": episodes(utterance("s01_e01_c02_u001", ["Ross Geller"], "Fine.", "Powerful")),
    }
    for split, value in content.items():
        (folder / JSON[split]).write_text(json.dumps(value), encoding="utf-8")
    return folder


def test_csv_files(tmp_path):
    corpus = import_emorynlp(csv_release(tmp_path / "r"), tmp_path / "c", partial=True)
    table = corpus.table
    assert list(table["id"]) == ["s01_e02_c01_u002", "s01_e02_c01_u003", "s01_e15_c01_u001", "s01_e01_c02_u001"]
    assert list(table["label"]) == ["neutral", "happy", "fear", "powerful"]
    assert list(table["split"]) == ["train", "train", "valid", "test"]
    assert list(table["position"]) == [2, 3, 1, 1]
    assert (table["speaker"][1], table["conversation"][1], table["source"][1]) == (
        "Joey's Co-Star + Phoebe Buffay",
        "s01_e02_c01",
        "s01_e02",
    )
    assert table["episode_start"][0] == pytest.approx(4.504)
    assert table["end"].isna().all()


def test_json_files_are_preferred_and_have_the_same_ids(tmp_path):
    json_release(csv_release(tmp_path / "r"))
    corpus = import_emorynlp(tmp_path / "r", tmp_path / "c", partial=True)
    other = import_emorynlp(csv_release(tmp_path / "s"), tmp_path / "d", partial=True)
    assert len(corpus) == 5
    assert "train: 3 of 9934" in corpus.info["partial"]
    both = corpus.table.merge(other.table, on="id", suffixes=("", "_csv"))
    assert len(both) == 4
    for column in ("text", "label", "speaker", "conversation", "source", "split", "position"):
        assert list(both[column]) == list(both[f"{column}_csv"])


def test_a_missing_split_needs_partial(tmp_path):
    with pytest.raises(BadCorpus, match=r"incomplete.*test: 0 of 1328"):
        import_emorynlp(csv_release(tmp_path / "r", ("train", "valid")), tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("name", "change", "error"),
    [
        (JSON["valid"], ("utterance_id", "utterance"), "incomplete|not a file"),
        (JSON["valid"], ("emotion", "feeling"), "emotion"),
        (JSON["valid"], ("s01_e15_c01_u001", "one"), "not a file of EmoryNLP"),
        (JSON["valid"], ("{", ""), "not readable JSON"),
        (JSON["valid"], ('"s01_e15_c01_u001"', "null"), "not a file of EmoryNLP"),
        (JSON["valid"], ('["Rachel Green"]', '"Rachel Green"'), "not a list of names"),
        (JSON["valid"], ('["Rachel Green"]', "[null]"), "not a list of names"),
        (CSV["valid"], ("['Rachel Green']", "'Rachel Green'"), "not a list of names"),
        (CSV["valid"], ("['Rachel Green']", "7"), "not a list of names"),
        (CSV["valid"], ("['Rachel Green']", "Rachel Green"), "not a list"),
        (CSV["valid"], ("Scene_ID", "Scene"), "no column 'Scene_ID'"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, change, error):
    (json_release if name.endswith("json") else csv_release)(tmp_path / "r")
    path = tmp_path / "r" / name
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(BadCorpus, match=error):
        import_emorynlp(tmp_path / "r", tmp_path / "c")


def test_published_labels_add_up():
    assert {s: sum(v) for s, v in PUBLISHED.items()} == CARD["counts"]
    assert all(a <= b for s in TIMED for a, b in zip(TIMED[s], PUBLISHED[s], strict=True))


def test_the_real_label_files(shared_data, tmp_path):
    src = shared_data / "meld_text"
    corpus = import_emorynlp(src, tmp_path / "c", partial=True)
    assert len(corpus.info["partial"]) == 1
    for split, name in (("train", "emorynlp_train_final.csv"), ("valid", "emorynlp_dev_final.csv")):
        theirs = pd.read_csv(src / "emorynlp" / name)
        ours = corpus.table[corpus.table["split"] == split]
        assert [canonical(e) for e in theirs["Emotion"]] == list(ours["label"])
        counted = ours["label"].value_counts()
        assert tuple(counted[e] for e in EMOTIONS) == TIMED[split]
    assert corpus.info["counts"]["train"]["sources"] == 77
    assert corpus.info["counts"]["valid"]["sources"] == 11
    assert list(corpus.info["overlap"]) == ["speaker"]
    assert corpus.table["conversation"].nunique() == 659 + 89
