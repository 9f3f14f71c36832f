"""Files with damaged headers, cut, lengthened, full of junk: an error of ours or a result, never a crash or a hang.

They are read in processes of their own (tests/fuzzed.py) with bounds on memory and time, spread as extraction is: what
kills a native decoder (FFmpeg, HDF5) costs one file.
"""

from __future__ import annotations

import io
import re
import struct
import sys
import wave
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import av
import hypothesis
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, settings
from hypothesis import strategies as st

from affuse.core.processes import spread
from affuse.core.types import Feature, StreamSpec
from affuse.corpora.manifest import write_corpus
from affuse.media.write import write_clip
from affuse.stores.store import StoreWriter, shard_path, store_card
from tests.corpora.sentiment_releases import MOSI, csd, frames, words
from tests.corpora.test_meld import HEADER, LINES

if sys.platform != "linux":
    pytest.skip("memory is bounded as Linux does it", allow_module_level=True)
pytest.importorskip("h5py")

# Damaged files per family: 1,160 in all.
CASES = {"wav": 150, "mp4": 250, "csd": 250, "npz": 150, "shard": 100, "table": 80, "meld": 80, "tables": 100}
NUMBERS = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
MARKS = (b",", b";", b'"', b"'", b"\n", b"\r", b"\t", b"\0")
CELLS = (*MARKS, b"nan", b"inf", b"-1", b"1e999", b"9" * 30, b"x", b"\xff\xfe", b"\xc3\xa9")
CHECKS = list(HealthCheck)
Edit = tuple[Any, ...]


@dataclass(frozen=True)
class Intact:
    """A valid file and those it comes with; most damage is within `head` and around what the pattern `marks` finds."""

    name: str
    data: bytes
    marks: bytes
    head: tuple[int, int] | None = None
    others: dict[str, bytes] = field(default_factory=dict)

    def edits(self) -> st.SearchStrategy[list[Edit]]:
        """One to three changes of bytes, numbers, lengths."""
        last = len(self.data) - 1
        near = {m.start() + d for m in re.finditer(self.marks, self.data) for d in range(-4, 32, 2)}
        fields = sorted(n for n in near if 0 <= n <= last)
        at = st.one_of(st.sampled_from(fields), st.integers(*self.head or (0, last)), st.integers(0, last))
        junk = st.one_of(st.sampled_from(CELLS), st.binary(min_size=1, max_size=40))
        kinds = st.sampled_from(["<B", "<H", ">H", "<I", ">I", "<Q", ">Q"])
        flip = st.tuples(st.just("flip"), at, st.integers(1, 255))
        number = st.tuples(st.just("number"), at, kinds, st.sampled_from(NUMBERS))
        edit = st.one_of(
            flip,
            number,
            flip,
            number,
            st.tuples(st.just("insert"), at, junk),
            st.tuples(st.just("drop"), at, st.integers(1, 64)),
            st.tuples(st.just("cut"), at),
            st.tuples(st.just("append"), st.binary(min_size=1, max_size=400)),
        )
        return st.lists(edit, min_size=1, max_size=3)


def damaged(data: bytes, edits: list[Edit]) -> bytes:
    for edit in edits:
        match edit:
            case "flip", at, bits:
                data = data[:at] + bytes(b ^ bits for b in data[at : at + 1]) + data[at + 1 :]
            case "number", at, kind, value:
                size = struct.calcsize(kind)
                data = data[:at] + struct.pack(kind, value % 256**size) + data[at + size :]
            case "insert", at, junk:
                data = data[:at] + junk + data[at:]
            case "drop", at, n:
                data = data[:at] + data[at + n :]
            case "cut", at:
                data = data[:at]
            case "append", junk:
                data += junk
    return data


def fuzz(intact: list[Intact], count: int) -> list[tuple[Intact, bytes, list[Edit]]]:
    """`count` different damaged files, the same ones in every run."""
    found: dict[bytes, tuple[Intact, bytes, list[Edit]]] = {}
    plan = st.sampled_from(intact).flatmap(lambda one: st.tuples(st.just(one), one.edits()))

    @hypothesis.seed(20)
    @settings(max_examples=count, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=CHECKS)
    @hypothesis.given(plan)
    def collect(drawn: tuple[Intact, list[Edit]]) -> None:
        one, edits = drawn
        data = damaged(one.data, edits)
        assume(data not in found and data != one.data)
        found[data] = (one, data, edits)

    collect()
    return list(found.values())


def make_wav(tmp: Path) -> list[Intact]:
    """One channel, and twelve: more than PyAV reads as planes."""
    found = []
    for channels in (1, 12):
        out = io.BytesIO()
        with wave.open(out, "wb") as file:
            file.setnchannels(channels)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes((np.sin(np.arange(8000) / 20) * 9000).astype("<i2").tobytes())
        found.append(Intact("clip.wav", out.getvalue(), b"RIFF|fmt |data", (0, 43)))
    return found


