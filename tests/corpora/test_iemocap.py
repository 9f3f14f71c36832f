from __future__ import annotations

import json
import wave
from collections import Counter

import numpy as np
import pytest

from affuse.core.errors import BadCorpus
from affuse.corpora import iemocap
from affuse.corpora.iemocap import CARD, CODES, ERC_HAPPY, ERC_VALID, PUBLISHED, import_iemocap
from affuse.corpora.manifest import make_splits

HEADER = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
# (turn, start, end, code, vad, what C-E1.. named, words); deliberately not in the order of time
TURNS = {
    "Ses01F_impro01": [
        (
            "F001", 10.01, 11.3925, "neu", (2.5, 2.5, 2.5),
            ["Neutral;", "Neutral;", "Excited; Happiness;"], "Yeah: well.",
        ),
        (
            "F000", 6.2901, 8.2357, "fru", (2.5, 3.5, 3.0),
            ["Frustration;", "Frustration; Anger;", "Neutral state;"], "Excuse me.",
        ),
        ("M000", 8.0, 9.5, "exc", (4.5, 4.0, 3.5), ["Excited;", "Excited;", "Happiness;"], "Do you\x92ve forms?"),
    ],
    "Ses01F_impro03": [("F007", 1.0, 2.0, "xxx", (4.0, 3.33, 2.33), ["Happiness;", "Neutral;", "Other;"], "Hi.")],
    "Ses03M_script03_2": [("F003", 5.0, 7.0, "sad", (1.5, 2.0, 2.0), ["Sadness;", "Sadness;", ";"], "No.")],
    "Ses05M_script01_1b": [("F003", 2.0, 3.0, "fea", (2.0, 4.0, 2.0), ["Fear;", "Fear;", "Surprise;"], "Go."),
                           ("M004", 0.5, 1.0, "ang", (5.5, 5.0, 0.5), ["Anger;", "Anger;", "Disgust;"], "Stop.")],
}  # fmt: skip


def block(dialogue, turn, start, end, code, vad, named):
    numbers = ", ".join(f"{v:.4f}" for v in vad)
    lines = [f"[{start:.4f} - {end:.4f}]\t{dialogue}_{turn}\t{code}\t[{numbers}]"]
    lines += [f"C-E{i}:\t{names}\t()" for i, names in enumerate(named, 1)]
    lines += [f"C-{turn[0]}1:\tExcited;\t()", "A-E3:\tval 2; act 4; dom  4;\t(threatening, belligerent)"]
    return "\n".join(lines) + "\n\n"


