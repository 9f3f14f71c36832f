"""Lexicon scores: the file's own numbers, unknown words invalid, negation as VADER's, malformed files named by line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from affuse.core.errors import AffuseError, BadConfig, BadFeatures, MissingDependency
from affuse.core.io import file_sha256
from affuse.corpora.extraction.extract import extract
from affuse.corpora.reading.release import mend, read_csv
from affuse.features.extractor import make_extractor
from affuse.features.lexicon import Lexicon, centre_of, negated, read_lexicon, split
from affuse.media.clip import Clip
from affuse.stores.collate import collate

VADER = (
    "\n".join(
        f"{w}\t{v}\t0.5\t[1, 2, 3]" for w, v in {"happy": 2.7, "sad": -2.1, ":D": 2.3, ":)": 2.0, "no": -1.2}.items()
    )
    + "\n"
)
NORMS = (
    "Word,Valence,Arousal,Dominance\nhappy,8.5,6,7.2\nsad,2.1,3.5,3.8\n"
    "good-natured,7,3,6\nPolish,5,4,5\npolish,5.5,3,6\n"
)


def saved(tmp_path: Path, text: str | bytes, name: str = "lexicon.txt") -> Path:
    (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return tmp_path / name


def valence(path: Path, text: str, **options) -> list[float | None]:
    """The first dimension of each word, None where it is unknown."""
    found = Lexicon(lexicon=path, pool="none", **options)(Clip(text=text))
    valid = np.ones(len(found.values), bool) if found.valid is None else found.valid
    return [round(float(v), 3) if k else None for v, k in zip(found.values[:, 0], valid, strict=True)]


def test_vader(tmp_path: Path) -> None:
    path = saved(tmp_path, VADER)
    extractor = Lexicon(lexicon=path)
    assert extractor.names == ["valence_mean", "valence_std", "valence_max", "valence_min", "known", "negated"]
    assert extractor.spec.shape == (6,) and extractor.spec.rate == 0
    assert valence(path, "I'm Happy, Ross :D") == [None, 2.7, None, 2.3]
    np.testing.assert_allclose(
        extractor(Clip(text="I'm Happy, Ross :D")).values, [[2.5, 0.2, 2.7, 2.3, 0.5, 0]], rtol=1e-5
    )
    assert Lexicon(lexicon=path, pool="none").names == ["valence"]


def test_norms_have_a_name_for_every_number(tmp_path: Path) -> None:
    path = saved(tmp_path, NORMS)
    extractor = Lexicon(lexicon=path)
    assert extractor.spec.shape == (len(extractor.names),) == (14,)
    named = dict(zip(extractor.names, extractor(Clip(text="happy sad days")).values[0].tolist(), strict=True))
    assert named["arousal_mean"] == pytest.approx(4.75) and named["dominance_max"] == pytest.approx(7.2)
    assert named["valence_std"] == pytest.approx(3.2) and named["known"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "header",
    [
        "Word,V.Mean.Sum,V.SD.Sum,A.Mean.Sum,D.Mean.Sum",
        "Description,ValMn,ValSD,AroMn,DomMn",
        "term,Valence Mean,Valence SD,Arousal Mean,Dominance Mean",
        "English Word,valence,spread,arousal,dominance",
    ],
)
@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_usual_headers_are_understood(tmp_path: Path, header: str, delimiter: str) -> None:
    path = saved(tmp_path, b"\xef\xbb\xbf" + f"{header}\r\njoy,8,9,6,7\r\n".replace(",", delimiter).encode())
    scores = read_lexicon(path)
    assert scores.dimensions == ("valence", "arousal", "dominance")
    assert scores.values.tolist() == [[8, 6, 7]] and scores.row == {"joy": 0}


def test_columns_can_be_given(tmp_path: Path) -> None:
    bare, headed = saved(tmp_path, "joy,1,8,6\n", "a.csv"), saved(tmp_path, "n,item,fear,joyful\n1,joy,8,6\n", "b.csv")
    assert read_lexicon(bare, {"valence": 2, "arousal": 3}).values.tolist() == [[8, 6]]
    assert read_lexicon(headed, {"word": "Item", "fear": "fear"}).dimensions == ("fear",)
    made = make_extractor("lexicon", {"lexicon": str(bare), "columns": {"valence": 2}})
    assert made.spec.shape == (6,)
    for path, columns in ((bare, {"valence": 4}), (bare, {"valence": "V"}), (headed, {"valence": "V"})):
        with pytest.raises(BadConfig, match="has no column"):
            read_lexicon(path, columns)
    for path in (bare, headed):
        with pytest.raises(BadConfig, match="cannot be told") as caught:
            read_lexicon(path)
        assert "columns" in caught.value.remedy


def test_case_and_hyphens(tmp_path: Path) -> None:
    path = saved(tmp_path, NORMS)
    assert valence(path, "Polish POLISH polish Good-natured happy-go HAPPY!") == [5, 5.5, 5.5, 7, 8.5, None, 8.5]
    assert valence(path, "the happy’s sad--happy… sad") == [None, 8.5, 2.1, 8.5, 2.1]


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("not happy", [None, -0.74 * 2.7]),
        ("I don't feel very happy", [None, None, None, None, -0.74 * 2.7]),
        ("I DON’T feel so very happy", [None, None, None, None, None, 2.7]),
        ("not sad, happy", [None, 0.74 * 2.1, 2.7]),
        ("No, happy", [-1.2, 2.7]),
        ("no happy end", [-1.2, -0.74 * 2.7, None]),
        ("happy not", [2.7, None]),
        ("cant be sad uh-uh happy", [None, None, 0.74 * 2.1, None, -0.74 * 2.7]),
        ("never not happy", [None, None, -0.74 * 2.7]),
    ],
)
def test_negation_turns_what_it_reaches(tmp_path: Path, text: str, scores: list[float | None]) -> None:
    path = saved(tmp_path, VADER)
    assert valence(path, text) == [None if s is None else round(s, 3) for s in scores]
    assert valence(path, text, negation=False) == [
        read_lexicon(path).values[r, 0].round(3) if r >= 0 else None for r in plain(path, text)
    ]


def plain(path: Path, text: str) -> list[int]:
    row = read_lexicon(path).row
    return [row.get(w, row.get(w.lower(), -1)) for w in split(text, row)[0]]


def test_negation_turns_valence_about_the_centre_of_its_scale(tmp_path: Path) -> None:
    path = saved(tmp_path, NORMS)
    found = Lexicon(lexicon=path, pool="none")(Clip(text="not happy")).values[1]
    np.testing.assert_allclose(found, [5 - 0.74 * 3.5, 6, 7.2], rtol=1e-6)
    assert valence(path, "not happy", centre=8.5) == [None, 8.5]
    for values, centre in (([0, 1], 0.5), ([-1, 1], 0), ([1, 5], 3), ([1.2, 6.8], 4), ([1.3, 8.5], 5)):
        assert centre_of(np.array(values), path) == centre
    odd = saved(tmp_path, "word,valence\njoy,90\nwoe,12\n", "odd.csv")
    with pytest.raises(BadConfig, match="no usual scale") as caught:
        _ = Lexicon(lexicon=odd).weights_hash
    assert "centre=" in caught.value.remedy
    assert Lexicon(lexicon=odd, centre=50).weights_hash and valence(odd, "joy", negation=False) == [90]


def test_negated_is_a_window_of_three_words_in_a_clause() -> None:
    rng = np.random.default_rng(0)
    for length in (0, 1, 2, 3, 4, 30):
        words, clause = rng.choice(["not", "x", "y", "z"], length).tolist(), np.sort(rng.integers(0, 3, length))
        slow = [
            any(words[j] == "not" and clause[j] == clause[i] for j in range(max(0, i - 3), i)) for i in range(length)
        ]
        assert negated(words, clause).tolist() == slow


def test_absence_is_a_mask(tmp_path: Path) -> None:
    path = saved(tmp_path, VADER)
    for extractor in (Lexicon(lexicon=path), Lexicon(lexicon=path, pool="none")):
        for words in (None, "", "  ", "...", "zebra"):
            feature = extractor(Clip(text=words))
            assert feature.values.shape[1:] == extractor.spec.shape and feature.coverage == 0
            assert not collate([extractor.spec], {"lexicon": [feature]}).present.any()


HEAD = "word,valence,arousal\n"
BROKEN = {
    "empty": ("", "is empty"),
    "blank": ("\n \n", "is empty"),
    "binary": (bytes(range(256)), "not UTF-8"),
    "zeros": ("joy\0,1\n", "not text"),
    "latin-1": ("word,valence\nété,3\n".encode("latin-1"), "not UTF-8"),
    "prose": ("once upon a time\nthere was\n", "no word with scores"),
    "head only": (HEAD, "has no words"),
    "ragged norms": (HEAD + "joy,8,6\nwoe,2\n", "line 3: 2 cells, not 3"),
    "ragged VADER": (VADER + "woe\t-2\t0.5\n", "line 6: 3 cells, not 4"),
    "NaN": (HEAD + "joy,8,nan\n", "line 2: the score 'nan'"),
    "infinite": (HEAD + "joy,inf,6\n", "line 2: the score 'inf'"),
    "too large": (HEAD + "joy,1e300,6\n", "line 2: the score '1e300'"),
    "blank score": (HEAD + "\njoy,8,6\nwoe,,6\n", "line 4: the score ''"),
    "no score": (VADER + "woe\tbad\t0.5\t[1]\n", "line 6: the score 'bad'"),
    "twice": (HEAD + "joy,8,6\njoy,2,6\n", "line 3: 'joy' stands there twice"),
    "no word": (HEAD + ",8,6\n", "line 2: no word"),
    "open quote": (HEAD + '"joy,8,6\n', "line 3: unexpected end"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_malformed_files_are_named_by_line(tmp_path: Path, case: str) -> None:
    text, message = BROKEN[case]
    path = saved(tmp_path, text)
    with pytest.raises(BadFeatures, match=message) as caught:
        _ = Lexicon(lexicon=path).weights_hash
    assert str(path) in str(caught.value) and caught.value.remedy


def test_repeats_that_agree_and_vaders_own_are_fine(tmp_path: Path) -> None:
    assert len(read_lexicon(saved(tmp_path, HEAD + "joy,8,6\njoy,8,6\n")).row) == 1
    assert valence(saved(tmp_path, VADER + "happy\t1.0\t0.5\t[1]\n"), "happy") == [1]


def test_absent_and_wrong_files(tmp_path: Path) -> None:
    for path in (None, tmp_path / "nowhere.txt"):
        with pytest.raises(MissingDependency, match=r"VADER, 0\.4 MB, MIT") as missing:
            _ = Lexicon(lexicon=path).spec
        assert "lexicon=FILE" in missing.value.remedy
    path = saved(tmp_path, VADER)
    with pytest.raises(BadFeatures, match="sha256 is"):
        _ = Lexicon(lexicon=path, sha256="0" * 64).spec
    assert Lexicon(lexicon=path, sha256=file_sha256(path)).weights_hash == file_sha256(path)


def test_extraction(tmp_path: Path, vector_corpus) -> None:
    done = extract(vector_corpus, "lexicon", {"lexicon": saved(tmp_path, HEAD + "words,8,6\n")})
    assert not done.failures and done.added == 48
    np.testing.assert_allclose(done.store["u007"].values, [[8, 0, 8, 8, 6, 0, 6, 6, 0.5, 0]])
    with pytest.raises(AffuseError, match="line 2"):
        extract(vector_corpus, "lexicon", {"lexicon": saved(tmp_path, HEAD + "words,8,x\n", "bad.csv")})


def test_real_lexica_on_real_words(shared_data: Path) -> None:
    vader, norms = (shared_data / "lexica" / f for f in ("vader_lexicon.txt", "warriner_CRR_WordsAndRatings_0mean.csv"))
    assert read_lexicon(vader).values.shape == (7520, 1) and read_lexicon(norms).values.shape == (13915, 3)
    assert valence(vader, "lol sob") == [1.8, -1.0]  # as vaderSentiment reads them: of two entries the last
    assert "meanscoresofall" not in read_lexicon(norms).row
    table = read_csv(shared_data / "meld_text" / "MELD" / "dev_sent_emo.csv", "Utterance", "Sentiment")
    extractor = Lexicon(lexicon=vader)
    means = [
        float(f.values[0, 0]) if len(f.values) else 0.0
        for f in (extractor(Clip(text=mend(t))) for t in table["Utterance"])
    ]
    by = {
        s: np.mean([m for m, o in zip(means, table["Sentiment"], strict=True) if o == s])
        for s in ("negative", "neutral", "positive")
    }
    assert by["negative"] + 0.1 < by["neutral"] < by["positive"] - 0.1
