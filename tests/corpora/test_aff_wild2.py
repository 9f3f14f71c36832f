from __future__ import annotations

import csv

import numpy as np
import pytest

from affuse.core.errors import BadConfig, BadCorpus, BadMedia
from affuse.core.labels import SPACES, canonical
from affuse.corpora.aff_wild2 import TRACKS, UNITS, import_aff_wild2, on_clock
from affuse.media.write import write_clip
from affuse.stores.store import FeatureStore

VA, EXPR, AU = "VA_Estimation_Challenge", "EXPR_Classification_Challenge", "AU_Detection_Challenge"
HEADER = {
    VA: "valence,arousal",
    EXPR: "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other",
    AU: ",".join(UNITS),
}
ZERO = ",".join("0" * 12)
FILES = {
    f"{VA}/Train_Set/9-25-64x48": ["-0.5,0.25", "-5,-5", "-5.0,0.5", "1,-1"],
    f"{VA}/Train_Set/video2": ["0.1,0.2"] * 3,
    f"{VA}/Validation_Set/46-30-484x360_left": ["0,0", "0.5,0.5"],
    f"{VA}/Validation_Set/46-30-484x360_right": ["0,0", "-0.5,0.5"],
    f"{EXPR}/Train_Set/9-25-64x48": ["0", "7", "-1", "4"],
    f"{EXPR}/Validation_Set/video2": ["-1", "-1", "-1"],
    f"{EXPR}/Train_Set/video2_left": ["6", "5"],
    f"{AU}/Train_Set/9-25-64x48": [ZERO, ",".join("1" * 12), ",".join(["-1"] * 12), "1,-1," + ",".join("0" * 10)],
    f"{AU}/Validation_Set/46-30-484x360_right": [ZERO] * 2,
}
SOURCES = ("9-25-64x48", "video2", "46-30-484x360")


def release(folder, files=FILES):
    """Annotation folders of the challenges as of ABAW 3 to 8, without media."""
    for name, lines in files.items():
        path = folder / "annotations" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([HEADER[name.split("/")[0]], *lines]) + "\n")
    return folder


def add_videos(folder, fps=25.0):
    (folder / "batch1").mkdir()
    for name, n in zip(SOURCES, (4, 3, 2), strict=True):
        write_clip(folder / "batch1" / f"{name}.mp4", [np.zeros((48, 64, 3), np.uint8)] * n, fps)
    return folder


def track(corpus, name):
    return FeatureStore(corpus.annotation_path(name))


def test_frames_of_a_release_with_its_videos(tmp_path):
    src = add_videos(release(tmp_path / "r"))
    for n in (1, 2, 4):
        picture = src / "cropped_aligned" / "9-25-64x48" / f"{n:05d}.jpg"
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.touch()
    corpus = import_aff_wild2(src, tmp_path / "c", rate=25.0)
    assert "partial" not in corpus.info
    table = corpus.table.set_index("id")
    assert list(table.index) == ["46-30-484x360_left", "46-30-484x360_right", "9-25-64x48", "video2", "video2_left"]
    assert list(table["source"]) == ["46-30-484x360", "46-30-484x360", "9-25-64x48", "video2", "video2"]
    assert table.loc["46-30-484x360_left", "video"] == table.loc["46-30-484x360_right", "video"]
    assert set(table["fps_from"]) == {"video"}
    assert list(table["fps"]) == [25.0] * 5
    assert table.loc["9-25-64x48", ["frames", "pictures", "crops"]].tolist() == [4, 4, 3]
    assert set(table["label"]) == {""}
    assert corpus.info["tracks"]["expression"] == list(SPACES["abaw-8"].labels)
    assert [canonical(e) for e in TRACKS["expression"].header] == list(SPACES["abaw-8"].labels)

    affect = track(corpus, "valence_arousal")["9-25-64x48"]
    np.testing.assert_array_equal(affect.values, np.float32([[-0.5, 0.25], [np.nan, np.nan], [np.nan, 0.5], [1, -1]]))
    assert affect.valid.tolist() == [True, False, True, True]
    face = track(corpus, "expression")["9-25-64x48"]
    assert face.values[[0, 1, 3], 0].tolist() == [0, 7, 4]
    assert face.valid.tolist() == [True, True, False, True]
    units = track(corpus, "action_units")["9-25-64x48"]
    assert units.values.shape == (4, 12)
    assert units.valid.tolist() == [True, True, False, True]
    assert np.isnan(units.values[3]).tolist() == [False, True, *[False] * 10]
    assert track(corpus, "expression").length("video2") == 0  # every frame is marked missing
    assert "46-30-484x360_left" not in track(corpus, "action_units")


