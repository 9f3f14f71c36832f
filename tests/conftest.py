"""Shared fixtures: one torch thread, the development data, an own cache."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("affuse", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("affuse")

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the development data; skipped in a public clone, required where AFFUSE_REQUIRE_SHARED=1."""
    root = Path(os.environ.get("AFFUSE_SHARED") or Path(__file__).resolve().parents[2] / "shared") / "data"
    if root.is_dir():
        return root
    if os.environ.get("AFFUSE_REQUIRE_SHARED") == "1":
        pytest.fail(f"AFFUSE_REQUIRE_SHARED=1 but {root} is missing: set AFFUSE_SHARED")
    pytest.skip("development data not here (set AFFUSE_SHARED); this is normal in a public clone")


@pytest.fixture
def vector_corpus(tmp_path: Path):
    """A small labelled corpus of 48 utterances by 8 speakers with an audio, a vision and a text store of vectors."""
    return make_vector_corpus(tmp_path / "corpus")


def make_vector_corpus(path: Path, n: int = 48, seed: int = 0, rate: float = 0.0):
    """Class-dependent Gaussian vectors, with a rate each a step in time; every fifth utterance lacks vision."""
    import numpy as np

    from affuse.corpora.manifest import write_corpus
    from affuse.stores.store import import_arrays

    rng = np.random.default_rng(seed)
    names = ("neutral", "happy", "sad", "angry")
    labels = rng.permutation(np.arange(n) % 4)
    rows = [
        {"id": f"u{i:03d}", "speaker": f"s{i % 8}", "source": f"s{i % 8}", "label": names[c], "text": f"words {i}"}
        for i, c in enumerate(labels)
    ]
    corpus = write_corpus(path, rows, "vectors", "iemocap-4")
    ids = [r["id"] for r in rows]
    for stream, dim in (("audio_vec", 6), ("vision_vec", 5), ("text_vec", 4)):
        centres = rng.normal(size=(4, dim)) * 1.5
        values = centres[labels] + rng.normal(size=(n, dim))
        keep = [i for i in range(n) if not (stream == "vision_vec" and i % 5 == 0)]
        import_arrays(corpus.store_path(stream), [ids[i] for i in keep], values[keep], rate=rate)
    return corpus


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(run folder, corpus folder): the demo recipe trained for two epochs on a tiny synthetic media corpus."""
    from affuse.cli.app import main
    from affuse.corpora.synthetic import make_synthetic

    base = tmp_path_factory.mktemp("demo")
    make_synthetic(base / "corpus", conversations=6, utterances=3, speakers=12, labels="iemocap-4", seconds=1.5)
    where = ["--corpus", str(base / "corpus"), "--out", str(base / "run")]
    assert main(["train", "demo", "train.epochs=2", "--quiet", *where]) == 0
    return base / "run", base / "corpus"
