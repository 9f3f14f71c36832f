"""What users will feed us: cut, empty, forged and hostile files are refused with an error of ours, and run nothing."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affuse.cli.import_ import features
from affuse.core.errors import AffuseError, BadCorpus, BadFeatures
from affuse.corpora.erc_features import import_erc_features
from affuse.corpora.manifest import write_corpus
from affuse.corpora.table import import_table
from affuse.stores.tables import import_tables, read_openface, read_opensmile

JUNK = bytes(np.random.default_rng(0).integers(0, 256, 4096, dtype=np.uint8))
VALUES = np.arange(12.0).reshape(4, 3)
IDS = np.array(["u0", "u1", "u2", "u3"])


def npz(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def npy_of(shape: str, descr: str = "'<f8'", data: bytes = b"") -> bytes:
    """An .npy whose header says what it likes."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return out.getvalue()


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def flipped(data: bytes, at: int, n: int = 8) -> bytes:
    return data[:at] + bytes(255 - b for b in data[at : at + n]) + data[at + n :]


NPZ = {
    "truncated": npz(ids=IDS, values=VALUES)[:-40],
    "cut in half": npz(ids=IDS, values=VALUES)[:300],
    "empty": b"",
    "junk": JUNK,
    "an npy": npy(VALUES),
    "a zip of texts": zipped(ids=b"a,b", values=b"1,2"),
    "values of texts": zipped(ids=npy(IDS), values=b"1,2"),
    "damaged within": flipped(npz(ids=IDS, values=VALUES), npz(ids=IDS, values=VALUES).index(b"u\x00\x00\x000\x00")),
    "object values": npz(ids=IDS, values=np.array([[None]] * 4, dtype=object)),
    "object ids": npz(ids=np.array(list(IDS), dtype=object), values=VALUES),
    "text values": npz(ids=IDS, values=np.array([["a"]] * 4)),
    "complex values": npz(ids=IDS, values=VALUES * 1j),
    "structured values": npz(ids=IDS, values=np.zeros(4, dtype=[("a", "f4")])),
    "times": npz(ids=IDS, values=np.zeros((4, 2), dtype="datetime64[s]")),
    "scalar values": npz(ids=IDS, values=np.float64(1.0)),
    "flat values": npz(ids=IDS, values=VALUES[:, 0]),
    "values of no width": npz(ids=IDS, values=np.zeros((4, 0))),
    "scalar ids": npz(ids=np.array("u0"), values=VALUES[:1]),
    "ids in a square": npz(ids=IDS.reshape(2, 2), values=VALUES[:2]),
    "nan ids": npz(ids=np.array([np.nan, np.nan, 1, 2]), values=VALUES),
    "doubled ids": npz(ids=np.array(["u0", "u0", "u1", "u2"]), values=VALUES),
    "foreign ids": npz(ids=np.array(["x0", "x1", "x2", "x3"]), values=VALUES),
    "no ids": npz(values=VALUES),
    "nothing": npz(),
    "too few ids": npz(ids=IDS[:2], values=VALUES),
    "falling offsets": npz(ids=IDS[:2], values=VALUES, offsets=np.array([0, 5, 4])),
    "text offsets": npz(ids=IDS[:2], values=VALUES, offsets=np.array(["0", "two", "4"])),
    "nan offsets": npz(ids=IDS[:2], values=VALUES, offsets=np.array([0, np.nan, 4])),
    "scalar offsets": npz(ids=IDS[:2], values=VALUES, offsets=np.array(4)),
    "no offsets": npz(ids=IDS[:0], values=VALUES[:0], offsets=np.array([], dtype=int)),
    "square offsets": npz(ids=IDS[:1], values=VALUES, offsets=np.array([[0, 0], [0, 4]])),
    "huge shape": zipped(ids=npy(IDS), values=npy_of("(4, 1099511627776)")),
    "huger shape": zipped(ids=npy(IDS), values=npy_of("(99999999999999999999, 9)")),
    "negative shape": zipped(ids=npy(IDS), values=npy_of("(-4, 3)", data=VALUES.tobytes())),
    "shape that is code": zipped(ids=npy(IDS), values=npy_of("__import__('os').getpid()")),
    "pickled dtype": zipped(ids=npy(IDS), values=npy_of("(4,)", "'|O'", pickle.dumps([1, 2, 3, 4]))),
}


@pytest.mark.parametrize("case", NPZ)
def test_npz(tmp_path: Path, case: str) -> None:
    write_corpus(tmp_path / "c", [{"id": i, "label": "sad", "speaker": i} for i in IDS], "x")
    (tmp_path / "f.npz").write_bytes(NPZ[case])
    with pytest.raises(AffuseError):
        features(tmp_path / "c", "audio_x", tmp_path / "f.npz")
    assert not (tmp_path / "c" / "features" / "audio_x").exists()


