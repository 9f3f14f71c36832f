"""Tables as people bring them: words that look like missing cells, other names, times, quotes, numbers, paths."""

from __future__ import annotations

import unicodedata
import wave

import numpy as np
import pandas as pd
import pytest

from affuse.cli.app import main
from affuse.core.errors import AffuseError, BadCorpus, MissingFile
from affuse.core.tasks import Task
from affuse.corpora.manifest import Corpus
from affuse.corpora.table import import_table
from affuse.training.data import Dataset


def write(tmp_path, text, name="t.csv", encoding="utf-8"):
    (tmp_path / name).write_bytes(text.encode(encoding))
    return tmp_path / name


def load(tmp_path, text, name="t.csv", encoding="utf-8", **options):
    return import_table(write(tmp_path, text, name, encoding), tmp_path / "c", **options)


def sound(path, seconds=2.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(np.zeros(int(seconds * 8000), "<i2").tobytes())


def said(corpus):
    return "\n".join(corpus.info.get("warnings", []))


WORDS = ["NA", "null", "None", "n/a", "NaN", "nan", "N/A", "NULL", "#N/A", "<NA>"]


@pytest.mark.parametrize("column", ["id", "speaker", "source", "conversation", "text"])
def test_words_for_nothing_are_values_and_only_an_empty_cell_is_absent(tmp_path, column):
    others = [] if column == "id" else ["id"]
    lines = [
        ",".join([word, *(f"u{i}" for _ in others), "sad"])
        for i, word in enumerate([*WORDS, *([] if column == "id" else [""])])
    ]
    corpus = load(tmp_path, "\n".join([",".join([column, *others, "label"]), *lines]))
    assert list(corpus.table[column])[: len(WORDS)] == WORDS
    if others:
        assert corpus.table[column].iloc[-1] == ("u10" if column == "source" else "")


def test_words_for_nothing_are_labels_and_further_texts_and_no_numbers(tmp_path):
    corpus = load(tmp_path, "id,label,start,end,region,arousal\na,none,NA,2,NA,0.5\nb,sad,1,null,EU,n/a\n")
    assert list(corpus.table["label"]) == ["none", "sad"]
    assert list(corpus.table["region"]) == ["NA", "EU"]
    assert corpus.table["start"].tolist() == [0, 1]
    assert np.isnan(corpus.table["end"].iloc[1])
    assert corpus.table["arousal"].dtype == float


def test_a_null_of_parquet_is_absent_and_its_words_are_values(tmp_path):
    frame = pd.DataFrame({"id": ["a", "b"], "label": ["sad", "happy"], "speaker": [None, "NA"]})
    frame.to_parquet(tmp_path / "t.parquet")
    assert list(import_table(tmp_path / "t.parquet", tmp_path / "c").table["speaker"]) == ["", "NA"]
    frame.set_index("id").to_parquet(tmp_path / "t.parquet")
    assert list(import_table(tmp_path / "t.parquet", tmp_path / "c").table["id"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("theirs", "ours", "value", "found"),
    [
        ("Label", "label", "sad", "sad"),
        ("EMOTION", "label", "Sad", "sad"),
        ("emotion label", "label", "sad", "sad"),
        ("sentiment", "label", "positive", "positive"),
        ("Speaker_ID", "speaker", "NA", "NA"),
        ("participant", "speaker", "7", "7"),
        ("Dialogue_ID", "conversation", "3", "3"),
        ("Utterance", "text", "well then", "well then"),
        ("transcript", "text", "well then", "well then"),
        ("start_time", "start", "1.5", 1.5),
        ("Begin (s)", "start", "00:00:01.5", 1.5),
        ("onset", "start", "1.5", 1.5),
        ("start_ms", "start", "1500", 1.5),
        ("stop", "end", "3", 3.0),
        ("EndTime", "end", "0:03", 3.0),
        ("Partition", "split", "Train", "train"),
    ],
)
def test_case_and_synonyms_of_columns_are_taken_and_said(tmp_path, theirs, ours, value, found):
    corpus = load(tmp_path, f"id,{theirs}\na,{value}\n")
    assert corpus.table[ours].iloc[0] == found
    assert f"'{theirs}' as {ours}" in said(corpus)


def test_two_candidates_are_asked_about_and_map_wins(tmp_path):
    text = "id,Emotion,target,x\na,sad,happy,angry\n"
    with pytest.raises(BadCorpus, match="2 columns that may be the label: Emotion, target") as caught:
        load(tmp_path, text)
    assert "--map label=Emotion or --map label=target" in caught.value.remedy
    assert list(load(tmp_path, text, columns={"label": "x"}).table["label"]) == ["angry"]
    assert list(load(tmp_path, "id,label,Emotion\na,sad,happy\n").table["label"]) == ["sad"]


def test_what_is_not_used_is_named_and_a_corpus_without_labels_says_so(tmp_path):
    corpus = load(tmp_path, "id,text,gefuehl\na,hello,sad\n")
    assert "gefuehl" in said(corpus)
    assert "no column of labels" in said(corpus)
    assert "--map label=gefuehl" in said(corpus)
    assert "warnings" not in load(tmp_path, "id,text,label\na,hello,sad\n").info


def test_ids_that_are_numbers_within_a_dialogue_are_no_ids(tmp_path):
    corpus = load(tmp_path, "Dialogue_ID,Utterance_ID,Utterance,Emotion\n0,0,a,joy\n0,1,b,joy\n1,0,c,anger\n")
    assert list(corpus.table["id"]) == ["u000000", "u000001", "u000002"]
    assert list(corpus.table["position"]) == [0, 1, 0]


@pytest.mark.parametrize("column", ["file", "path", "Filename", "clip"])
def test_a_column_of_files_is_audio_or_video_by_what_it_names(tmp_path, column):
    sound(tmp_path / "a.wav")
    (tmp_path / "b.MP4").touch()
    corpus = load(tmp_path, f"{column},emotion\na.wav,sad\nb.MP4,happy\n")
    assert [bool(v) for v in corpus.table["audio"]] == [True, False]
    assert corpus.table["video"].str.endswith("b.MP4").tolist() == [False, True]
    assert "audio in 1 of 2 rows" in said(corpus)


def test_files_of_no_telling_name_are_looked_into_or_asked_about(tmp_path):
    sound(tmp_path / "take1")
    assert load(tmp_path, "file,label\ntake1,sad\n").table["audio"].iloc[0].endswith("take1")
    (tmp_path / "take2").write_bytes(b"nothing")
    with pytest.raises(BadCorpus, match="audio or video") as caught:
        load(tmp_path, "file,label\ntake2,sad\n")
    assert "--map audio=file or --map video=file" in caught.value.remedy


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [
        ("1000", "1900", "look like milliseconds"),
        ("1000", "30000", "look like milliseconds"),
        ("0.5", "2.5", "lasts 2 s"),
        ("2.0", "", "lasts 2 s"),
        ("5", "6", "1 of 2 rows"),
    ],
)
def test_times_outside_their_file_are_refused_with_the_row(tmp_path, start, end, words):
    sound(tmp_path / "a.wav")
    first = "100,200" if "milli" in words else "0,1"
    with pytest.raises(BadCorpus, match=rf"row 2 \(utterance 'b'\).*{words}" if "milli" not in words else words):
        load(tmp_path, f"id,audio,label,start,end\na,a.wav,sad,{first}\nb,a.wav,sad,{start},{end}\n")
    assert not (tmp_path / "c").exists()


def test_a_rounded_end_is_clipped_and_each_file_is_opened_once(tmp_path, monkeypatch):
    from affuse.corpora.reading import media_paths

    opened = []
    probe = media_paths.probe
    monkeypatch.setattr(media_paths, "probe", lambda path: (opened.append(path), probe(path))[1])
    sound(tmp_path / "a.wav")
    corpus = load(tmp_path, "audio,label,start,end\n" + "a.wav,sad,0.5,1\n" * 50 + "a.wav,sad,1,2.08\n")
    assert corpus.table["end"].iloc[-1] == pytest.approx(2.0)
    assert "1 ends" in said(corpus)
    assert len(opened) == 1


def test_a_large_file_is_judged_by_its_header_and_by_its_packets_only_where_it_must_be(tmp_path, monkeypatch):
    from affuse.corpora.reading import media_paths

    monkeypatch.setattr(media_paths, "LARGE", 0)
    monkeypatch.setattr(media_paths, "probe", lambda path: pytest.fail("the header is enough"))
    sound(tmp_path / "a.wav")
    assert len(load(tmp_path, "audio,label,start,end\na.wav,sad,0.5,1.99\n")) == 1


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [("62.5", 62.5), ("00:01:02.5", 62.5), ("1:02,500", 62.5), ("01:02", 62.0), ("1:00:02", 3602.0), ("62,5", 62.5)],
)
def test_times_are_numbers_or_clock_text(tmp_path, cell, seconds):
    corpus = load(tmp_path, f"id;label;start\na;sad;{cell}\n")
    assert corpus.table["start"].iloc[0] == seconds


