"""Miniature releases of sentiment corpora in their exact layouts: csd files, pickles of MMSA, MulT, CARAT, tables."""

from __future__ import annotations

import pickle

import numpy as np

from affuse.corpora.cmu_mosi import FOLDS

MOSI = {split: videos.split()[:2] for split, videos in FOLDS.items()}


def csd(path, name, data, **attributes):
    """A .csd as the SDK writes it: /name/data/KEY/{features, intervals}, /name/metadata/KEY."""
    h5py = __import__("h5py")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        root = file.create_group(name)
        for key, (features, intervals) in data.items():
            group = root.create_group(f"data/{key}")
            group.create_dataset("features", data=np.asarray(features))
            group.create_dataset("intervals", data=np.asarray(intervals, dtype=float))
        for key in ("root name", "computational sequence version", "dimension names"):
            text = h5py.string_dtype()
            root.create_dataset(f"metadata/{key}", (1,), dtype=text)[0] = attributes.get(key, name)
    return path


def frames(seconds, rate, width, seed=0):
    """(features, intervals) of even frames."""
    n = int(seconds * rate)
    starts = np.arange(n) / rate
    values = np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32) + 5
    return values, np.stack([starts, starts + 1 / rate], 1)


def words(*said):
    """(features, intervals) of words, one per second, of uneven length; "sp" is a pause."""
    starts = np.arange(len(said), dtype=float)
    ends = starts + np.resize([0.9, 0.5, 1.0], len(said))
    return np.array([[w.encode()] for w in said], dtype="S12"), np.stack([starts, ends], 1)


def mosi_csds(folder, labels=((2.4,), (-1.0,), (0.0,))):
    """Labels, words, COVAREP (100 Hz) and FACET (with a hole in the second video) of six videos of three segments."""
    videos = [v for split in MOSI.values() for v in split]
    spans = np.array([[0.0, 3.0], [3.0, 6.0], [6.5, 8.0]])
    csd(
        folder / "CMU_MOSI_Opinion_Labels.csd",
        "Opinion Segment Labels",
        {v: (np.array(labels, np.float32), spans) for v in videos},
    )
    said = words("it", "sp", "was", "a", "very", "good", "film", "sp")
    csd(folder / "CMU_MOSI_TimestampedWords.csd", "words", dict.fromkeys(videos, said))
    phones = (
        np.array([[p.encode()] for p in ("ah", "b") * 10], dtype="S4"),
        np.stack([np.arange(20) * 0.4, np.arange(20) * 0.4 + 0.4], 1),
    )
    csd(folder / "CMU_MOSI_TimestampedPhones.csd", "phones", dict.fromkeys(videos, phones))
    covarep = {v: frames(8, 100, 4, i) for i, v in enumerate(videos)}
    covarep[videos[0]][0][5, 1] = -np.inf
    csd(folder / "CMU_MOSI_COVAREP.csd", "COVAREP", covarep)
    facet = {v: frames(8, 30, 3, i) for i, v in enumerate(videos)}
    features, times = facet[videos[1]]
    facet[videos[1]] = (np.delete(features, slice(10, 40), 0), np.delete(times, slice(10, 40), 0))
    csd(folder / "CMU_MOSI_VisualFacet_4.1.csd", "FACET_4.1", facet)
    return folder


def mmsa(
    sizes=(4, 2, 3), video="{split}vid", lengths=True, unimodal=False, seed=0,
    low=-3.0, high=3.0, width=(6, 5, 4), steps=(8, 12, 10),
):  # fmt: skip
    """An MMSA pickle's content: unaligned with lengths (padding after), or aligned (one grid) without."""
    rng = np.random.default_rng(seed)
    content = {}
    for split, n in zip(("train", "valid", "test"), sizes, strict=True):
        t = steps if lengths else (steps[0],) * 3
        real = [rng.integers(2, s, n) for s in t] if lengths else [rng.integers(2, t[0], n)] * 3
        x = [
            np.where(np.arange(s)[None, :, None] < r[:, None, None], rng.normal(size=(n, s, d)) + 3, 0).astype(
                np.float32
            )
            for s, r, d in zip(t, real, width, strict=True)
        ]
        mask = np.arange(t[0]) < real[0][:, None]
        part = {
            "raw_text": np.array([f"said  {i}" for i in range(n)]),
            "audio": x[1],
            "vision": x[2],
            "id": np.array([f"{video.format(split=split)}{i // 2}$_${i % 2 + 1}" for i in range(n)]),
            "text": np.where(mask[..., None], x[0], 0.125),  # BERT fills the padding
            "text_bert": np.stack([mask * 101, mask, np.zeros_like(mask)], 1).astype(np.float32),
            "annotations": np.array(["Positive"] * n),
            "classification_labels": np.zeros(n),
            "regression_labels": np.round(rng.uniform(low, high, n), 1),
        }
        if lengths:
            part |= {"audio_lengths": real[1].tolist(), "vision_lengths": real[2].tolist()}
        if unimodal:
            part |= {f"regression_labels_{m}": np.round(rng.uniform(low, high, n), 1) for m in "TAV"}
        content[split] = part
    return content


def mult(sizes=(4, 2, 3), ids=True, seed=0):
    """Content of a MulT pickle: by word, padding before the utterance, labels [N, 1, 1], ids (video, start, end)."""
    rng = np.random.default_rng(seed)
    content = {}
    for split, n in zip(("train", "valid", "test"), sizes, strict=True):
        real = rng.integers(2, 10, n)
        keep = np.arange(10) >= 10 - real[:, None]
        part = {
            m: (rng.normal(size=(n, 10, d)) + 3) * keep[..., None]
            for m, d in (("text", 7), ("audio", 5), ("vision", 3))
        }
        part["labels"] = np.round(rng.uniform(-3, 3, (n, 1, 1)), 2)
        if ids:
            part["id"] = np.array([[f"{split}{i // 2}", str(9.5 - i), str(12.25 - i)] for i in range(n)], dtype="S12")
        content[split] = part
    return content


def carat(sizes=(4, 2, 3), seed=0):
    """A pickle in CARAT's layout: src-* arrays, class numbers between marks."""
    rng = np.random.default_rng(seed)
    content = {}
    for split, n in zip(("train", "valid", "test"), sizes, strict=True):
        arrays = {f"src-{m}": rng.normal(size=(n, 6, d)) for m, d in (("visual", 35), ("audio", 74), ("text", 30))}
        content[split] = {**arrays, "tgt": [[2, 4 + i % 6, 3] if i else [2, 5, 9, 3] for i in range(n)]}
    return content


def dump(path, content, protocol=4):
    """`content` pickled."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def clips(folder, names):
    """Empty media files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