def test_all_challenges_hold_out_whatever_one_validates_on_with_its_video(tmp_path):
    src = add_videos(release(tmp_path / "r"))
    corpus = import_aff_wild2(src, tmp_path / "c", rate=25.0)
    table = corpus.table.set_index("id")
    assert table["split"].to_dict() == {
        "46-30-484x360_left": "valid",
        "46-30-484x360_right": "valid",
        "9-25-64x48": "train",
        "video2": "valid",
        "video2_left": "valid",
    }
    splits = ["split_valence_arousal", "split_expression", "split_action_units"]
    assert table.loc["video2", splits].tolist() == ["train", "valid", ""]
    assert corpus.info["overlap"] == {}
    assert any("1 rows are in the training set of one challenge" in line for line in corpus.info["warnings"])
    alone = import_aff_wild2(src, tmp_path / "d", task="expression", rate=25.0, partial=True)
    assert alone.table.set_index("id")["split"].to_dict() == {
        "9-25-64x48": "train",
        "video2": "valid",
        "video2_left": "train",
    }
    assert alone.info["overlap"] == {"source": {"train/valid": ["video2"]}}
    assert [p.name for p in alone.annotation_path("expression").parent.iterdir()] == ["expression"]


def test_frame_rates_come_from_the_video_the_name_or_the_option(tmp_path):
    src = release(tmp_path / "r")
    corpus = import_aff_wild2(src, tmp_path / "c", partial=True, fps=15.0, rate=30.0)
    table = corpus.table.set_index("id")
    assert table["fps"].to_dict() == {
        "46-30-484x360_left": 30.0,
        "46-30-484x360_right": 30.0,
        "9-25-64x48": 25.0,
        "video2": 15.0,
        "video2_left": 15.0,
    }
    assert table.loc["9-25-64x48", "fps_from"] == "name"
    assert "videos: 0 of 3" in corpus.info["partial"]
    assert track(corpus, "expression")["video2_left"].values[:, 0].tolist() == [6, 6, 5, 5]
    text = "\n".join(corpus.info["warnings"])
    assert "frame rates of 3 rows are read from their names" in text
    assert "frame rates of 2 rows are not known" in text
    assert "3 rows are not at 30 frames per second" in text