@pytest.mark.parametrize("cell", ["soon", "1.2.3", "00:01:02:12", "1.234,5"])
def test_other_times_are_named_with_their_row(tmp_path, cell):
    with pytest.raises(BadCorpus, match=f"'start' is not numeric: row 2 holds '{cell}'"):
        load(tmp_path, f"id;label;start\na;sad;1\nb;sad;{cell}\n")


def test_a_duration_gives_the_end_and_thousands_are_not_guessed(tmp_path):
    assert list(load(tmp_path, "id,label,start,duration\na,sad,1,0.5\n").table["end"]) == [1.5]
    with pytest.raises(BadCorpus, match="row 1 holds '1,500'"):
        load(tmp_path, 'id,label,start\na,sad,"1,500"\n')


STRAY = {
    "two that open": 'u1\t"Hello\tsad\nu2\tyo\thappy\nu3\t"Bye\tsad\nu4\tok\thappy\n',
    "one opens, one closes": 'u1\t"Hello\tsad\nu2\tyo\thappy\nu3\tBye"\tsad\nu4\tok\thappy\n',
    "the last row": 'u1\tHello\tsad\nu2\tyo\thappy\nu3\tBye\tsad\nu4\t"ok\thappy\n',
    "inches": 'u1\ta 5" pipe\tsad\nu2\tyo\thappy\nu3\tBye\tsad\nu4\t"ok"\thappy\n',
}