def make_mp4(tmp: Path) -> list[Intact]:
    """The header behind the pictures, as we write it, and before them."""
    rng = np.random.default_rng(0)
    pictures = [np.kron(rng.integers(0, 255, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(10)]
    write_clip(tmp / "clip.mp4", pictures, fps=10, audio=rng.normal(size=16000).astype(np.float32) * 0.1)
    with av.open(tmp / "clip.mp4") as source, av.open(tmp / "fast.mp4", "w", options={"movflags": "faststart"}) as sink:
        streams = [sink.add_stream_from_template(s) for s in source.streams]
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                sink.mux(packet)
    boxes = b"moov|mvhd|trak|tkhd|edts|elst|mdia|mdhd|hdlr|minf|stbl|stsd|avc1|avcC|mp4a|esds"
    boxes += b"|stts|stss|stsc|stsz|stco|ctts|mdat"
    files = [(tmp / name).read_bytes() for name in ("clip.mp4", "fast.mp4")]
    return [Intact("clip.mp4", data, boxes, (at, at + 1200)) for data in files for at in (data.index(b"moov"),)]


def make_csd(tmp: Path) -> list[Intact]:
    """Labels, words and sound of three videos of CMU-MOSI, each file damaged in turn."""
    videos = [split[0] for split in MOSI.values()]
    spans = np.array([[0.0, 1.0], [1.0, 2.0]])
    sentiments = np.array([[1.0], [-1.0]], np.float32)
    csd(tmp / "labels.csd", "Opinion Segment Labels", dict.fromkeys(videos, (sentiments, spans)))
    csd(tmp / "words.csd", "words", dict.fromkeys(videos, words("it", "was")))
    csd(tmp / "covarep.csd", "COVAREP", {v: frames(2, 10, 3, i) for i, v in enumerate(videos)})
    files = {name: (tmp / name).read_bytes() for name in ("labels.csd", "words.csd", "covarep.csd")}
    return [Intact(n, data, b"HDF|TREE|SNOD|HEAP|GCOL", others=_without(files, n)) for n, data in files.items()]


def _without(files: dict[str, bytes], name: str) -> dict[str, bytes]:
    return {k: v for k, v in files.items() if k != name}


def make_npz(tmp: Path) -> list[Intact]:
    """Vectors and sequences for a corpus that lies beside the cases."""
    rows = [{"id": f"u{i}", "speaker": f"s{i}", "text": "words"} for i in range(4)]
    write_corpus(tmp.parent / "corpus", rows, "four")
    ids, values = np.array([r["id"] for r in rows]), np.arange(24, dtype=np.float32).reshape(8, 3)
    found = []
    sequences = {"values": values, "offsets": np.arange(0, 9, 2)}
    for save, content in ((np.savez, {"values": values[:4]}), (np.savez_compressed, sequences)):
        out = io.BytesIO()
        save(out, ids=ids, **content)
        found.append(Intact("some.npz", out.getvalue(), rb"PK\x01\x02|PK\x03\x04|PK\x05\x06|NUMPY"))
    return found


def make_shard(tmp: Path) -> list[Intact]:
    """One shard of a feature store, with its card."""
    card = store_card(StreamSpec("vectors", "audio", (3,), 10.0), "imported", 1, {})
    with StoreWriter(tmp / "store", card) as writer:
        for i in range(3):
            writer.add(f"u{i}", Feature(np.ones((4 + i, 3), np.float32), np.arange(4 + i) > 0, 0.1 * i))
    shard = shard_path(tmp / "store", 0)
    others = {"card.json": (tmp / "store" / "card.json").read_bytes()}
    return [Intact(shard.name, shard.read_bytes(), b"^|shape|data_offsets|dtype|t0", (0, 500), others)]


def make_table(tmp: Path) -> list[Intact]:
    labels = ("joy", "anger") * 3
    rows = [f'u{i},s{i % 2},"said, {i}",{c},{i}.5,{i + 1}.5' for i, c in enumerate(labels)]
    lines = [f"{row},d{i // 3},{i},train,0.{i}" for i, row in enumerate(rows)]
    text = "id,speaker,text,label,start,end,conversation,position,split,valence\n" + "\n".join(lines) + "\n"
    return [Intact("mine.csv", text.encode(), rb",|\d")]


def make_meld(tmp: Path) -> list[Intact]:
    files = {f"{split}_sent_emo.csv": (HEADER + lines).encode() for split, lines in LINES.items()}
    return [Intact(n, data, rb",|\d", others=_without(files, n)) for n, data in files.items()]


def make_tables(tmp: Path) -> list[Intact]:
    face = "frame, face_id, timestamp, confidence, success, AU01_r\n"
    face += "".join(f"{i + 1}, 0, {i / 25:.3f}, 0.98, 1, {i}\n" for i in range(8))
    voice = "name;frameTime;energy;pitch\n" + "".join(f"'u0';{i / 100:.2f};{i * 0.5};{100 + i}\n" for i in range(8))
    return [Intact("openface.csv", face.encode(), rb",|\d"), Intact("opensmile.csv", voice.encode(), rb";|\d")]


def outcomes(
    family: str, cases: list[tuple[Intact, bytes, list[Edit]]], folder: Path, limit: float = 5.0
) -> dict[Path, str]:
    """What became of every case, written into a folder of its own; `limit`: s of computing that each may take."""
    from tests import fuzzed

    paths = [folder / f"{i:03d}" / one.name for i, (one, _, _) in enumerate(cases)]
    for path, (one, data, _) in zip(paths, cases, strict=True):
        path.parent.mkdir(parents=True)
        for name, content in {**one.others, path.name: data}.items():
            (path.parent / name).write_bytes(content)
    done = spread(fuzzed.feed, [(family, p) for p in paths], 1, fuzzed.begin, (limit,))
    return {path: outcome or "crash" for (_, path), outcome in done}


MAKE: dict[str, Callable[[Path], list[Intact]]] = {k: getattr(sys.modules[__name__], f"make_{k}") for k in CASES}


def test_at_least_1000_files_are_damaged():
    assert sum(CASES.values()) >= 1000


@pytest.mark.parametrize(("family", "count"), CASES.items())
def test_a_damaged_file_gives_a_result_or_an_error_of_ours(tmp_path, family, count):
    (tmp_path / "intact").mkdir()
    intact = MAKE[family](tmp_path / "intact")
    whole = outcomes(family, [(one, one.data, []) for one in intact], tmp_path / "whole")
    assert set(whole.values()) == {"result"}
    cases = fuzz(intact, count)
    assert len(cases) == count
    found = outcomes(family, cases, tmp_path / "cases")
    assert len(found) == count
    print(family, dict(Counter(o if not o.startswith("untyped") else "untyped" for o in found.values()).most_common()))
    wrong = {p: o for p, o in found.items() if o == "crash" or o.startswith("untyped")}
    edits = {p: cases[int(p.parent.name)][2] for p in wrong}
    assert not wrong, "\n".join(f"{o}\n    {p}: {edits[p]}" for p, o in islice(wrong.items(), 8))
    assert Counter(found.values())["result"] < count, "nothing was damaged enough"


def claim_hours(tmp: Path) -> Intact:
    """An MP4 of one second whose pictures last 58 hours each."""
    one = make_mp4(tmp)[0]
    at = one.data.index(b"stts") + 16
    return replace(one, data=one.data[:at] + struct.pack(">I", 2**31 - 1) + one.data[at + 4 :])


def claim_ages(tmp: Path) -> Intact:
    """A label of CMU-MOSI that ends after 2e289 s."""
    one = make_csd(tmp)[0]
    at = one.data.index(struct.pack("<4d", 0, 1, 1, 2)) + 24
    return replace(one, data=one.data[:at] + struct.pack("<d", 2e289) + one.data[at + 8 :])


CLAIMS = [("mp4", claim_hours, "BadMedia"), ("csd", claim_ages, "BadCorpus")]


@pytest.mark.parametrize(("family", "make", "error"), CLAIMS)
def test_a_length_that_no_memory_holds_is_refused(tmp_path, family, make, error):
    (tmp_path / "intact").mkdir()
    one = make(tmp_path / "intact")
    assert list(outcomes(family, [(one, one.data, [])], tmp_path / "cases").values()) == [error]


def test_a_clip_that_survives_goes_through_the_extractors(tmp_path):
    (tmp_path / "intact").mkdir()
    found = outcomes("extractors", fuzz(make_mp4(tmp_path / "intact"), 12), tmp_path / "cases")
    assert not [o for o in found.values() if o == "crash" or o.startswith("untyped")]


def test_crashes_hangs_and_greed_are_seen_as_such(tmp_path):
    one = [(Intact("x", b"x", b"x"), b"x", [])]
    assert set(outcomes("die", one, tmp_path / "die").values()) == {"crash"}
    assert next(iter(outcomes("hang", one, tmp_path / "hang", limit=0.5).values())).startswith("untyped Hang")
    assert next(iter(outcomes("grab", one, tmp_path / "grab").values())).startswith("untyped")