CSV = {
    "empty": b"",
    "blank": b"\n\n\n",
    "header alone": b"id,label\n",
    "junk": JUNK,
    "nul bytes": b"id,label\x00\n" + b"\x00" * 200,
    "utf-16": "id,label\na,sad\n".encode("utf-16-le"),  # without a mark
    "too many cells": b"id,label\na,sad\nb,sad,1,2,3\n",
    "open quote": b'id,label\na,"sad\nb,sad\n',
    "doubled ids": b"id,label\na,sad\na,happy\n",
    "nan ids": b"id,label\n,sad\n,happy\n",
    "no column of ours": b"foo,bar\n1,2\n",
    "a zip": zipped(ids=b"1"),
    "times of words": b"id,label,start\na,sad,soon\n",
    "infinite times": b"id,label,start,end\na,sad,inf,inf\n",
    "infinite positions": b"id,label,position\na,sad,inf\n",
    "end before start": b"id,label,start,end\na,sad,2,1\n",
    "unknown split": b"id,label,split\na,sad,dev\n",
    "missing media": b"id,label,video\na,sad,x.mp4\n",
    "media that is a folder": b"id,label,video\na,sad,.\n",
    "media with a nul": b"id,label,video\na,sad,x\x01\x00.mp4\n",
    "a wide name": b"id,label,video\na,sad," + b"x" * 5000 + b".mp4\n",
    "doubled columns": b"id,id,label\na,b,sad\na,c,sad\n",
}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("case", CSV)
def test_tables(tmp_path: Path, case: str, suffix: str) -> None:
    data = CSV[case].replace(b",", b"\t") if suffix == ".tsv" and case not in ("junk", "a zip", "utf-16") else CSV[case]
    (tmp_path / f"t{suffix}").write_bytes(data)
    with pytest.raises(AffuseError):
        import_table(tmp_path / f"t{suffix}", tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_byte_order_mark_is_no_defect(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfid,label\na,sad\n")
    assert list(import_table(tmp_path / "t.csv", tmp_path / "c").table["id"]) == ["a"]


NAMES = ("Ses01F_impro01", "Ses05F_impro01")


def erc(**changes: Any) -> list[Any]:
    """A sound 9-field file of two dialogues, with some fields exchanged."""
    fields = {
        "ids": {n: [f"{n}_{s}{i:03d}" for i, s in enumerate("FMF")] for n in NAMES},
        "speakers": {n: list("FMF") for n in NAMES},
        "labels": {n: [0, 5, 0] for n in NAMES},
        "text": {n: np.ones((3, 8)) for n in NAMES},
        "audio": {n: np.ones((3, 6)) for n in NAMES},
        "vision": {n: np.ones((3, 5)) for n in NAMES},
        "words": {n: ["well, then", f"hello {n}", "a b c"] for n in NAMES},
        "train": {NAMES[0]},
        "test": {NAMES[1]},
    }
    return list({**fields, **changes}.values())


def test_the_sound_file_is_sound(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(tuple(erc())))
    assert len(import_erc_features(tmp_path, tmp_path / "c")) == 6


def endless() -> list[Any]:
    knot: list[Any] = []
    knot.append(knot)
    return knot


def each(value: Any) -> dict[str, Any]:
    return dict.fromkeys(NAMES, value)


ERC: dict[str, bytes] = {
    "truncated": pickle.dumps(erc())[:-30],
    "empty": b"",
    "junk": JUNK,
    "a text": b"hello",
    "byte order mark": b"\xef\xbb\xbf" + pickle.dumps(erc()),
    **{
        case: pickle.dumps(content, 4)
        for case, content in {
            "a number": 1,
            "an array": np.zeros((9, 3)),
            "an empty tuple": (),
            "nine dicts of nothing": [{}] * 9,
            "itself": endless(),
            "a dialogue in itself": erc(text=each(endless())),
            "object vectors": erc(text=each(np.array([[None, 1], [2, 3], [4, 5]], dtype=object))),
            "text vectors": erc(text=each([["1", "2"]] * 3)),
            "vectors of no width": erc(text=each(np.zeros((3, 0)))),
            "cubes": erc(text=each(np.zeros((3, 2, 2)))),
            "label beyond": erc(labels=each([0, 1, 10**30])),
            "nan labels": erc(labels=each([float("nan")] * 3)),
            "negative labels": erc(labels=each([-7, 0, 5])),
            "all labels missing": erc(labels=each([-1, -1, -1])),
            "nan dialogues": erc(train={float("nan")}),
            "no dialogue": erc(train=set()),
            "a mapping of splits": erc(train={"a": "train"}),
            "doubled ids": erc(
                ids=each(["Ses01F_impro01_F000", "Ses01F_impro01_F001", "Ses01F_impro01_F002"]),
                words=None,
                extra=object,
            ),
            "mixed speakers": erc(speakers=each(["F", 1, None])),
            "one sentence fewer": erc(words={NAMES[0]: ["a b", "c d"], NAMES[1]: ["e f", "g h", "i j"]}),
            "doubled dialogues": erc(labels={0: [0, 5, 0], "0": [0, 5, 0]}),
            "ids of arrays": erc(train=[np.zeros(2)]),
        }.items()
    },
}


@pytest.mark.parametrize("case", ERC)
def test_erc_pickles(tmp_path: Path, case: str) -> None:
    (tmp_path / "x.pkl").write_bytes(ERC[case])
    with pytest.raises(AffuseError):
        import_erc_features(tmp_path, tmp_path / "c")
    assert not (tmp_path / "c").exists()


class Gadget:
    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call, self.arguments


class Stateful:
    """Reduces to a harmless object and sets its state to code."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (), None, None, iter([("x", Gadget(os.system, f"touch {self.path}"))])


def global_call(module: str, name: str, argument: str) -> bytes:
    return f"c{module}\n{name}\n(V{argument}\ntR.".encode()


ATTACKS: dict[str, Callable[[str], Any]] = {
    "os.system": lambda mark: Gadget(os.system, f"touch {mark}"),
    "eval": lambda mark: Gadget(eval, f"open({mark!r}, 'w')"),
    "exec": lambda mark: Gadget(exec, f"open({mark!r}, 'w')"),
    "open": lambda mark: Gadget(open, mark, "w"),
    "getattr": lambda mark: Gadget(getattr, "x", "upper"),
    "import": lambda mark: Gadget(__import__, "os"),
    "numpy.load of a pickle": lambda mark: Gadget(np.load, mark, None, True),
    "numpy.savetxt": lambda mark: Gadget(np.savetxt, mark, [1]),
    "array.tofile": lambda mark: Gadget(np.ndarray.tofile, np.zeros(2), mark),
    "items of a dict": Stateful,
}
RAW: dict[str, Callable[[str], bytes]] = {
    "posix.system": lambda mark: global_call("posix", "system", f"touch {mark}"),
    "eval of python 2": lambda mark: global_call("__builtin__", "eval", f"open({mark!r}, 'w')"),
    "multiarray's own names": lambda mark: global_call("numpy.core.multiarray", "os.system", f"touch {mark}"),
    "numpy.core.multiarray.sys": lambda mark: b"cnumpy.core.multiarray\nsys\n.",
    "numpy._core.multiarray.functools": lambda mark: b"cnumpy._core.multiarray\nfunctools\n.",
    "numpy.testing": lambda mark: global_call("numpy.testing._private.utils", "runstring", f"open({mark!r}, 'w')"),
    "numpy.distutils": lambda mark: global_call("numpy.distutils.exec_command", "_exec_command", f"touch {mark}"),
    "codecs": lambda mark: global_call("_codecs", "decode", mark),
    "dotted dict": lambda mark: b"\x80\x04\x8c\x08builtins\x8c\x12dict.__class__.mro\x93.",
    "class of a tuple": lambda mark: b"\x80\x04\x8c\x08builtins\x8c\x0ftuple.__class__\x93.",
}


@pytest.mark.parametrize("wrap", ["alone", "as a field", "within a dialogue", "as a key", "after the end"])
@pytest.mark.parametrize("attack", [*ATTACKS, *RAW])
def test_hostile_pickles_run_nothing(tmp_path: Path, attack: str, wrap: str) -> None:
    mark = tmp_path / "mark"
    if attack in RAW:
        data = RAW[attack](str(mark))
        if wrap != "alone":  # in front of a sound file: a pickle runs as it is read
            head = pickle.dumps(tuple(erc()), 0)
            data = b"(" + data[:-1] + b"0" + head[:-1] + b"t." if b"\x80" not in data[:1] else data
    else:
        evil = ATTACKS[attack](str(mark))
        content: Any = {
            "alone": evil,
            "as a field": tuple(erc(train=evil)),
            "within a dialogue": tuple(erc(text=each([evil, [1.0], [2.0]]))),
            "as a key": tuple(erc(labels={(evil,): [0, 5, 0]})) if attack != "items of a dict" else evil,
            "after the end": (*erc(), evil),
        }[wrap]
        data = pickle.dumps(content)
    (tmp_path / "x.pkl").write_bytes(data)
    with pytest.raises(BadFeatures, match="refused"):
        import_erc_features(tmp_path, tmp_path / "c")
    assert not mark.exists()
    assert not (tmp_path / "c").exists()


FACE = "frame, face_id, timestamp, confidence, success, AU01_r, AU01_c"
ROW = "{}, 0, {:.3f}, 0.98, 1, 0.5, 1"


def face(*rows: str, header: str = FACE) -> bytes:
    return "\n".join([header, *rows, ""]).encode()


GOOD = [ROW.format(i + 1, i / 25) for i in range(5)]
OPENFACE = {
    "empty": b"",
    "blank": b"\n \n",
    "header alone": face(),
    "no header": face(*GOOD[1:], header=GOOD[0]),
    "truncated": face(*GOOD)[:-8],
    "junk": JUNK,
    "nul bytes": face(*GOOD).replace(b"0.5", b"0\x005"),
    "utf-16": face(*GOOD).decode().encode("utf-16-le"),  # without a mark
    "words": face(*GOOD, ROW.format(6, 0.2).replace("0.5", "hello")),
    "truth": face(*[r.replace("0.5", "True") for r in GOOD]),
    "doubled frames": face(*GOOD, GOOD[-1]),
    "doubled columns": face(*GOOD, header=FACE.replace("AU01_c", "AU01_r")),
    "no timestamp": face(*GOOD, header=FACE.replace("timestamp", "time")),
    "no success": face(*GOOD, header=FACE.replace("success", "sukzess").replace("confidence", "konfidenz")),
    "no measurements": face("1, 0, 0.000, 0.98, 1", header="frame, face_id, timestamp, confidence, success"),
    "too many cells": face(*GOOD, GOOD[0] + ", 1, 2"),
    "huge frame number": face(*GOOD, ROW.format(10**8, 0.24)),
    "huger frame number": face(*GOOD, ROW.format(10**30, 0.24)),
    "huge time": face(*GOOD, ROW.format(6, 1e300)),
    "nan frame": face(*GOOD, ROW.format("nan", 0.24)),
    "nan time": face(*GOOD, ROW.format(6, float("nan"))),
    "infinite time": face(*GOOD, ROW.format(6, float("inf"))),
    "standing clock": face(*[ROW.format(i + 1, 0.0) for i in range(5)]),
    "falling clock": face(*[ROW.format(i + 1, 1 - i / 25) for i in range(5)]),
    "open quote": face(*GOOD, ROW.format(6, 0.2).replace("0.5", '"0.5')),
}


@pytest.mark.parametrize("case", OPENFACE)
def test_openface_tables(tmp_path: Path, case: str) -> None:
    (tmp_path / "bad.csv").write_bytes(OPENFACE[case])
    (tmp_path / "good.csv").write_bytes(face(*GOOD))
    with pytest.raises(BadFeatures):
        read_openface(tmp_path / "bad.csv")
    store = import_tables(tmp_path / "s", {"bad": tmp_path / "bad.csv", "good": tmp_path / "good.csv"}, "openface")
    assert store.ids == ["good"]
    assert set(store.failures["bad"]) == {"type", "message", "remedy"}


OPENSMILE = {
    "empty": b"",
    "junk": JUNK,
    "no header": b"'a';0.00;1.5\n'a';0.01;1.5\n",
    "two clips": b"name;frameTime;x\n'a';0;1\n'b';0;1\n",
    "no time": b"name;x;y\n'a';1;2\n'a';1;2\n",
    "standing clock": b"name;frameTime;x\n'a';0;1\n'a';0;2\n",
    "falling clock": b"name;frameTime;x\n'a';1;1\n'a';0;2\n",
    "times of words": b"file,start,end,x\na,now,then,1\na,then,now,1\n",
    "truncated": b"name;frameTime;x;y\n'a';0;1;2\n'a';0.01;1\n",
    "words": b"name;frameTime;x\n'a';0;loud\n",
    "an arff": b"@relation openSMILE\n@attribute name string\n@data\n'a',1,2\n",
}


@pytest.mark.parametrize("case", OPENSMILE)
def test_opensmile_tables(tmp_path: Path, case: str) -> None:
    (tmp_path / "bad.csv").write_bytes(OPENSMILE[case])
    with pytest.raises(BadFeatures):
        read_opensmile(tmp_path / "bad.csv")


def test_rows_longer_than_the_header_are_no_shifted_columns(tmp_path):
    from affuse.corpora.reading.release import read_csv

    path = tmp_path / "labels.csv"
    path.write_text("id,label\na,happy,1\nb,sad,2\n")
    with pytest.raises(BadCorpus, match="more cells than the header"):
        read_csv(path, "id", "label")