def silence(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(bytes(3200))


def release(folder, turns=TURNS, sentences=True, dialogues=True, pictures=True):
    """A miniature IEMOCAP_full_release, with the AppleDouble files, sub-folders and XX turns of the official one."""
    root = folder / "IEMOCAP_full_release"
    for dialogue, said in turns.items():
        session = root / f"Session{dialogue[4]}"
        for name in ("EmoEvaluation/Categorical", "transcriptions", "avi/DivX", "wav"):
            (session / "dialog" / name).mkdir(parents=True, exist_ok=True)
        evaluation = session / "dialog" / "EmoEvaluation"
        evaluation.joinpath(f"{dialogue}.txt").write_text(HEADER + "".join(block(dialogue, *t[:-1]) for t in said))
        evaluation.joinpath(f"._{dialogue}.txt").write_bytes(b"\0\5\x16\7")
        evaluation.joinpath("Categorical", f"{dialogue}_e1_cat.txt").write_text(f"{dialogue}_F000 :Neutral state; ()\n")
        words = [f"{dialogue}_{t[0]} [{t[1]:08.4f}-{t[2]:08.4f}]: {t[-1]}\n" for t in said]
        words += [f"{dialogue}_MXX0 [001.0000-002.0000]: Ohh.\n", "M: [LAUGHTER]\n"]
        (session / "dialog" / "transcriptions" / f"{dialogue}.txt").write_bytes("".join(words).encode("latin-1"))
        if pictures:
            (session / "dialog" / "avi" / "DivX" / f"{dialogue}.avi").write_bytes(b"RIFF")
        if dialogues:
            silence(session / "dialog" / "wav" / f"{dialogue}.wav")
        for turn in said if sentences else ():
            silence(session / "sentences" / "wav" / dialogue / f"{dialogue}_{turn[0]}.wav")
    return folder


def table(tmp_path, name="c", **options):
    return import_iemocap(tmp_path / "r", tmp_path / name, partial=True, **options).table.set_index("id")


def test_rows_are_in_the_order_of_time(tmp_path):
    release(tmp_path / "r")
    rows = table(tmp_path)
    one = rows[rows["conversation"] == "Ses01F_impro01"]
    assert list(one.index) == ["Ses01F_impro01_F000", "Ses01F_impro01_M000", "Ses01F_impro01_F001"]
    assert list(one["position"]) == [0, 1, 2]
    assert list(one["speaker"]) == ["Ses01F", "Ses01M", "Ses01F"]
    assert list(one["text"]) == ["Excuse me.", "Do you’ve forms?", "Yeah: well."]
    assert set(one["source"]) == {"Ses01"}
    other = rows.loc["Ses05M_script01_1b_M004"]
    assert (other["valence"], other["arousal"], other["dominance"]) == (5.5, 5.0, 0.5)
    assert (other["speaker"], other["gender"], other["setting"], other["position"]) == ("Ses05M", "male", "scripted", 0)
    assert not rows.index.str.contains("XX").any()


def test_the_speaker_who_wears_the_markers_is_on_the_left(tmp_path):
    release(tmp_path / "r")
    crop = table(tmp_path)["crop"]
    assert [crop[f"Ses01F_impro01_{t}"] for t in ("F000", "M000")] == ["left", "right"]
    assert [crop[f"Ses05M_script01_1b_{t}"] for t in ("F003", "M004")] == ["right", "left"]


def test_labels_of_four_and_of_six_classes(tmp_path):
    release(tmp_path / "r")
    four, six = table(tmp_path), table(tmp_path, "d", labels="iemocap-6")
    assert list(four["emotion"]) == list(six["emotion"]) == ["fru", "exc", "neu", "xxx", "sad", "ang", "fea"]
    assert list(four["label"]) == ["", "happy", "neutral", "", "sad", "angry", ""]
    assert list(six["label"]) == ["frustrated", "excited", "neutral", "", "sad", "angry", ""]


def test_votes_count_evaluators_and_never_self_reports(tmp_path):
    release(tmp_path / "r")
    four, six = table(tmp_path), table(tmp_path, "d", labels="iemocap-6")
    # neutral, happy, sad, angry, excited, frustrated; an evaluator who chose excited and happy is one vote for happy of
    # four
    assert list(six.loc["Ses01F_impro01_F001", "votes"]) == [2, 1, 0, 0, 1, 0]
    assert list(four.loc["Ses01F_impro01_F001", "votes"]) == [2, 1, 0, 0]
    assert list(six.loc["Ses01F_impro01_F000", "votes"]) == [1, 0, 0, 1, 0, 2]
    assert list(six.loc["Ses03M_script03_2_F003", "votes"]) == [0, 0, 2, 0, 0, 0]
    assert list(six.loc["Ses05M_script01_1b_F003", "votes"]) == [0] * 6
    assert set(six["evaluators"]) == {3}


def test_a_category_outside_the_list_is_reported(tmp_path):
    turns = {"Ses01F_impro01": [("F000", 1, 2, "neu", (3, 3, 3), ["Neutral;", "Puzzled; Neutral;"], "So.")]}
    release(tmp_path / "r", turns)
    corpus = import_iemocap(tmp_path / "r", tmp_path / "c", partial=True)
    assert corpus.info["warnings"] == ["evaluators named the category 'puzzled' 1 times: it counts for no class"]
    assert list(corpus.table["votes"][0]) == [2, 0, 0, 0]


def test_picture_and_sound_of_a_row_share_one_clock(tmp_path):
    release(tmp_path / "r")
    row = table(tmp_path).loc["Ses01F_impro01_F000"]
    assert row["video"].endswith("Session1/dialog/avi/DivX/Ses01F_impro01.avi")
    assert row["audio"].endswith("Session1/dialog/wav/Ses01F_impro01.wav")
    assert (row["start"], row["end"]) == (6.2901, 8.2357)
    row = table(tmp_path, "d", video=False).loc["Ses01F_impro01_F000"]
    assert row["video"] == ""
    assert row["audio"].endswith("Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav")
    assert row["start"] == 0
    assert np.isnan(row["end"])
    assert (row["dialogue_start"], row["dialogue_end"]) == (6.2901, 8.2357)


def test_dialogue_sound_is_cut_by_time_where_sentences_are_missing(tmp_path):
    release(tmp_path / "r", sentences=False, pictures=False)
    row = table(tmp_path, video=False).loc["Ses01F_impro01_M000"]
    assert row["audio"].endswith("dialog/wav/Ses01F_impro01.wav")
    assert (row["start"], row["end"]) == (8.0, 9.5)


def test_missing_parts_are_named_in_one_line_each(tmp_path, monkeypatch):
    found = Counter(d[:5] for d, said in TURNS.items() for _ in said)
    monkeypatch.setitem(CARD, "counts", dict(found))
    monkeypatch.setattr(iemocap, "PUBLISHED", {})
    root = release(tmp_path / "r") / "IEMOCAP_full_release"
    assert "partial" not in import_iemocap(root, tmp_path / "a").info
    release(tmp_path / "s", sentences=False, dialogues=False, pictures=False)
    (tmp_path / "s" / "IEMOCAP_full_release" / "Session1" / "dialog" / "transcriptions" / "Ses01F_impro03.txt").unlink()
    corpus = import_iemocap(tmp_path / "s", tmp_path / "b", partial=True)
    assert corpus.info["partial"] == [
        "utterances with words: 6 of 7",
        "utterances with sound: 0 of 7",
        "dialogues with picture: 0 of 4",
    ]
    with pytest.raises(BadCorpus, match=r"incomplete .utterances with words: 6 of 7"):
        import_iemocap(tmp_path / "s", tmp_path / "d")
    (root / "Session5" / "dialog" / "avi" / "DivX" / "Ses05M_script01_1b.avi").unlink()
    with pytest.raises(BadCorpus, match="dialogues with picture: 3 of 4") as caught:
        import_iemocap(root, tmp_path / "d")
    assert "--partial" in caught.value.remedy
    assert "partial" not in import_iemocap(root, tmp_path / "d", video=False).info


def test_five_folds_leave_one_session_out(tmp_path):
    turns = {
        f"Ses0{s}F_impro0{d}": [
            (f"{who}00{i}", i, i + 0.5, code, (3, 3, 3), [], "a") for i, code in enumerate(CODES) for who in "FM"
        ]
        for s in range(1, 6)
        for d in range(3)
    }
    release(tmp_path / "r", turns, sentences=False, dialogues=False, pictures=False)
    rows = import_iemocap(tmp_path / "r", tmp_path / "c", partial=True).table
    tested = [set(rows["source"][split == "test"]) for split in make_splits(rows, "source", 0.2, 0.2, 5, 0)]
    assert sorted(map(tuple, tested)) == [(f"Ses0{s}",) for s in range(1, 6)]


def test_published_splits(tmp_path):
    release(tmp_path / "r")
    corpus = import_iemocap(tmp_path / "r", tmp_path / "a", partial=True, split="session5", labels="iemocap-6")
    assert list(corpus.table["split"]) == ["train"] * 5 + ["test"] * 2
    assert corpus.info["overlap"] == {}
    assert "warnings" not in corpus.info
    corpus = import_iemocap(tmp_path / "r", tmp_path / "b", partial=True, split="erc", labels="iemocap-6")
    rows = corpus.table.set_index("id")
    assert list(rows["split"]) == ["train"] * 4 + ["valid"] + ["test"] * 2
    assert (rows.loc["Ses01F_impro03_F007", "label"], rows.loc["Ses01F_impro03_F007", "emotion"]) == ("happy", "xxx")
    assert "share their speakers" in corpus.info["warnings"][0]
    assert "53 utterances" in corpus.info["warnings"][1]


def test_the_random_split_of_mme2e_is_flagged(tmp_path):
    release(tmp_path / "r")
    with pytest.raises(BadCorpus, match=r"no train_split\.txt"):
        table(tmp_path, split="mme2e")
    (tmp_path / "r" / "train_split.txt").write_text("Ses01F_impro01_F000\nSes01F_impro01_F001\n")
    (tmp_path / "r" / "valid_split.txt").write_text("Ses03M_script03_2_F003\n")
    (tmp_path / "r" / "test_split.txt").write_text("Ses01F_impro01_M000\nSes05M_script01_1b_M004")
    corpus = import_iemocap(tmp_path / "r", tmp_path / "c", partial=True, split="mme2e")
    assert list(corpus.table["split"]) == ["train", "test", "train", "", "valid", "test", ""]
    assert corpus.info["warnings"] == ["split=mme2e is by utterance at random: 1 of 2 test dialogues are in train too"]
    (tmp_path / "r" / "test_split.txt").write_text("Ses01F_impro01_F000")
    with pytest.raises(BadCorpus, match="'Ses01F_impro01_F000' is no utterance, or is in two splits"):
        table(tmp_path, "d", split="mme2e")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("\tneu\t", "\tbored\t"), "emotion 'bored' of Ses01F_impro01_F001"),
        (("\tneu\t", " neu "), "is not .start - end. TURN EMOTION"),
        (("[2.5000, 2.5000, 2.5000]", "[2.5000, 2.5000]"), "is not .start - end. TURN EMOTION"),
        (("[2.5000, 2.5000, 2.5000]", "[2.5.0, 2.5000, 2.5000]"), "a number of Ses01F_impro01_F001 cannot be read"),
        (("[2.5000, 2.5000, 2.5000]", "[25.000, 2.5000, 2.5000]"), "25.000, 2.5000, 2.5000"),
        (("Ses01F_impro01_F001", "Ses09F_impro01_F001"), "unknown utterance 'Ses09F_impro01_F001'"),
        (("11.3925", "1.3925"), "utterance 'Ses01F_impro01_F001' has start 10.01 and end 1.3925"),
        (("Ses01F_impro01_F001", "Ses01F_impro01_F000"), "1 ids occur twice"),
    ],
)
def test_damaged_evaluations_are_named(tmp_path, change, error):
    release(tmp_path / "r")
    path = tmp_path / "r" / "IEMOCAP_full_release" / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt"
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(BadCorpus, match=error):
        table(tmp_path)
    assert not (tmp_path / "c").exists()