@pytest.mark.parametrize("case", STRAY)
def test_a_stray_quote_swallows_no_row(tmp_path, case):
    corpus = load(tmp_path, "id\ttext\tlabel\n" + STRAY[case], "t.tsv")
    assert list(corpus.table["id"]) == ["u1", "u2", "u3", "u4"]
    assert corpus.table["text"].iloc[1] == "yo"
    assert corpus.table["text"].iloc[3].strip('"') == "ok"
    commas = "id,text,label\n" + STRAY[case].replace("\t", ",")
    if case == "inches":
        assert len(load(tmp_path, commas)) == 4
    else:
        with pytest.raises(BadCorpus, match=r"line [25]: a quote"):
            load(tmp_path, commas)


def test_quotes_of_csv_keep_commas_lines_and_quotes(tmp_path):
    text = 'id,text,label\nu1,"well, ""then""",sad\nu2,"two\nlines",happy\nu3,5" pipe,sad\n'
    corpus = load(tmp_path, text)
    assert list(corpus.table["text"]) == ['well, "then"', "two\nlines", '5" pipe']
    with pytest.raises(BadCorpus, match="line 3: a quote"):
        load(tmp_path, 'id,text,label\nu1,"a, b",sad\nu2,"Hello,sad\nu3,"c, d",sad\n')


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_encodings_and_line_ends(tmp_path, encoding, separator, end):
    lines = ["id,text,label,", "a,grüß dich,sad,", "b,hi,happy", ",,,", "", ""]
    corpus = load(tmp_path, end.join(lines).replace(",", separator), encoding=encoding)
    assert corpus.table[["id", "text", "label"]].to_numpy().tolist() == [
        ["a", "grüß dich", "sad"],
        ["b", "hi", "happy"],
    ]


def test_a_spreadsheet_says_its_separator_and_writes_decimal_commas(tmp_path):
    corpus = load(tmp_path, "sep=;\r\nid;text;label;start;arousal\r\na;well, then;sad;1,5;-0,25\r\n")
    row = corpus.table.iloc[0]
    assert (row["text"], row["start"], row["arousal"]) == ("well, then", 1.5, -0.25)


