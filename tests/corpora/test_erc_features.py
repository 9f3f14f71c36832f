"""ERC feature pickles: every published layout by content, splits that do not leak, no guessed class orders."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from affuse.core import registry
from affuse.core.errors import BadConfig, BadCorpus, BadFeatures, MissingFile, UnknownName
from affuse.corpora.erc_features import PUBLISHED_TEST, import_erc_features
from affuse.corpora.manifest import make_splits
from affuse.stores.store import FeatureStore

IEMOCAP = (
    "Ses01F_impro01", "Ses02M_script01_1", "Ses03F_impro04", "Ses04M_impro02", "Ses05F_impro03", "Ses05M_impro07",
)


class Parts:
    """The fields of a small corpus in the types of the real files; layouts pick from them."""

    def __init__(self, iemocap: bool, classes: int, n: int = 8, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.names = list(IEMOCAP) if iemocap else list(range(n))
        self.lengths = {k: int(rng.integers(4, 9)) for k in self.names}
        total = sum(self.lengths.values())
        flat = rng.permutation([i % classes for i in range(total)])
        self.labels, start = {}, 0
        for k, m in self.lengths.items():
            self.labels[k], start = [int(v) for v in flat[start : start + m]], start + m
        turns = {k: [i % 2 for i in range(m)] for k, m in self.lengths.items()}
        self.letters = {k: ["FM"[t] for t in v] for k, v in turns.items()}
        self.one_hot = {k: [np.eye(9)[t].tolist() for t in v] for k, v in turns.items()}
        self.ids = {k: [f"{k}_{s}{i:03d}" for i, s in enumerate(v)] for k, v in self.letters.items()}
        self.numbers = {k: list(range(m)) for k, m in self.lengths.items()}
        self.words = {k: [f"well, sentence {k} {i}" for i in range(m)] for k, m in self.lengths.items()}
        self.sentiment = {k: [v % 3 for v in part] for k, part in self.labels.items()}
        self.train, self.test, self.valid = set(self.names[:-2]), set(self.names[-2:]), {self.names[0]}
        self.rng = rng

    def vectors(self, width: int, as_list: bool = False) -> dict:
        made = {k: self.rng.normal(size=(m, width)).astype(np.float32) for k, m in self.lengths.items()}
        return {k: list(v) for k, v in made.items()} if as_list else made


def iemocap9(audio=100, vision=512):
    p = Parts(True, 6)
    return p, [
        p.ids, p.letters, p.labels, p.vectors(100, True), p.vectors(audio, True), p.vectors(vision), p.words,
        p.train, p.test,
    ]


def meld10():
    p = Parts(False, 7)
    vectors = [p.vectors(d) for d in (600, 300, 342)]
    return p, [p.numbers, p.one_hot, p.labels, *vectors, p.words, p.train, p.test, p.sentiment]


def meld9():
    p = Parts(False, 7)
    return p, [p.numbers, p.one_hot, p.labels, p.vectors(600), p.vectors(300), p.words, p.train, p.test, p.sentiment]


def cosmic_iemocap():
    p = Parts(True, 6)
    rest = [sorted(p.train - p.valid), sorted(p.test), sorted(p.valid)]
    return p, [p.letters, p.labels, *[p.vectors(1024) for _ in range(4)], p.words, *rest]


def cosmic_meld():
    p = Parts(False, 7)
    rest = [np.array(sorted(p.train - p.valid)), np.array(sorted(p.test)), np.array(sorted(p.valid))]
    return p, [p.one_hot, p.labels, p.sentiment, *[p.vectors(1024) for _ in range(4)], p.words, *rest]


def sdt(meld=False):
    p = Parts(not meld, 7 if meld else 6)
    speakers, vectors = p.one_hot if meld else p.letters, [p.vectors(d) for d in (1024,) * 4 + (1582, 342)]
    return p, [
        p.numbers if meld else p.ids, speakers, p.labels, *vectors, p.words, p.train, p.test,
        *([None] if meld else []),
    ]


def words_only(meld=False):
    p = Parts(not meld, 7 if meld else 6)
    first = [p.one_hot, p.labels, p.sentiment] if meld else [p.letters, p.labels]
    return p, [*first, p.words, p.train - p.valid, p.test, p.valid]


LAYOUTS = {
    "iemocap-9": (iemocap9, "iemocap-6", {"text": 100, "audio": 100, "vision": 512}),
    "mmgcn-9": (lambda: iemocap9(1582, 342), "iemocap-6", {"text": 100, "audio": 1582, "vision": 342}),
    "meld-10": (meld10, "meld-7", {"text": 600, "audio": 300, "vision": 342}),
    "meld-9": (meld9, "meld-7", {"text": 600, "audio": 300}),
    "cosmic-iemocap-10": (cosmic_iemocap, "iemocap-6", dict.fromkeys(("text", "text2", "text3", "text4"), 1024)),
    "cosmic-meld-11": (cosmic_meld, "meld-7", dict.fromkeys(("text", "text2", "text3", "text4"), 1024)),
    "sdt-12": (sdt, "iemocap-6", {"text": 1024, "text4": 1024, "audio": 1582, "vision": 342}),
    "sdt-13": (lambda: sdt(True), "meld-7", {"text": 1024, "text4": 1024, "audio": 1582, "vision": 342}),
    "cosmic-words-6": (words_only, "iemocap-6", {}),
    "cosmic-words-7": (lambda: words_only(True), "meld-7", {}),
}


def imported(tmp_path, content, /, **options):
    (tmp_path / "src").mkdir(exist_ok=True)
    (tmp_path / "src" / "anything.pkl").write_bytes(pickle.dumps(tuple(content), 2))
    return import_erc_features(tmp_path / "src", tmp_path / "c", **options)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_published_layout_by_its_content(tmp_path, layout):
    make, space, widths = LAYOUTS[layout]
    parts, fields = make()
    corpus = imported(tmp_path, fields)
    assert len(corpus) == sum(parts.lengths.values())
    assert corpus.space.name == space
    assert any("class order assumed" in w and space in w for w in corpus.info["warnings"])
    order = {
        "iemocap-6": "happy sad neutral angry excited frustrated",
        "meld-7": "neutral surprise fear sad happy disgust angry",
    }[space].split()
    for key in parts.names:
        rows = corpus.table[corpus.table["conversation"] == (key if isinstance(key, str) else f"dia{key}")]
        assert list(rows["label"]) == [order[v] for v in parts.labels[key]]
        assert list(rows["text"]) == parts.words[key]
        assert list(rows["position"]) == list(range(len(rows)))
        assert set(rows["split"]) == {
            "test" if key in parts.test else "valid" if "cosmic" in layout and key in parts.valid else "train"
        }
        assert rows["speaker"].nunique() == 2
    for stream, width in widths.items():
        store = FeatureStore(corpus.store_path(stream))
        assert store.spec.shape == (width,)
        assert store.spec.modality == stream.rstrip("234")
        assert set(store.ids) == set(corpus.table["id"])
    vectors = [
        f
        for f in fields
        if isinstance(f, dict) and np.ndim(next(iter(f.values()))) == 2 and len(next(iter(f.values()))[0]) > 9
    ]
    assert len(corpus.stores()) == len(vectors)
    if vectors:
        store = FeatureStore(corpus.store_path("text"))
        flat = np.concatenate([np.asarray(vectors[0][k]) for k in parts.names])
        np.testing.assert_allclose(np.concatenate([store[i].values for i in corpus.table["id"]]), flat, rtol=1e-6)


def test_the_order_of_the_fields_does_not_matter_for_what_content_decides(tmp_path):
    _, f = iemocap9()
    moved = [f[6], f[2], f[3], f[4], f[5], f[0], f[1], f[7], f[8]]
    a, b = imported(tmp_path / "a", f), imported(tmp_path / "b", moved)
    assert a.hash == b.hash


def imported_mkdir(tmp_path, *names):
    for name in names:
        (tmp_path / name).mkdir()


@pytest.fixture(autouse=True)
def places(tmp_path):
    imported_mkdir(tmp_path, "a", "b")


def test_people_of_iemocap_are_its_actors_and_sessions_its_sources(tmp_path):
    corpus = imported(tmp_path, iemocap9()[1])
    assert set(corpus.table["source"]) == {f"Ses0{i}" for i in range(1, 6)}
    assert set(corpus.table["speaker"]) == {f"Ses0{i}_{s}" for i in range(1, 6) for s in "FM"}
    assert corpus.info["overlap"] == {}
    (split,) = make_splits(corpus.table, "source", 0.25, 0.2, None, 0)
    assert set(split) == {"train", "valid", "test"}
    assert set(corpus.table["source"][split == "test"]) == {"Ses05"}


def test_a_one_hot_speaker_is_a_place_in_one_dialogue_not_a_person(tmp_path):
    corpus = imported(tmp_path, meld10()[1])
    assert corpus.table["speaker"].nunique() == 2 * 8
    assert corpus.info["overlap"] == {}
    assert "sentiment_index" in corpus.table
    assert any("bcLSTM" in w for w in corpus.info["warnings"])
    assert any("places within a dialogue" in w for w in corpus.info["warnings"])


def test_another_test_session_is_said(tmp_path):
    parts, f = iemocap9()
    f[7], f[8] = set(parts.names) - {IEMOCAP[0]}, {IEMOCAP[0]}
    assert any("test holds Ses01" in w for w in imported(tmp_path, f).info["warnings"])


def test_sessions_in_train_and_test_show_in_the_leak_check(tmp_path):
    _, f = iemocap9()
    f[7], f[8] = set(IEMOCAP[:5]), {IEMOCAP[5]}
    assert imported(tmp_path, f).info["overlap"]["source"] == {"train/test": ["Ses05"]}


def test_dialogues_in_two_sets_are_tested_on_not_trained_on(tmp_path):
    parts, f = meld10()
    f[7] = {*parts.train, parts.names[-1]}
    corpus = imported(tmp_path, f)
    assert set(corpus.table.loc[corpus.table["conversation"] == "dia7", "split"]) == {"test"}
    assert any("1 dialogues are in test and in an earlier set" in w for w in corpus.info["warnings"])


def test_dialogues_in_no_set_are_left_out(tmp_path):
    parts, f = meld10()
    f[7] = parts.train - {3}
    corpus = imported(tmp_path, f)
    assert "dia3" not in set(corpus.table["conversation"])
    assert any("1 dialogues are in no id set, e.g. dia3" in w for w in corpus.info["warnings"])


def test_numbers_and_their_spellings_are_one_dialogue(tmp_path):
    parts, f = meld10()
    f[7], f[8] = [str(k) for k in parts.train], np.array(sorted(parts.test))
    assert imported(tmp_path, f).info["counts"]["test"]["utterances"] == sum(parts.lengths[k] for k in parts.test)


def test_rows_of_zeros_are_absent_and_a_field_of_zeros_is_no_store(tmp_path):
    parts, f = iemocap9(1582, 342)
    f[4] = {k: np.zeros((m, 1582)) for k, m in parts.lengths.items()}
    f[5][IEMOCAP[0]][1] = 0
    corpus = imported(tmp_path, f)
    assert corpus.stores() == ["text", "vision"]
    store = FeatureStore(corpus.store_path("vision"))
    assert store.length(parts.ids[IEMOCAP[0]][1]) == 0
    assert store.length(parts.ids[IEMOCAP[0]][0]) == 1
    assert any(w.startswith("vision: 1 of") for w in corpus.info["warnings"])


def test_unlabelled_utterances_and_python_2_text(tmp_path):
    _, f = iemocap9()
    f[2][IEMOCAP[0]][0] = -1
    f[6][IEMOCAP[0]][0] = "it’s a caf\u00e9".encode().decode("latin1")
    corpus = imported(tmp_path, f)
    assert corpus.table["label"].iloc[0] == ""
    assert corpus.table["text"].iloc[0] == "it’s a café"
    assert any("label -1" in w for w in corpus.info["warnings"])


def test_speakers_that_contradict_the_utterance_ids_are_said(tmp_path):
    _, f = iemocap9()
    f[1][IEMOCAP[0]][0] = "M"
    assert any("another speaker than their id says" in w for w in imported(tmp_path, f).info["warnings"])


def test_classes_as_told(tmp_path):
    parts, f = iemocap9()
    names = "sad,happy,neutral,angry,excited,frustrated"
    corpus = imported(tmp_path, f, space="iemocap-6", order=names)
    assert list(corpus.table["label"].iloc[:4]) == [names.split(",")[v] for v in parts.labels[IEMOCAP[0]][:4]]
    assert not any("assumed" in w for w in corpus.info["warnings"])
    for options, error in (
        ({"order": "sad,sad,happy"}, BadConfig),
        ({"space": "ekman-7"}, BadConfig),
        ({"space": "iemocap-6", "order": "neutral,boredom"}, BadConfig),
        ({"space": "nonsense"}, UnknownName),
        ({"order": "sad,happy"}, BadFeatures),
        ({"space": "iemocap-4"}, BadFeatures),
        ({"sets": "train,dev"}, BadConfig),
        ({"sets": "train,test,valid"}, BadFeatures),
        ({"fields": "text,text,audio"}, BadConfig),
        ({"fields": "text,audio"}, BadFeatures),
        ({"fields": "text,audio,thing"}, BadFeatures),
        ({"file": "none.pkl"}, MissingFile),
    ):
        with pytest.raises(error):
            imported(tmp_path, f, **options)


def test_four_classes_of_iemocap(tmp_path):
    parts, f = iemocap9()
    f[2] = {k: [v % 4 for v in part] for k, part in parts.labels.items()}
    corpus = imported(tmp_path, f)
    assert corpus.space.name == "iemocap-4"
    assert corpus.table["label"].iloc[0] == ("happy", "sad", "neutral", "angry")[f[2][IEMOCAP[0]][0]]


def test_emorynlp_is_not_taken_for_meld(tmp_path):
    """Seven classes, numbers and one-hot speakers as well, but class 0 is not the half of it."""
    p = Parts(False, 7, n=240)
    fields = [p.one_hot, p.labels, *[p.vectors(16) for _ in range(4)], p.words, p.train, p.test, {1}]
    with pytest.raises(BadFeatures, match="which class is which") as caught:
        imported(tmp_path, fields)
    assert "order=" in caught.value.remedy
    names = "Joyful,Mad,Peaceful,Neutral,Sad,Powerful,Scared"
    assert set(imported(tmp_path, fields, order=names).space.labels) >= {"peaceful", "powerful", "happy", "fear"}


def whole_test_split(counts):
    p = Parts(True, 6)
    p.labels[IEMOCAP[4]] = [c for c, n in enumerate(counts) for _ in range(n)]
    n = len(p.labels[IEMOCAP[4]])
    p.letters[IEMOCAP[4]], p.words[IEMOCAP[4]] = ["F"] * n, [f"word {i} of it" for i in range(n)]
    return [p.letters, p.labels, p.words, set(IEMOCAP[:4]), {IEMOCAP[4]}]


def test_a_whole_test_split_proves_or_refutes_the_assumed_order(tmp_path):
    counts = PUBLISHED_TEST["iemocap-6"]
    assert len(imported(tmp_path, whole_test_split(counts))) > 1623
    with pytest.raises(BadFeatures, match=r"245 'happy' in test, published are 144"):
        imported(tmp_path, whole_test_split((counts[1], counts[0], *counts[2:])))


def changed(position, change):
    def make():
        parts, f = iemocap9()
        f[position] = change(f[position], parts)
        return f

    return make


def without_last(field, _):
    return {k: v[:-1] for k, v in field.items()}


MALFORMED = {
    "no-tuple": (lambda: {"train": [], "dev": [], "test": []}, "holds a dict"),
    "comet": (lambda: [Parts(True, 6).vectors(768) for _ in range(9)], "no field holds classes"),
    "no-sets": (lambda: iemocap9()[1][:7], "no field holds id sets"),
    "one-set": (lambda: iemocap9()[1][:8], "1 id sets"),
    "lengths": (changed(3, without_last), "field 4 has"),
    "missing-dialogue": (changed(6, lambda f, p: {k: f[k] for k in p.names[1:]}), "field 7 lacks 1 dialogues"),
    "missing-vectors": (changed(4, lambda f, p: {k: f[k] for k in p.names[1:]}), "field 5 lacks 1 dialogues"),
    "foreign-dialogue": (changed(4, lambda f, p: {**f, "x": f[IEMOCAP[0]]}), "field 5 has 1 dialogues"),
    "widths": (
        changed(3, lambda f, p: {**f, IEMOCAP[0]: [v[:50] for v in f[IEMOCAP[0]]]}),
        "vectors of widths 50, 100",
    ),
    "ragged": (changed(3, lambda f, p: {**f, IEMOCAP[0]: [f[IEMOCAP[0]][0][:9], *f[IEMOCAP[0]][1:]]}), "no known kind"),
    "objects": (changed(3, lambda f, p: {k: [[None]] * m for k, m in p.lengths.items()}), "no known kind"),
    "classes-as-text": (
        changed(2, lambda f, p: {k: ["happy"] * m for k, m in p.lengths.items()}),
        "look like speakers",
    ),
    "classes-as-floats": (changed(2, lambda f, p: {k: [0.5] * m for k, m in p.lengths.items()}), "no known kind"),
    "two-emotions": (
        changed(0, lambda f, p: {k: [v % 5 for v in part] for k, part in p.labels.items()}),
        "which is the emotion",
    ),
    "test-first": (lambda: [*(f := iemocap9()[1])[:7], f[8], f[7]], "not the largest"),
    "foreign-sets": (changed(7, lambda f, p: {f"x{i}" for i in range(6)}), "id sets name"),
    "all-tested": (changed(8, lambda f, p: set(p.train)), "every dialogue of the train set"),
    "swapped-widths": (lambda: iemocap9(342, 1582)[1], "342 numbers are a width of vision, not of audio"),
    "equal-widths": (lambda: [*(f := iemocap9()[1])[:5], f[4], *f[6:]], "cannot be told"),
    "text-scalar": (changed(6, lambda f, p: dict.fromkeys(f, "hello")), "no known kind"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_unknown_and_contradictory_files_are_refused_and_name_their_fields(tmp_path, case):
    make, error = MALFORMED[case]
    with pytest.raises(BadFeatures, match=error):
        content = make()
        if isinstance(content, dict):
            (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
            import_erc_features(tmp_path, tmp_path / "c")
        imported(tmp_path, content)
    assert not (tmp_path / "c").exists()


def test_what_feature_fields_or_sets_name_too_much_or_too_little_needs_partial(tmp_path):
    parts, f = iemocap9(1582, 342)
    f[4] = {k: f[4][k] for k in parts.names[1:]}
    f[8] = {*f[8], "Ses05F_impro99"}
    corpus = imported(tmp_path, f, partial=True)
    assert len(corpus.info["partial"]) == 2
    assert set(corpus.table["id"]) - set(FeatureStore(corpus.store_path("audio")).ids) == set(parts.ids[IEMOCAP[0]])


def test_the_file_is_the_only_one_or_named(tmp_path):
    _, f = iemocap9()
    imported(tmp_path, f)
    (tmp_path / "src" / "other.pkl").write_bytes(pickle.dumps(1))
    with pytest.raises(BadCorpus, match=r"2 pickles.*anything\.pkl, other\.pkl"):
        import_erc_features(tmp_path / "src", tmp_path / "d")
    assert import_erc_features(tmp_path / "src", tmp_path / "d", file="anything.pkl").name == "anything"
    assert import_erc_features(tmp_path / "src" / "anything.pkl", tmp_path / "e", name="mine").name == "mine"


def test_the_command_line(tmp_path, capsys):
    from affuse.cli.app import main

    imported(tmp_path, meld10()[1])
    assert main(["import", "erc_features", str(tmp_path / "src"), str(tmp_path / "d"), "space=meld-7"]) == 0
    assert "meld-7" in capsys.readouterr().out
    assert registry.cards("corpora")["erc_features"]["entry"] == "import_erc_features"


def test_real_dialogues_of_iemocap(tmp_path, shared_data):
    """Names, speakers and labels as they are in the world, in the 9-field layout (the vectors are made)."""
    dialogues = json.loads((shared_data / "iemocap_conv" / "dialogues_6way_sessions1-4.json").read_text())
    rng = np.random.default_rng(0)
    dense = {d: rng.normal(size=(len(v["utt_ids"]), 12)) for d, v in dialogues.items()}
    picked = [{d: v[key] for d, v in dialogues.items()} for key in ("utt_ids", "speakers", "label6", "text")]
    test = {d for d in dialogues if d.startswith("Ses04")}
    corpus = imported(
        tmp_path,
        [*picked[:3], dense, dense, {d: v[:, :5] for d, v in dense.items()}, picked[3], set(dialogues) - test, test],
    )
    assert len(corpus) == 5810
    assert corpus.table["speaker"].nunique() == 8
    assert corpus.info["overlap"] == {}
    assert not any("another speaker" in w for w in corpus.info["warnings"])
    assert any("test holds Ses04" in w for w in corpus.info["warnings"])