def test_no_release_and_an_incomplete_one(tmp_path):
    (tmp_path / "r").mkdir()
    with pytest.raises(BadCorpus, match="no Session1/dialog/EmoEvaluation"):
        import_iemocap(tmp_path / "r", tmp_path / "c")
    release(tmp_path / "r")
    with pytest.raises(BadCorpus, match=r"incomplete .Ses01: 4 of 1819; Ses02: 0 of 1811"):
        import_iemocap(tmp_path / "r", tmp_path / "c")


def test_a_surplus_and_changed_labels_fail(tmp_path, monkeypatch):
    release(tmp_path / "r")
    monkeypatch.setitem(CARD, "counts", {**CARD["counts"], "Ses01": 4})
    monkeypatch.setitem(PUBLISHED, "Ses01", (1, 0, 0, 1, 1, 0))
    with pytest.raises(BadCorpus, match="Ses01: 0 of 'angry', the release has 1"):
        table(tmp_path)
    monkeypatch.setitem(PUBLISHED, "Ses01", (1, 0, 0, 0, 1, 1))
    assert len(table(tmp_path)) == 7
    monkeypatch.setitem(CARD, "counts", {**CARD["counts"], "Ses01": 3})
    with pytest.raises(BadCorpus, match="4 of 'Ses01', the release has 3"):
        table(tmp_path, "d")