def test_what_was_guessed_or_left_out_is_said(tmp_path):
    corpus = load(tmp_path, "id,text,label\na,café,sad\n", encoding="cp1252")
    assert "Windows-1252, e.g. 'café'" in said(corpus)
    corpus = load(tmp_path, ",id,label,text\n0,a,sad,hi\n1,b,sad\n")
    assert "column 1 has no name" in said(corpus)
    assert "1 rows have fewer cells than the header, e.g. line 3" in said(corpus)


@pytest.mark.parametrize(
    ("data", "word"),
    [(b"id,label\na\x00,sad\n", "zero bytes"), (b"PK\x03\x04abc", "spreadsheet"), (b" \n", "no header")],
)
def test_files_that_are_no_tables_are_named(tmp_path, data, word):
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(BadCorpus, match=word):
        import_table(tmp_path / "t.csv", tmp_path / "c")


def numeric(cells, column="label", separator=","):
    return (
        separator.join(["id", column, "speaker"])
        + "\n"
        + "\n".join(separator.join([f"u{i}", c, f"s{i}"]) for i, c in enumerate(cells))
    )


def test_fractions_are_values(tmp_path):
    cells = [f"{v:.1f}" for v in np.arange(-1, 2, 0.1)] + ["NA", ""]
    corpus = load(tmp_path, numeric(cells))
    assert (corpus.space.kind, corpus.space.labels) == ("values", ("value",))
    assert (corpus.space.low, corpus.space.high) == (-1.0, 1.9)
    assert set(corpus.table["label"]) == {""}
    assert corpus.table["value"].notna().sum() == 30
    assert "objectives={l1: {}}" in said(corpus)
    data = Dataset(corpus.table, {"x": Always()}, {"emotion": "label"}, {"emotion": Task("emotion", corpus.space)})
    target, known = data.labels("emotion")
    assert target[:, 0].tolist()[:3] == pytest.approx([-1.0, -0.9, -0.8])
    assert known.tolist() == [True] * 30 + [False] * 2


class Always:
    ids = tuple(f"u{i}" for i in range(40))

    def __contains__(self, name):
        return True

    def usable(self, name):
        return True


@pytest.mark.parametrize("cells", [["0", "1", "2", "1"], ["1.0", "2.0", "3.0"], ["0", "1", "NA"], ["-1", "1"]])
@pytest.mark.parametrize("columns", [{}, {"label": "label"}])
def test_few_whole_numbers_are_asked_about_and_both_answers_work(tmp_path, cells, columns):
    with pytest.raises(BadCorpus, match="different numbers") as caught:
        load(tmp_path, numeric(cells), columns=columns)
    assert f"NAME={cells[0]}" in caught.value.remedy
    assert "--map value=label" in caught.value.remedy
    names = {f"{float(c):g}": f"class {c}" for c in cells if c != "NA"}
    assert load(tmp_path, numeric(cells), labels=names).table["label"].iloc[0] == f"class {cells[0]}".lower()
    assert load(tmp_path, numeric(cells), columns={"value": "label"}).space.kind == "values"


def test_a_mapped_column_of_numbers_makes_no_classes_in_silence(tmp_path):
    corpus = load(tmp_path, numeric(["0,5", "0,25", "-1"], "valence", ";"), columns={"label": "valence"})
    assert (corpus.space.kind, corpus.space.labels) == ("values", ("valence",))
    assert corpus.table["valence"].tolist() == [0.5, 0.25, -1.0]


def test_two_dimensions_are_found_by_name_or_mapped(tmp_path):
    text = "id,Arousal,Valence,x\nu0,0.1,0.5,1\nu1,0.2,-0.5,2\n"
    corpus = load(tmp_path, text)
    assert corpus.space.labels == ("valence", "arousal")
    data = Dataset(corpus.table, {"x": Always()}, {"emotion": "label"}, {"emotion": Task("emotion", corpus.space)})
    np.testing.assert_allclose(data.labels("emotion")[0], [[0.5, 0.1], [-0.5, 0.2]], rtol=1e-6)
    assert load(tmp_path, text, columns={"value": "x,Arousal"}).space.labels == ("x", "arousal")
    assert Corpus.open(tmp_path / "c").space.labels == ("x", "arousal")


