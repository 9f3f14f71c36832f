"""Folders whose file names carry the labels."""

from __future__ import annotations

import time

import pytest

from affuse.core.errors import BadConfig, BadCorpus, UnknownName
from affuse.corpora.manifest import make_splits
from affuse.corpora.named import RULES, import_named


def release(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def savee(folder, pattern="{s}_{c}{i:02d}.wav"):
    counts = dict.fromkeys(("a", "d", "f", "h", "sa", "su"), 15) | {"n": 30}
    return release(
        folder,
        *[
            pattern.format(s=s, c=c, i=i + 1)
            for s in ("DC", "JE", "JK", "KL")
            for c, n in counts.items()
            for i in range(n)
        ],
    )


def tess(folder):
    emotions = ("angry", "disgust", "fear", "happy", "neutral", "ps", "sad")
    names = [
        f"{s}_emotions/{s}_{'w' + chr(97 + i // 26) + chr(97 + i % 26)}_{e}.wav"
        for s in ("OAF", "YAF")
        for i in range(200)
        for e in emotions
    ]
    odd = names.index("OAF_emotions/OAF_waa_neutral.wav")
    names[odd] = names[odd].replace("/OAF_", "/OA_")
    return release(folder, *names)


@pytest.mark.parametrize("pattern", ["{s}_{c}{i:02d}.wav", "AudioData/{s}/{c}{i:02d}.wav"])
def test_savee_in_both_of_its_layouts(tmp_path, pattern):
    corpus = import_named(savee(tmp_path / "r", pattern), tmp_path / "c", rule="savee")
    assert len(corpus) == 480
    assert corpus.space.name == "ekman-7"
    counts = corpus.info["counts"]["all"]
    assert counts["labels"] == {
        **dict.fromkeys(("angry", "disgust", "fear", "happy", "sad", "surprise"), 60),
        "neutral": 120,
    }
    assert counts["speakers"] == counts["sources"] == 4
    assert corpus.info["warnings"] == []
    row = corpus.table[corpus.table["id"].str.endswith("JK_sa07")].iloc[0]
    assert (row["label"], row["speaker"], row["sentence"]) == ("sad", "JK", "07")
    for split in make_splits(corpus.table, "source", 0.2, 0.2, 4, 0):
        assert set(split) == {"train", "valid", "test"}


def test_tess_with_its_odd_name_and_its_second_copy(tmp_path):
    tess(tess(tmp_path / "r") / "TESS again")
    corpus = import_named(tmp_path / "r", tmp_path / "c", rule="tess")
    assert len(corpus) == 2800
    assert set(corpus.table["speaker"]) == {"OA", "YA"}
    assert set(corpus.info["counts"]["all"]["labels"].values()) == {400}
    assert corpus.info["warnings"] == ["2800 files are second copies and left out"]


def test_an_incomplete_release_needs_partial(tmp_path):
    savee(tmp_path / "r")
    (tmp_path / "r" / "KL_a01.wav").unlink()
    with pytest.raises(BadCorpus, match=r"KL: 119 of 120"):
        import_named(tmp_path / "r", tmp_path / "c", rule="savee")
    corpus = import_named(tmp_path / "r", tmp_path / "c", rule="savee", partial=True)
    assert corpus.info["partial"] == ["KL: 119 of 120"]


@pytest.mark.parametrize(
    ("rule", "name", "wanted"),
    [
        ("shemo", "female/F01A02.wav", {"speaker": "F01", "label": "angry", "gender": "F"}),
        ("shemo", "M12W30.wav", {"speaker": "M12", "label": "surprise", "sentence": "30"}),
        ("aesdd", "anger/a03 (4).wav", {"speaker": "4", "label": "angry", "sentence": "03"}),
        ("emovo", "f1/gio-f1-b2.wav", {"speaker": "f1", "label": "happy", "sentence": "b2"}),
        ("cafe", "08-P-2-6.wav", {"speaker": "08", "label": "fear", "intensity": "2"}),
        ("subesco", "F_02_OISHI_S_1_ANGRY_5.wav", {"speaker": "F_02", "label": "angry", "take": "5"}),
    ],
)
def test_names_of_other_releases(tmp_path, rule, name, wanted):
    corpus = import_named(release(tmp_path / "r", name), tmp_path / "c", rule=rule)
    row = corpus.table.iloc[0]
    assert {k: row[k] for k in wanted} == wanted
    assert corpus.info["language"] == RULES[rule].language
    assert bool(corpus.info["warnings"]) == (rule != "aesdd")


def test_an_own_pattern_with_own_columns(tmp_path):
    release(
        tmp_path / "r", "x/anna_h_2.wav", "x/anna_h_2.mp4", "y/bert_w_1.ogg", "y/notes.wav", "y/.hidden_h_1.wav",
        "readme.txt",
    )
    corpus = import_named(
        tmp_path / "r",
        tmp_path / "c",
        pattern=r"(?P<speaker>[a-z]+)_(?P<label>[a-z])_(?P<intensity>\d)",
        labels="h=happy, w=angry",
        name="mine",
    )
    table = corpus.table.set_index("id")
    assert list(table["label"]) == ["happy", "angry"]
    assert list(table["intensity"]) == ["2", "1"]
    assert table.loc["anna_h_2", "video"].endswith(".mp4")
    assert table.loc["anna_h_2", "audio"].endswith(".wav")
    assert corpus.info["warnings"] == ["1 of 4 files are not named by the rule and left out: y/notes.wav"]


def test_a_pattern_with_a_slash_sees_the_folders(tmp_path):
    release(tmp_path / "r", "anna/happy/1.wav", "bert/happy/1.wav", "bert/sad/1.wav")
    corpus = import_named(tmp_path / "r", tmp_path / "c", pattern=r"(?P<speaker>\w+)/(?P<label>\w+)/\d+")
    assert list(corpus.table["id"]) == ["anna_happy_1", "bert_happy_1", "bert_sad_1"]
    assert list(corpus.table["speaker"]) == ["anna", "bert", "bert"]


def test_recordings_of_one_name_and_size_are_copies_only_if_their_content_is(tmp_path):
    release(tmp_path / "r", "anna/happy1.wav", "bert/happy1.wav")
    for name, sound in (("anna", b"1234"), ("bert", b"4321")):
        (tmp_path / "r" / name / "happy1.wav").write_bytes(sound)
    corpus = import_named(tmp_path / "r", tmp_path / "c", pattern=r"(?P<label>[a-z]+)\d")
    assert list(corpus.table["id"]) == ["anna_happy1", "bert_happy1"]


def test_names_without_speakers_are_said(tmp_path):
    corpus = import_named(
        release(tmp_path / "r", "happy1.wav", "sad1.wav"), tmp_path / "c", pattern=r"(?P<label>[a-z]+)\d"
    )
    assert any("no speaker" in w for w in corpus.info["warnings"])


def test_names_that_are_no_text_are_left_out(tmp_path):
    release(tmp_path / "r", "happy1.wav", "sad\udcff1.wav")
    corpus = import_named(tmp_path / "r", tmp_path / "c", pattern=r"(?P<label>.+)\d")
    assert len(corpus) == 1
    assert r"sad\udcff1.wav" in corpus.info["warnings"][0]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({}, BadConfig, "either rule= or pattern="),
        ({"rule": "savee", "pattern": "(?P<label>.)"}, BadConfig, "either"),
        ({"rule": "saveee"}, UnknownName, "saveee"),
        ({"rule": "savee"}, BadCorpus, "none of the 2 files is named like"),
        ({"pattern": "(?P<label>[a-z]+"}, BadConfig, "no regular expression"),
        ({"pattern": "(?P<label>a{99999999999999999999})"}, BadConfig, "no regular expression"),
        ({"pattern": "[a-z]+"}, BadConfig, "groups none"),
        ({"pattern": "(?P<label>[a-z]+)(?P<video>.*)"}, BadConfig, "video"),
        ({"pattern": "(?P<label>[A-Z]+)"}, BadCorpus, r"none of the 2 files.*happy_aaa.*\.wav"),
        ({"pattern": "(?P<label>[a-z]+)_.*", "labels": "happy"}, BadConfig, "code=label"),
        ({"pattern": "(?P<label>[a-z]+)_.*", "labels": "happy=joy"}, BadCorpus, "'sad' means"),
        ({"pattern": "(?P<label>[a-z]+)_.*", "space": "nonsense"}, UnknownName, "nonsense"),
        ({"pattern": "(?P<label>[a-z]+)_.*", "space": "compound-7"}, BadCorpus, "happy"),
        ({"pattern": "(?P<label>[a-z]+)_(?P<position>.*)"}, BadCorpus, "not numeric"),
        ({"pattern": "(?P<label>[a-z]+)_(?P<split>.).*"}, BadCorpus, "unknown split"),
        ({"pattern": "(?P<label>[a-z]+)_(?P<id>.).*"}, BadCorpus, "twice"),
    ],
)
def test_wrong_options(tmp_path, options, error, says):
    release(tmp_path / "r", f"happy_{'a' * 40}1.wav", f"sad_{'a' * 40}2.wav")
    with pytest.raises(error, match=says):
        import_named(tmp_path / "r", tmp_path / "c", **options)
    assert not (tmp_path / "c").exists()


def test_a_pattern_that_never_ends_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("affuse.corpora.named._LIMIT", 1.0)
    release(tmp_path / "r", f"{'a' * 40}1.wav")
    start = time.monotonic()
    with pytest.raises(BadConfig, match="does not end"):
        import_named(tmp_path / "r", tmp_path / "c", pattern=r"(?P<label>(a+)+)$")
    assert time.monotonic() - start < 5


def test_the_command_line(tmp_path, capsys):
    from affuse.cli.app import main

    release(tmp_path / "r", "anna_h.wav", "bert_w.wav")
    options = ["pattern=(?P<speaker>[a-z]+)_(?P<label>[a-z])", "labels=h=happy,w=angry"]
    assert main(["import", "named", str(tmp_path / "r"), str(tmp_path / "c"), *options]) == 0
    assert "angry 1, happy 1" in capsys.readouterr().out