def test_published_counts_add_up():
    totals = dict(zip(CODES, np.sum(list(PUBLISHED.values()), axis=0).tolist(), strict=True))
    assert totals == {"neu": 1708, "hap": 595, "sad": 1084, "ang": 1103, "exc": 1041, "fru": 1849}
    assert sum(totals.values()) == 7380
    assert sum(totals.values()) - totals["fru"] == 5531
    assert sum(totals.values()) + len(ERC_HAPPY) == 7433
    assert sum(CARD["counts"].values()) == 10039


def test_the_real_labels_of_sessions_one_to_four(shared_data, tmp_path):
    data = dict(np.load(shared_data / "iemocap_conv" / "iemocap_utterances_sessions1-4.npz"))
    dialogues = json.loads((shared_data / "iemocap_conv" / "dialogues_6way_sessions1-4.json").read_text())
    ids, six, four = data["utt_id"], data["label6"], data["label4"]
    codes = np.array(["hap", "sad", "neu", "ang", "exc", "fru", "xxx"])
    official = np.where((six == 0) & (four < 0), -1, six)  # what erc calls happy has no majority in the release
    turns: dict[str, list] = {}
    for i, name in enumerate(ids):
        dialogue, _, turn = str(name).rpartition("_")
        turns.setdefault(dialogue, []).append(
            (turn, i, i + 0.5, codes[official[i]], data["vad"][i], [], str(data["text"][i]))
        )
    release(tmp_path / "r", turns, sentences=False, dialogues=False, pictures=False)

    corpus = import_iemocap(tmp_path / "r", tmp_path / "c", partial=True)
    rows = corpus.table.set_index("id").loc[ids]
    assert corpus.info["partial"] == [
        "Ses05: 0 of 2170",
        "utterances with sound: 0 of 7869",
        "dialogues with picture: 0 of 120",
    ]
    assert list(rows["label"]) == [("happy", "sad", "neutral", "angry", "")[k] for k in four]
    assert np.allclose(rows[["valence", "arousal", "dominance"]], data["vad"], atol=1e-4)
    assert rows["speaker"].nunique() == 8

    corpus = import_iemocap(tmp_path / "r", tmp_path / "d", partial=True, split="erc", labels="iemocap-6")
    rows = corpus.table.set_index("id").loc[ids]
    assert list(rows["label"]) == [("happy", "sad", "neutral", "angry", "excited", "frustrated", "")[k] for k in six]
    assert ERC_HAPPY - {"Ses05F_impro07_M010"} == set(ids[(six == 0) & (four < 0)])
    assert {k for k, v in dialogues.items() if v["split"] == "valid"} == ERC_VALID
    scored = rows[rows["label"] != ""]
    assert (len(scored), (scored["split"] == "valid").sum()) == (5810, 647)
    assert list(scored["speaker"].str[-1]) == [
        s
        for d in sorted(dialogues)
        for _, s in sorted(zip(dialogues[d]["utt_ids"], dialogues[d]["speakers"], strict=True))
    ]