@pytest.mark.parametrize(
    ("cells", "options", "words"),
    [
        (["sad", "1", "2"], {}, "2 different numbers beside names such as 'sad'"),
        (["0", "1", "2"], {"labels": {"0": "sad", "1": "happy"}}, "1 different numbers beside names"),
        (["0", "1", "2"], {"space": "ekman-7"}, "3 different numbers"),
        (["0.5", "sad"], {"space": "sentiment"}, "not numeric: row 2 holds 'sad'"),
        (["0.5", "0.1"], {"space": "vad"}, "does not fit the 1 columns"),
        (["0.5", "inf"], {}, "an infinite number"),
        (["0.5", "x"], {"columns": {"value": "label"}}, "row 2 holds 'x'"),
        (["sad", '"happy'], {}, "line 3"),
    ],
)
def test_labels_that_are_neither_names_nor_numbers_are_refused(tmp_path, cells, options, words):
    with pytest.raises(BadCorpus, match=words):
        load(tmp_path, numeric(cells), **options)


@pytest.mark.parametrize("dimensions", [["label"], ["valence", "arousal"]])
def test_values_are_trained_by_regression_from_table_to_scores(tmp_path, dimensions, capsys):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 4))
    rows = [
        ",".join([f"u{i}", f"s{i % 10}", *(f"{v[k]:.4f}" for k in range(len(dimensions)))])
        for i, v in enumerate(values)
    ]
    src = write(tmp_path, "\n".join([",".join(["id", "speaker", *dimensions]), *rows]))
    np.savez(tmp_path / "audio.npz", ids=np.array([f"u{i}" for i in range(40)]), values=values)
    corpus, run = str(tmp_path / "corpus"), str(tmp_path / "run")
    assert main(["import", "table", str(src), corpus]) == 0
    assert main(["import", "features", corpus, "audio_x", str(tmp_path / "audio.npz")]) == 0
    train = ["train", "vectors", "--corpus", corpus, "--out", run, "train.epochs=3", "--quiet"]
    assert main(train) == 2
    assert "choose one of ccc, l1" in capsys.readouterr().err
    assert main([*train, "objectives={l1: {}}"]) == 0
    assert main(["evaluate", run, "--corpus", corpus]) == 0
    assert "mae" in capsys.readouterr().err


def test_backslashes_other_unicode_forms_and_case_of_media(tmp_path):
    sound(tmp_path / "clips" / unicodedata.normalize("NFD", "Zoë.wav"))
    sound(tmp_path / "clips" / "B.WAV")
    corpus = load(tmp_path, f"audio,label\nclips\\B.WAV,sad\nclips/{unicodedata.normalize('NFC', 'Zoë')}.wav,sad\n")
    assert all((tmp_path / "c" / path).is_file() for path in corpus.table["audio"])
    assert "with / for \\" in said(corpus)
    assert "in another Unicode form" in said(corpus)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("b.wav", "there is B.WAV"),
        ("b", "there is B.WAV"),
        ("Clips/b.wav", "there is clips/b.wav"),
        ("C:\\data\\b.wav", "absolute path of Windows"),
        ("C:/data/b.wav", "not below"),
        ("\\\\server\\b.wav", "absolute path of Windows"),
        (".\\none.wav", "also with / for its backslashes"),
        ("https://example.org/b.wav", "an address on the web"),
        ("none.wav", "check --root"),
        ("../none/none.wav", "check --root"),
    ],
)
def test_media_that_are_not_there_are_named_with_what_is(tmp_path, name, words):
    sound(tmp_path / "B.WAV")
    sound(tmp_path / "clips" / "b.wav")
    with pytest.raises(MissingFile) as caught:
        load(tmp_path, f"audio,label\n{name},sad\n")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("F04_na_speaker.csv", ("speaker", 4)), ("F05_header_case.csv", ("label", 2)), ("F13_quotes.tsv", ("id", 4)),
        ("F14_numeric_labels.csv", ("value", 30)), ("F18_paths/win.csv", ("audio", 1)),
    ],
)
def test_odd_tables(shared_data, tmp_path, name, right):
    corpus = import_table(shared_data / "odd_inputs" / name, tmp_path / "c")
    assert corpus.table[right[0]].nunique() == right[1]


def test_odd_times(shared_data, tmp_path):
    with pytest.raises(AffuseError, match="look like milliseconds"):
        import_table(shared_data / "odd_inputs" / "F03_times" / "ms.csv", tmp_path / "c")
