"""Challenge files with a row per clip: cells by kind, the task that answers, the part, and every damage by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from affuse.core.errors import BadConfig, BadCorpus, MissingFile, StorageError
from affuse.core.labels import SPACES, LabelSpace
from affuse.core.tasks import Task
from affuse.reporting.submissions.clip_files import read_clips, write_clips
from affuse.reporting.submissions.clips import MER2023, MUSE_MIMIC, rows_for

EMOTION = Task("emotion", SPACES["mer2023-6"])
VALENCE = Task("valence", SPACES["mer2023-valence"])
MIMIC = Task("mimic", SPACES["muse-mimic-3"])
BOTH = {"emotion": EMOTION, "valence": VALENCE}
ROWS = {"s1": ("happy", "0.500000"), "s2": ("surprise", "-5.000000")}


def test_a_class_is_written_by_name_and_values_are_moved_into_the_range():
    predicted = {"emotion": np.eye(6)[[2, 5, 0]], "valence": np.array([[0.5], [-7.0], [-1e-9]])}
    rows, moved = rows_for(MER2023, ["s1", "s2", "s3"], [EMOTION, VALENCE], predicted)
    assert rows == ROWS | {"s3": ("neutral", "0.000000")}
    assert moved == 1
    turned = Task("emotion", LabelSpace("mine", ("worry", "joy", "sadness", "anger", "surprise", "neutral")))
    rows, _ = rows_for(MER2023, ["s1"], [turned, None], {"emotion": np.eye(6)[[1]]})
    assert rows == {"s1": ("happy", "-10")}
    order = Task("m", replace(MIMIC.space, labels=("uncertainty", "approval", "disappointment")))
    rows, moved = rows_for(MUSE_MIMIC, ["a"], [order], {"m": np.array([[1.5, 0.25, -0.5]])})
    assert (rows, moved) == ({"a": ("0.250000", "0.000000", "1.000000")}, 2)


def test_the_tasks_that_answer_and_what_is_refused():
    assert MER2023.tasks_of("r", BOTH, "multi") == [EMOTION, VALENCE]
    assert MER2023.tasks_of("r", {"emotion": EMOTION}, "semi") == [EMOTION, None]
    refused = {
        "mer2023 needs values, and r predicts emotion (classes)": {"emotion": EMOTION},
        "mer2023 needs classes, and r predicts valence (values)": {"valence": VALENCE},
        "'emotion' of r has a class 'anxious' that the challenge has not": BOTH
        | {"emotion": Task("emotion", SPACES["cheavd-8"])},
        "'emotion' of r has no class 'worried'": BOTH | {"emotion": Task("emotion", SPACES["iemocap-4"])},
        "'emotion' of r answers per frame, not per clip": BOTH | {"emotion": replace(EMOTION, resolution="frame")},
        "'valence' of r has no 'valence'": BOTH | {"valence": Task("valence", SPACES["sentiment"])},
        "'valence' of r has values from -1 to 1, not -5 to 5": BOTH
        | {"valence": Task("valence", LabelSpace("v", ("valence",), "values", -1.0, 1.0))},
    }
    for message, tasks in refused.items():
        with pytest.raises(BadConfig) as caught:
            MER2023.tasks_of("r", tasks, "noise")
        assert caught.value.message == message
    with pytest.raises(BadConfig, match="needs values"):
        MUSE_MIMIC.tasks_of("r", {"emotion": EMOTION}, "test")


def test_a_file_is_read_back_as_it_was_written(tmp_path):
    write_clips(tmp_path / "p.csv", MER2023, "multi", ROWS)
    assert (tmp_path / "p.csv").read_text() == "name,discrete,valence\ns1,happy,0.500000\ns2,surprise,-5.000000\n"
    values = {"m 1": ("0.250000", "0.000000", "1.000000")}
    write_clips(tmp_path / "m.csv", MUSE_MIMIC, "test", values)
    written = 'filename,Approval_,Disappointment_,Uncertainty_\n"""m 1""",0.250000,0.000000,1.000000\n'
    assert (tmp_path / "m.csv").read_text() == written
    assert read_clips(tmp_path / "m.csv", MUSE_MIMIC, "test", ["m 1"]) == values


def test_what_is_not_read_back_the_same_gets_no_name(tmp_path):
    with pytest.raises(BadCorpus, match="'nan' is no valence"):
        write_clips(tmp_path / "p.csv", MER2023, "multi", {"s1": ("happy", "nan")})
    with pytest.raises(BadCorpus, match="'-10' is no valence"):
        write_clips(tmp_path / "p.csv", MER2023, "noise", {"s1": ("happy", "-10")})
    with pytest.raises(StorageError, match="not written as it should be"):
        write_clips(tmp_path / "p.csv", MER2023, "multi", {"s1": ["happy", "1"]})
    assert list(tmp_path.iterdir()) == []
    write_clips(tmp_path / "p.csv", MER2023, "semi", {"s1": ("happy", "-10")})


HEAD = "name,discrete,valence\n"
GOOD = f"{HEAD}s1,happy,1\ns2,sad,-5\n"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "begins with ''"),
        (GOOD.replace("discrete", "emotion"), "begins with 'name,emotion,valence'"),
        (HEAD, "lacks 2 of the 2 clips of multi, such as 's1'"),
        (f"{HEAD}s1,happy,1\n", "lacks 1 of the 2 clips of multi, such as 's2'"),
        (f"{GOOD}s3,sad,1\n", "line 4: 's3' is no clip of multi"),
        (f"{GOOD}s1,sad,1\n", "line 4: 's1' is there twice"),
        (GOOD.replace("happy", "bored"), "line 2: 'bored' is no discrete"),
        (GOOD.replace("happy", "Happy"), "'Happy' is no discrete"),
        (GOOD.replace("-5", "-5.1"), "line 3: '-5.1' is no valence"),
        (GOOD.replace("-5", "inf"), "'inf' is no valence"),
        (GOOD.replace("-5", "-10"), "'-10' is no valence"),
        (GOOD.replace("-5", ""), "'' is no valence"),
        (GOOD.replace(",-5", ""), "line 3: 2 cells"),
    ],
)
def test_damaged_files_are_named(tmp_path, text, error):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(BadCorpus, match=error):
        read_clips(tmp_path / "p.csv", MER2023, "multi", ["s1", "s2"])


def test_files_that_are_no_text_or_not_there(tmp_path):
    (tmp_path / "p.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadCorpus, match="is no table of text"):
        read_clips(tmp_path / "p.csv", MER2023, "multi", ["s1"])
    with pytest.raises(MissingFile, match=r"no file .*q\.csv"):
        read_clips(tmp_path / "q.csv", MER2023, "multi", ["s1"])