def test_a_track_shows_the_frame_of_each_instant():
    frames = np.arange(48, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(on_clock(frames, 24, 0.0, 24), frames)
    for fps, start, rate in ((24, 0.0, 30), (60, 0.0, 30), (29.97, 0.5, 30), (17, 0.04, 25)):
        steps = on_clock(frames, fps, start, rate)
        times = np.arange(len(steps)) / rate
        shown = times >= start - 1e-9
        assert np.isnan(steps[~shown]).all()
        late = times[shown] - (start + steps[shown, 0] / fps)
        assert ((late > -1e-6) & (late < 1 / fps + 1e-6)).all()
        assert abs(len(steps) / rate - (start + 48 / fps)) <= 1 / rate


def test_missing_sets_and_videos_need_partial(tmp_path):
    files = {k: v for k, v in FILES.items() if k.startswith(VA) and "Train" in k}
    add_videos(release(tmp_path / "r", files))
    with pytest.raises(BadCorpus, match=rf"incomplete.*{VA}/Validation_Set: 0 of 1"):
        import_aff_wild2(tmp_path / "r", tmp_path / "c", task="valence_arousal")
    assert not (tmp_path / "c").exists()
    corpus = import_aff_wild2(tmp_path / "r", tmp_path / "c", partial=True)
    assert f"{EXPR}/Train_Set: 0 of 1" in corpus.info["partial"]
    assert len(corpus.info["partial"]) == 5
    with pytest.raises(BadCorpus, match="no frame labels for task=expression"):
        import_aff_wild2(tmp_path / "r", tmp_path / "d", task="expression", partial=True)
    with pytest.raises(BadConfig, match=r"rate = 0"):
        import_aff_wild2(tmp_path / "r", tmp_path / "d", rate=0)


def test_a_damaged_video_is_an_error_or_a_shortfall(tmp_path):
    src = add_videos(release(tmp_path / "r"))
    (src / "batch1" / "video2.mp4").write_bytes(b"no clip")
    with pytest.raises(BadMedia, match=r"video2\.mp4"):
        import_aff_wild2(src, tmp_path / "c")
    corpus = import_aff_wild2(src, tmp_path / "c", partial=True)
    assert corpus.info["partial"] == ["videos: 2 of 3"]
    assert corpus.table.set_index("id").loc["video2", ["video", "fps_from"]].tolist() == ["", "assumed"]


def test_another_number_of_pictures_is_reported_and_the_folder_of_abaw_6_is_known(tmp_path):
    src = add_videos(release(tmp_path / "r", {**FILES, f"{VA}/Train_Set/video2": ["0.1,0.2"] * 5}))
    (src / "annotations" / EXPR).rename(src / "annotations" / "EXPR_Recognition_Challenge")
    corpus = import_aff_wild2(src, tmp_path / "c")
    assert "label lines and pictures differ in number, most in 'video2': +2" in corpus.info["warnings"]
    assert len(track(corpus, "expression")) == 3


@pytest.mark.parametrize(
    ("name", "change", "error"),
    [
        (f"{VA}/Train_Set/video2", ("valence,arousal\n", ""), "begins with '0.1,0.2'"),
        (f"{VA}/Train_Set/video2", ("0.1,0.2\n0.1", "0.1,0.2\n\n0.1"), "4 lines that read as 3 x 2"),
        (f"{VA}/Train_Set/video2", ("0.1,0.2\n0.1", "0.1,0.2\n0.1,"), r"video2\.txt: .*(columns|convert)"),
        (f"{VA}/Train_Set/video2", ("0.1", "1.5"), "line of labels 1: 1.5 is no value of valence"),
        (f"{VA}/Train_Set/video2", ("0.1", "nan"), "line of labels 1: nan"),
        (f"{VA}/Train_Set/video2", ("0.1", "soon"), "soon"),
        (f"{VA}/Train_Set/video2", ("0.1,0.2\n0.1,0.2\n0.1,0.2\n", ""), "no lines of labels"),
        (f"{EXPR}/Train_Set/9-25-64x48", ("7", "8"), "line of labels 2: 8 is no value of Neutral"),
        (f"{EXPR}/Train_Set/9-25-64x48", ("7", "0.5"), "0.5 is no value"),
        (f"{EXPR}/Train_Set/9-25-64x48", (",Other", ""), "begins with"),
        (f"{AU}/Train_Set/9-25-64x48", ("1,1", "2,1"), "2 is no value of AU1/AU2"),
        (f"{AU}/Train_Set/9-25-64x48", ("AU1,AU2", "AU2,AU1"), "begins with 'AU2,AU1"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, change, error):
    path = release(tmp_path / "r") / "annotations" / f"{name}.txt"
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change, 1))
    with pytest.raises(BadCorpus, match=error):
        import_aff_wild2(tmp_path / "r", tmp_path / "c", partial=True)
    assert not (tmp_path / "c").exists()


def test_a_video_in_both_sets_and_a_binary_file_are_refused(tmp_path):
    src = release(tmp_path / "r", {**FILES, f"{VA}/Validation_Set/video2": ["0,0"]})
    with pytest.raises(BadCorpus, match=f"{VA}: 'video2' is in both sets"):
        import_aff_wild2(src, tmp_path / "c", partial=True)
    (src / "annotations" / VA / "Train_Set" / "video2.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadCorpus, match=r"video2\.txt is not a text file"):
        import_aff_wild2(src, tmp_path / "c", partial=True)


LISTED = [
    f"video2/00001.jpg,0.5,-0.5,7,{ZERO}",
    f"video2/00004.jpg,-5,-5,-1,1,{ZERO[2:]}",
    f"46-30-484x360_left/00002.jpg,0,0,3,{','.join(['-1'] * 12)}",
]


def multi_task(folder, lines=LISTED, name="validation_set_annotations.txt"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join(["image,valence,arousal,expression,aus", *lines]) + "\n")
    return folder


def test_multi_task_frames_that_are_not_listed_have_no_label(tmp_path):
    multi_task(tmp_path / "r")
    multi_task(tmp_path / "r", [f"9-25-64x48/00001.jpg,0,0,0,{ZERO}"], "training_set_annotations.txt")
    corpus = import_aff_wild2(tmp_path / "r", tmp_path / "c", partial=True)
    assert corpus.info["partial"] == ["videos: 0 of 3"]
    assert corpus.table.set_index("id")["split"].to_dict() == {
        "46-30-484x360_left": "valid",
        "9-25-64x48": "train",
        "video2": "valid",
    }
    affect, face, units = (track(corpus, name)["video2"] for name in TRACKS)
    assert affect.valid.tolist() == face.valid.tolist() == [True, False, False, False]
    assert units.valid.tolist() == [True, False, False, True]
    assert units.values[3].tolist() == [1.0, *[0.0] * 11]
    assert face.values[0] == 7
    assert track(corpus, "action_units").length("46-30-484x360_left") == 0


def test_multi_task_lists_with_doubles_warn_and_damaged_ones_fail(tmp_path):
    corpus = import_aff_wild2(multi_task(tmp_path / "r", [*LISTED, LISTED[0]]), tmp_path / "c", partial=True)
    assert "validation_set_annotations.txt lists 1 images twice: the later line counts" in corpus.info["warnings"]
    wrong = {
        "video2/1.jpg,0,0,0," + ZERO: "does not begin with VIDEO/00001",
        "video2/00000.jpg,0,0,0," + ZERO: "'video2' has a frame 00000",
        "video2/00009.jpg,0,0,0": "columns",
        "video2/00009.jpg,0,0,9," + ZERO: "9 is no value of Neutral",
    }
    for line, error in wrong.items():
        with pytest.raises(BadCorpus, match=error):
            import_aff_wild2(multi_task(tmp_path / "r", [*LISTED, line]), tmp_path / "d", partial=True)
    multi_task(multi_task(tmp_path / "r"), LISTED[:1], "training_set_annotations.txt")
    with pytest.raises(BadCorpus, match="'video2' is in both sets"):
        import_aff_wild2(tmp_path / "r", tmp_path / "d", partial=True)
    assert not (tmp_path / "d").exists()


def test_the_real_multi_task_validation_set(shared_data, tmp_path):
    src = shared_data / "abaw7_mtl"
    corpus = import_aff_wild2(src, tmp_path / "c", partial=True, rate=60.0, fps=60.0)
    with (src / "val.csv").open() as file:
        lines = list(csv.reader(file))
    assert (len(lines), len(corpus)) == (26666, 50)
    assert corpus.info["partial"] == ["training_set_annotations.txt: 0 of 1", "videos: 0 of 50"]
    assert set(corpus.table["split"]) == {"valid"}
    affect, face, units = (track(corpus, name) for name in TRACKS)
    # Videos whose frames are the steps of the track: every listed value is there, and nothing else.
    at_60 = set(corpus.table.loc[corpus.table["fps"] == 60.0, "id"])
    listed = [line for line in lines if line[0].split("/")[0] in at_60]
    assert len(at_60) > 30
    steps = sum(int(affect[i].valid.sum()) for i in at_60)
    assert steps == len(listed)
    assert sum(int(np.isfinite(face[i].values).sum()) for i in at_60) == sum(line[3] != "-1" for line in listed)
    for line in listed[:: len(listed) // 200]:
        name, frame = line[0][:-4].split("/")
        at = int(frame) - 1
        np.testing.assert_allclose(affect[name].values[at], [float(v) for v in line[1:3]], rtol=1e-6)
        np.testing.assert_array_equal(units[name].values[at], [float(v) for v in line[4:]])
        if line[3] != "-1":
            assert face[name].values[at, 0] == float(line[3])


def test_linked_folders_are_entered(tmp_path):
    add_videos(release(tmp_path / "disk"))
    src = tmp_path / "r"
    src.mkdir()
    for name in ("annotations", "batch1"):
        (src / name).symlink_to(tmp_path / "disk" / name)
    (src / "round").symlink_to(src)
    assert import_aff_wild2(src, tmp_path / "c").hash == import_aff_wild2(tmp_path / "disk", tmp_path / "d").hash
