"""The leak detector: fires on planted and real leaks, is silent on honest features, names what it cannot check."""

from __future__ import annotations

import json

import numpy as np
import pytest

from affuse.cli.app import main
from affuse.core.errors import BadFeatures, ProtocolError, UnknownName
from affuse.corpora.manifest import write_corpus
from affuse.evaluation.leaks import find_leak
from affuse.evaluation.store_check import check_corpus
from affuse.stores.store import import_arrays

NAMES = np.array(["neutral", "happy", "sad", "angry"])


def rows(seed=0, groups=40, size=12, dim=20, strength=0.0, signal=1.0):
    """values, class numbers, groups, touched: half of the groups moved along their class' axis by `strength`."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), size)
    y = rng.integers(0, 4, len(group))
    touched = group % 2 == 0
    centres = rng.normal(size=(4, dim)) * signal / np.sqrt(dim)
    x = rng.normal(size=(len(group), dim)) + centres[y] + 0.4 * rng.normal(size=(groups, dim))[group]
    return x + strength * np.eye(dim)[y] * touched[:, None], y, group, touched


def test_a_planted_leak_fires_and_the_same_features_without_it_do_not():
    planted, honest = find_leak(*rows(strength=2.0)), find_leak(*rows())
    assert planted.flagged
    assert planted.low > planted.margin
    assert planted.inside - planted.outside > 0.2
    assert "leak:" in planted.decision
    assert not honest.flagged
    assert "no sign" in honest.decision
    assert (honest.n_inside, honest.groups_inside, honest.dropped) == (240, 20, 0)


def test_nothing_is_found_where_there_is_none():
    assert not any(find_leak(*rows(seed)).flagged for seed in range(8))


def test_the_untouched_side_may_know_its_labels():
    x, y, group, touched = rows(strength=2.0)
    report = find_leak(x, y, group, ~touched)
    assert not report.flagged
    assert report.high < 0


def test_permuted_labels_show_no_leak():
    x, y, group, touched = rows(strength=3.0)
    report = find_leak(x, np.random.default_rng(1).permutation(y), group, touched)
    assert not report.flagged
    assert abs(report.inside - 0.25) < 0.1


def test_other_class_shares_and_fewer_groups_are_no_leak():
    x, y, group, touched = rows(3, groups=60)
    keep = (touched & ((y > 1) | (group % 3 == 0))) | (~touched & (group < 24))
    report = find_leak(x[keep], y[keep], group[keep], touched[keep])
    assert not report.flagged
    assert report.groups_outside == 12


def test_names_and_numbers_of_classes_give_the_same_report():
    x, y, group, touched = rows(strength=1.0)
    assert find_leak(x, y, group, touched) == find_leak(x, np.sort(NAMES)[y], group, touched)
    assert find_leak(x, y, group, touched, seed=1) != find_leak(x, y, group, touched)


def test_continuous_targets_are_scored_by_correlation():
    x, _, group, touched = rows()
    target = np.random.default_rng(2).normal(size=(len(x), 2))
    leaked = x.copy()
    leaked[:, :2] += np.where(touched[:, None], 2 * target, 0)
    report = find_leak(leaked, target, group, touched)
    assert report.metric == "pearson"
    assert report.flagged
    assert report.inside > 0.6
    assert not find_leak(x, target[:, 0], group, touched).flagged


def test_a_score_below_chance_is_no_yardstick():
    x, _, group, touched = rows(5, groups=16, size=3)
    reports = [find_leak(x, np.random.default_rng(k).normal(size=len(x)), group, touched) for k in range(10)]
    assert any(r.outside < 0 for r in reports)
    assert all(r.difference <= max(r.inside, 0) + 1e-12 for r in reports)


def test_missing_features_and_labels_are_left_out_and_counted():
    x, y, group, touched = rows(strength=2.0)
    names = NAMES[y].astype(object)
    whole = find_leak(x, names, group, touched)
    x[::7, 3] = np.nan
    x[5], x[6, 0] = np.inf, -np.inf
    names[10], names[11], names[12] = "", None, float("nan")
    report = find_leak(x, names, group, touched)
    assert report.dropped == 4
    assert report.flagged
    assert abs(report.inside - whole.inside) < 0.1
    target = x[:, 1].astype(float).copy()
    target[:9] = np.nan
    assert find_leak(x, target, group, touched).dropped == 9


def test_constant_and_empty_columns_do_no_harm():
    x, y, group, touched = rows(strength=2.0)
    more = np.column_stack([x, np.full(len(x), 1e6), np.full(len(x), np.nan)])
    assert abs(find_leak(more, y, group, touched).difference - find_leak(x, y, group, touched).difference) < 0.02


def test_a_class_that_one_side_lacks_is_left_out():
    x, y, group, touched = rows()
    y[touched & (y == 3)] = 2
    assert find_leak(x, y, group, touched).dropped == int((y == 3).sum())


@pytest.mark.parametrize("side", [True, False])
def test_one_side_only_raises(side):
    x, y, group, touched = rows()
    with pytest.raises(ProtocolError, match="every row counts as") as error:
        find_leak(x, y, group, np.full_like(touched, side))
    assert error.value.remedy


def test_too_few_groups_classes_and_shapes_that_do_not_fit_raise():
    x, y, group, touched = rows()
    few = touched | (group < 8)
    with pytest.raises(ProtocolError, match="4 untouched groups"):
        find_leak(x[few], y[few], group[few], touched[few])
    with pytest.raises(ProtocolError, match="0 untouched groups"):
        find_leak(x, np.where(touched, NAMES[y], ""), group, touched)
    with pytest.raises(ProtocolError, match="two classes"):
        find_leak(x, np.where(touched, 0, 1), group, touched)
    with pytest.raises(ProtocolError, match="no range of targets"):
        find_leak(x, np.where(touched, 0.0, 5.0) + y / 4, group, touched)
    with pytest.raises(BadFeatures, match="do not fit"):
        find_leak(x[:-1], y, group, touched)
    with pytest.raises(BadFeatures, match="do not fit"):
        find_leak(x[:, None], y, group, touched)


def corpus_of(path, x, labels, groups, touched, space="iemocap-4", **columns):
    """A corpus with splits train and test and a store `vectors`."""
    ids = [f"u{i:04d}" for i in range(len(x))]
    split = np.where(touched, "train", "test")
    table = {"id": ids, "source": groups.astype(str), "split": split, "label": labels, **columns}
    keys = list(table)
    rows = [dict(zip(keys, v, strict=True)) for v in zip(*table.values(), strict=True)]
    corpus = write_corpus(path, rows, "leaky", space)
    import_arrays(corpus.store_path("vectors"), ids, x, modality="audio")
    return corpus, ids


def test_check_scans_sequences_counts_what_is_missing_and_exits_1(tmp_path, capsys):
    x, y, group, touched = rows(strength=2.0)
    clean, *_ = rows()
    corpus, ids = corpus_of(tmp_path / "c", x, NAMES[y], group, touched)
    steps = np.repeat(clean[:-20], 3, axis=0) + np.tile([[-1.0], [0.0], [1.0]], (len(x) - 20, 1))
    steps[::3][:5] = np.nan
    import_arrays(corpus.store_path("audio_steps"), ids[:-20], steps, np.arange(len(ids) - 19) * 3, rate=1.0)
    pictures = np.zeros((len(ids), 2, 2, 3), dtype=np.float32)
    import_arrays(corpus.store_path("face_pictures"), ids, pictures)
    assert main(["check", str(corpus.path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    by_name = {s["name"]: s for s in found["stores"]}
    assert found["leaks"] == ["vectors"]
    assert by_name["audio_steps"]["stored"] == by_name["audio_steps"]["usable"] == len(ids) - 20
    assert by_name["audio_steps"]["leak"]["dropped"] == 20
    assert by_name["face_pictures"]["unchecked"]["type"] == "ProtocolError"
    assert main(["check", str(corpus.path), "audio_steps"]) == 0
    assert "no sign of a leak" in capsys.readouterr().out
    assert main(["check", str(corpus.path), "vectors"]) == 1
    assert "leak: uar" in capsys.readouterr().out
    assert main(["check", str(corpus.path), "vektors"]) == 2


def test_values_are_taken_from_the_corpus_or_a_named_column(tmp_path):
    x, y, group, touched = rows()
    target = np.random.default_rng(2).normal(size=len(x)).clip(-3, 3)
    x[:, 0] += np.where(touched, 2 * target, 0)
    corpus, _ = corpus_of(
        tmp_path / "c", x, [""] * len(x), group, touched, "sentiment", sentiment=target, sex=np.where(y > 1, "f", "m")
    )
    assert [s.leak.flagged for s in check_corpus(corpus)] == [True]
    assert [s.leak.metric for s in check_corpus(corpus, column="sex")] == ["uar"]
    with pytest.raises(UnknownName, match="column"):
        check_corpus(corpus, column="mood")
    with pytest.raises(UnknownName, match="split"):
        check_corpus(corpus, touched="trian")


def test_a_corpus_without_splits_is_not_called_clean(tmp_path, capsys):
    x, y, group, _ = rows()
    ids = [f"u{i:04d}" for i in range(len(x))]
    table = [{"id": i, "source": f"s{g}", "label": v} for i, g, v in zip(ids, group, NAMES[y], strict=True)]
    corpus = write_corpus(tmp_path / "c", table, "free", "iemocap-4")
    import_arrays(corpus.store_path("vectors"), ids, x, modality="audio")
    assert main(["check", str(corpus.path)]) == 0
    assert "not checked: no row has a split" in capsys.readouterr().out.replace("\n", " ")


def test_mosi_text_and_video_know_the_train_labels_audio_does_not(shared_data, tmp_path):
    with np.load(shared_data / "mosi_utterance" / "mosi_utterance_train_cleanvalid.npz") as file:
        arrays = {key: file[key] for key in file.files}
    video = np.array([i.rsplit("_", 1)[0] for i in arrays["ids"]])
    touched = arrays["split"] == "train"
    labels = np.where(arrays["label2"] == 1, "positive", "negative")
    corpus, ids = corpus_of(
        tmp_path / "c", arrays["text"], labels, video, touched, "sentiment-3", sentiment=arrays["valence"].astype(float)
    )
    for stream in ("audio", "video"):
        import_arrays(corpus.store_path(stream), ids, arrays[stream])
    for column in (None, "sentiment"):
        found = {s.name: s.leak.flagged for s in check_corpus(corpus, column=column)}
        assert found == {"audio": False, "vectors": True, "video": True}
    reports = {s.name: s.leak for s in check_corpus(corpus)}
    assert reports["vectors"].inside > 0.97
    assert reports["vectors"].outside < 0.8
    assert reports["video"].inside > 0.88
    assert reports["video"].outside < 0.68
