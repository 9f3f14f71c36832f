"""Label tracks that do not fit their videos: the right frames are trained and scored, or one error says what to do.

Every picture says its own number, and the label of picture k is made of k: a label beside another picture is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from affuse.cli.app import main
from affuse.core import io
from affuse.core.config import make_recipe
from affuse.core.errors import BadCorpus
from affuse.core.types import Feature, Fused, Output, StreamSpec
from affuse.corpora.aff_wild2 import import_aff_wild2
from affuse.corpora.extraction.clips import clips_of
from affuse.corpora.manifest import Corpus, write_corpus
from affuse.models.predict import at_labels
from affuse.stores.store import FeatureStore, StoreWriter, import_arrays, store_card
from affuse.training import binding
from affuse.training.data import Dataset
from tests.contracts.test_lfan_defects import number_of, numbered
from tests.corpora.test_aff_wild2 import AU, EXPR, VA, release

FPS, PICTURES = 10.0, 20
EVEN = [k / FPS for k in range(PICTURES)]
SPEC = StreamSpec("number", "vision", (1,), FPS)
RECIPE: dict[str, Any] = {
    "streams": {"number": {"encoder": {"name": "mlp", "hidden": 4}}},
    "fusion": "framewise",
    "tasks": {"emotion": {"space": "abaw-8", "resolution": "frame", "track": "expression"}},
    "train": {"epochs": 1, "batch_size": 4},
}


def write_video(path: Path, times: Sequence[float]) -> None:
    """A clip whose pictures begin at these times (s), each with its number in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=int(FPS))
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.options = {"crf": "10"}
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for picture, time in zip(numbered(len(times)), times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def imported(folder: Path, files: dict[str, list[str]], videos: dict[str, Sequence[float]], **options: Any) -> Corpus:
    """Aff-Wild2 of these label files and videos, with a stream that holds the number of the picture at every step."""
    src = release(folder / "r", files)
    for name, times in videos.items():
        write_video(src / "batch1" / f"{name}.mp4", times)
    corpus = import_aff_wild2(src, folder / "c", partial=True, rate=FPS, **options)
    with StoreWriter(corpus.store_path("number"), store_card(SPEC, "imported", 1, {})) as writer:
        for name, clip in clips_of(corpus):
            values, valid = np.zeros((clip.steps(FPS), 1), np.float32), np.zeros(clip.steps(FPS), bool)
            for frame in clip.frames(FPS):
                whole = np.concatenate([frame.image] * 2, 1) if clip.crop else frame.image
                values[frame.index], valid[frame.index] = number_of(whole), True
            writer.add(name, Feature(values, valid))
    return corpus


def lines(labels: Sequence[int]) -> list[str]:
    return [str(label) for label in labels]


def data_of(corpus: Corpus, split: str = "", **tasks: Any) -> Dataset:
    recipe = binding.bind(make_recipe(RECIPE | ({"tasks": tasks} if tasks else {})), corpus)
    chosen = (corpus.table["split"] == split).to_numpy() if split else np.ones(len(corpus), bool)
    return binding.dataset(corpus, recipe, binding.tasks_of(recipe, corpus), chosen)


def trained(data: Dataset, task: str = "emotion") -> dict[str, list[tuple[int, Any]]]:
    """Row -> (number of the picture whose answer a label is compared with, label), of all labels that count."""
    found: dict[str, list[tuple[int, Any]]] = {}
    for row in range(len(data)):
        batch = data.batch([row])
        x = batch.x["number"]
        output = Output({task: x}, Fused(x[:, 0], x, batch.mask["number"], FPS, batch.t0["number"]))
        shown = at_labels(output, batch).logits[task][0, :, 0]
        known, target = batch.target_mask[task][0], batch.target[task][0]
        pairs = zip(shown[known].int().tolist(), target[known].tolist(), strict=True)
        found.setdefault(batch.id[0], []).extend(pairs)
    return found


def scored(corpus: Corpus, folder: Path, **train: Any) -> tuple[dict[str, Any], pd.DataFrame]:
    """The evaluation and predictions of a run on the validation set, by the commands."""
    (folder / "r.yaml").write_text(yaml.safe_dump(RECIPE | {"train": RECIPE["train"] | train}, sort_keys=False))
    where = ["--corpus", str(corpus.path), "--quiet"]
    assert main(["train", str(folder / "r.yaml"), *where, "--out", str(folder / "run"), "--no-score"]) == 0
    assert main(["evaluate", str(folder / "run"), *where, "--split", "valid"]) == 0
    table = pd.read_parquet(folder / "run" / "predictions-valid.parquet").query("full")
    return io.read_json(folder / "run" / "evaluation-valid.json"), table


def label(k: int) -> int:
    return k % 8


TRACKS = {
    "as long": [label(k) for k in range(PICTURES)],
    "shorter": [label(k) for k in range(12)],
    "longer": [label(k) for k in range(26)],
    "gaps": [-1 if k in (0, 4, 5, 19) else label(k) for k in range(PICTURES)],
    "one label": [-1] * 11 + [label(11)] + [-1] * 8,
    "no label": [-1] * PICTURES,
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Corpus:
    """A training and a validation video for each of TRACKS."""
    files, videos = {}, {}
    for part in ("Train_Set", "Validation_Set"):
        for name, labels in TRACKS.items():
            video = f"{part} {name}".replace(" ", "-")
            files[f"{EXPR}/{part}/{video}"], videos[video] = lines(labels), EVEN
    return imported(tmp_path_factory.mktemp("odd"), files, videos, task="expression")


@pytest.mark.parametrize("name", TRACKS)
def test_a_label_stands_beside_its_own_picture(odd, name):
    """Labels beyond the last picture are compared with the answer that is nearest to them, that of the last one."""
    expected = [(min(k, PICTURES - 1), v) for k, v in enumerate(TRACKS[name]) if v >= 0]
    assert trained(data_of(odd, "train"))[f"Train_Set-{name}".replace(" ", "-")] == expected


def test_windows_train_on_no_label_without_a_picture(odd):
    found = trained(data_of(odd, "train").windowed(0.8, 0.4))
    for name, labels in TRACKS.items():
        pairs = found[f"Train_Set-{name}".replace(" ", "-")]
        assert set(pairs) == {(k, v) for k, v in enumerate(labels) if v >= 0 and k < PICTURES}


@pytest.mark.parametrize("window", [0.0, 0.8])
def test_every_label_is_scored_once_and_no_gap_is(odd, tmp_path, window):
    found, table = scored(odd, tmp_path, window=window)
    expected = {
        (f"Validation_Set-{name}".replace(" ", "-"), k): v
        for name, labels in TRACKS.items()
        for k, v in enumerate(labels)
        if v >= 0
    }
    assert found["n"] == len(table) == len(expected)
    truth = zip(table["id"], table["frame"], table["truth"], strict=True)
    names = data_of(odd).tasks["emotion"].space.labels
    assert {(i, k): names.index(v) if isinstance(v, str) else int(v) for i, k, v in truth} == expected
    warned = [w for w in odd.info["warnings"] if "label lines and pictures differ in number" in w]
    assert len(warned) == 1 and "-8" in warned[0]


def test_numbers_that_mark_a_missing_label_are_no_labels(tmp_path):
    """-5 in either of valence and arousal, -1 in an action unit: the first unlabels the frame, the second the unit."""
    values = ["0.1,0.2", "-5,-5", "-5,0.5", "0.3,-5", *["-1,1"] * 16]
    units = ["-1," + ",".join("1" * 11), ",".join(["-1"] * 12), *[",".join("0" * 12)] * 18]
    files = {f"{VA}/Train_Set/v": values, f"{AU}/Train_Set/v": units}
    corpus = imported(tmp_path, files, {"v": EVEN})
    affect = {"space": "va", "resolution": "frame", "track": "valence_arousal"}
    found = trained(data_of(corpus, affect=affect), "affect")["v"]
    assert [k for k, _ in found] == [0, *range(4, PICTURES)]
    np.testing.assert_allclose([v for _, v in found], [[0.1, 0.2], *[[-1, 1]] * 16], atol=1e-6)
    action = {"space": "action-units-12", "resolution": "frame", "track": "action_units"}
    labelled = trained(data_of(corpus, units=action), "units")["v"]
    assert [k for k, _ in labelled] == [0, *range(2, PICTURES)]
    assert np.isnan(labelled[0][1]).tolist() == [True] + [False] * 11


OWN = {
    "a class below 0": ({"space": "iemocap-4"}, [[0.0], [-1.0], [2.0]], "-1"),
    "a class beyond the last": ({"space": "iemocap-4"}, [[0.0], [4.0], [2.0]], "4"),
    "half a class": ({"space": "iemocap-4"}, [[0.0], [0.5], [2.0]], "0.5"),
    "a value out of its range": ({"space": "va"}, [[0.0, 0.5], [-5.0, -5.0], [1.0, -1.0]], "-5"),
    "a unit below 0": ({"space": "action-units-12"}, [[0.0] * 12, [-1.0] * 12, [1.0] * 12], "-1"),
}


@pytest.mark.parametrize("case", OWN)
def test_a_code_in_a_track_of_ones_own_is_named_with_the_way_out(tmp_path, capsys, case):
    """NaN marks a frame without a label; a number that cannot be a label is not taken for one, nor left out."""
    options, values, number = OWN[case]
    space = options["space"]
    names = list(binding.SPACES[space].labels)
    rows = [{"id": f"u{k}", "source": f"s{k}", "label": ""} for k in range(9)]
    corpus = write_corpus(tmp_path / "c", rows, "own", "iemocap-4", tracks={"own": names})
    ids, offsets = [r["id"] for r in rows], np.arange(10) * 3
    import_arrays(corpus.store_path("number"), ids, np.random.rand(27, 1), offsets, "vision", FPS)
    import_arrays(corpus.annotation_path("own"), ids, np.tile(values, (9, 1)), offsets, "vision", FPS)
    objective = {"va": "l1", "action-units-12": "binary_cross_entropy"}.get(space, "cross_entropy")
    task = {"space": space, "resolution": "frame", "track": "own"}
    recipe = RECIPE | {"tasks": {"emotion": task}, "objectives": {"frames": {"name": objective}}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    command = ["train", str(tmp_path / "r.yaml"), "--corpus", str(corpus.path), "--out", str(tmp_path / "run")]
    assert main([*command, "--quiet"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"label track 'own' has {number}," in said and "NaN" in said and "Traceback" not in said


def test_nan_marks_a_frame_without_a_label(tmp_path):
    rows = [{"id": "u", "label": ""}]
    corpus = write_corpus(tmp_path / "c", rows, "own", "abaw-8")
    import_arrays(corpus.store_path("number"), ["u"], np.arange(4.0)[:, None], np.array([0, 4]), "vision", FPS)
    values = np.array([[1], [np.nan], [7], [np.nan]])
    import_arrays(corpus.annotation_path("expression"), ["u"], values, np.array([0, 4]), "vision", FPS)
    assert trained(data_of(corpus)) == {"u": [(0, 1), (2, 7)]}


def test_two_tracks_of_one_video_stay_apart(tmp_path):
    """Two people of a video are two rows of it: each has its own labels and its half of the picture, in one split."""
    left, right = [label(k) for k in range(PICTURES)], [label(k + 3) for k in range(15)]
    files, videos = {}, {}
    for video in ("a", "b", "c", "valid"):
        part = "Validation_Set" if video == "valid" else "Train_Set"
        for side, labels in (("left", left), ("right", right)):
            files[f"{EXPR}/{part}/{video}_{side}"] = lines(labels)
        videos[video] = EVEN
    corpus = imported(tmp_path, files, videos, task="expression")
    assert corpus.info["overlap"] == {}
    assert [clip.crop for _, clip in clips_of(corpus)] == ["left", "right"] * 4
    data = data_of(corpus, "valid")
    for side, labels in (("left", left), ("right", right)):
        pairs = data.labels("emotion")[0].split(data.frames("emotion").tolist())
        row = data.table["id"].tolist().index(f"valid_{side}")
        assert pairs[row].tolist() == labels
    found, table = scored(corpus, tmp_path)
    assert found["n"] == len(left) + len(right) and found["protocol"]["groups"] == 1
    split = io.read_table(tmp_path / "run" / "split.parquet")
    assert (split.groupby("source")["split"].nunique() == 1).all()
    assert table.groupby("id").size().to_dict() == {"valid_left": 20, "valid_right": 15}


def test_the_halves_of_a_picture_go_to_their_own_rows(tmp_path):
    from affuse.media.write import write_clip

    src = release(tmp_path / "r", {f"{EXPR}/Train_Set/v_{s}": ["1"] * 5 for s in ("left", "right")})
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:, 32:] = 240
    (src / "batch1").mkdir()
    write_clip(src / "batch1" / "v.mp4", [picture] * 5, FPS)
    corpus = import_aff_wild2(src, tmp_path / "c", partial=True, rate=FPS)
    for name, clip in clips_of(corpus):
        mean = float(np.mean([frame.image.mean() for frame in clip.frames(FPS)]))
        assert mean < 40 if name == "v_left" else mean > 200


UNEVEN = [0.0, 0.1, 0.5, 0.6, 1.4, 1.5, 1.6, 1.7, 1.8, 2.6]  # 10 pictures in 2.7 s: mean 3.7 per second


@pytest.mark.parametrize("count", [10, 7, 12])
def test_labels_follow_the_pictures_of_a_variable_frame_rate(tmp_path, count):
    """A line per picture, as many as there are, fewer or more: each label stands while its picture is shown."""
    labels = [label(k) for k in range(count)]
    corpus = imported(tmp_path, {f"{EXPR}/Train_Set/v": lines(labels)}, {"v": UNEVEN}, task="expression")
    found = trained(data_of(corpus))["v"]
    with_picture = [(k, v) for k, v in found if k < len(UNEVEN) - 1]
    assert with_picture == [(k, label(k)) for k in shown() if k < min(count, len(UNEVEN) - 1)]
    last = [v for k, v in found if k == len(UNEVEN) - 1]
    assert not last if count == 7 else last[0] == label(9)
    assert set(last) == {label(k) for k in range(9, count)}


def shown() -> list[int]:
    """The picture that is shown at each step of 0.1 s."""
    steps = np.arange(round((UNEVEN[-1] + 0.1) * FPS)) / FPS
    return (np.searchsorted(np.array(UNEVEN) - 1e-6, steps, side="right") - 1).tolist()


def test_the_track_of_a_variable_frame_rate_is_as_long_as_the_video(tmp_path):
    labels = [label(k) for k in range(len(UNEVEN))]
    corpus = imported(tmp_path, {f"{EXPR}/Train_Set/v": lines(labels)}, {"v": UNEVEN}, task="expression")
    values = FeatureStore(corpus.annotation_path("expression")).get("v").values[:, 0]
    assert values[: len(shown())].tolist() == [label(k) for k in shown()]


def test_a_spread_label_reaches_every_step_of_a_variable_frame_rate(tmp_path):
    """A row of a part of the video gets the label for as many steps as it lasts, whatever the pictures do."""
    write_video(tmp_path / "v.mp4", UNEVEN)
    rows = [{"id": "u", "video": str(tmp_path / "v.mp4"), "start": 0.5, "end": 1.7, "label": "sad"}]
    corpus = write_corpus(tmp_path / "c", rows, "own", "abaw-8")
    ((_, clip),) = clips_of(corpus)
    numbers = [number_of(frame.image) for frame in clip.frames(FPS)]
    assert numbers == shown()[5:17]
    import_arrays(corpus.store_path("number"), ["u"], np.float64(numbers)[:, None], np.array([0, 12]), "vision", FPS)
    data = data_of(corpus, emotion={"space": "abaw-8", "resolution": "frame", "rate": FPS})
    assert trained(data) == {"u": [(k, data.tasks["emotion"].space.index("sad")) for k in numbers]}


def test_a_track_of_no_row_of_the_corpus_is_one_error(tmp_path):
    corpus = imported(tmp_path, {f"{EXPR}/Train_Set/v": ["1"] * 5}, {"v": EVEN}, task="expression")
    ids = [f"w{k}" for k in range(8)]
    other = write_corpus(tmp_path / "o", [{"id": i, "label": ""} for i in ids], "own", "abaw-8")
    import_arrays(other.store_path("number"), ids, np.zeros((40, 1)), np.arange(9) * 5, "vision", FPS)
    track = FeatureStore(corpus.annotation_path("expression")).get("v").values
    import_arrays(other.annotation_path("expression"), ["v"], track, np.array([0, len(track)]), "vision", FPS)
    with pytest.raises(BadCorpus, match="no training utterance is labelled for 'emotion'"):
        binding.check(binding.bind(make_recipe(RECIPE), other), other)
    assert torch.equal(data_of(other).labels("emotion")[1], torch.zeros(0, dtype=torch.bool))
