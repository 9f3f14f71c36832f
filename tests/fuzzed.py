"""What eats fuzzed files, in a process of its own: importable by name, so that a spawned process finds it."""

from __future__ import annotations

import io
import os
import resource
import signal
import traceback
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from affuse.core.errors import AffuseError

MEMORY = 4 << 30  # bytes of address space
WALL = 60.0  # s after which a file kills the process, in whatever native code it may be
limit = 5.0  # s of computing after which a file is given up, as soon as Python code runs


class Hang(BaseException):
    """No Exception, so that nobody takes it for a damaged file."""


def begin(seconds: float) -> None:
    """Bound this process: a file that declares a huge size must not take the machine with it."""
    global limit
    limit = seconds
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, _interrupt)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _interrupt(*_: object) -> None:
    raise Hang(f"more than {limit:g} s")


def feed(case: tuple[str, Path]) -> str:
    """ "result", the name of an error of ours, or "untyped ..." for anything else that came out of it."""
    family, path = case
    signal.setitimer(signal.ITIMER_PROF, limit)
    signal.setitimer(signal.ITIMER_REAL, WALL)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            EAT[family](path)
        return "result"
    except AffuseError as error:
        return type(error).__name__ if error.remedy else f"untyped: no remedy in {error!r}"
    except (Exception, Hang) as error:  # noqa: BLE001 - what the test looks for
        stack = traceback.extract_tb(error.__traceback__)
        house = [f"{Path(f.filename).name}:{f.lineno}" for f in stack if "affuse" in f.filename]
        return f"untyped {type(error).__name__} at {' < '.join(house[::-1][:3])}: {str(error)[:160]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def die(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(path: Path) -> None:
    while True:
        pass


def grab(path: Path) -> None:
    np.zeros(2 * MEMORY, np.uint8)


def media(path: Path) -> None:
    """Everything that a clip offers, and that it is what it promises."""
    from affuse.media.clip import Clip

    clip = Clip(video=path)
    assert 0 < clip.duration < np.inf
    sound = clip.read_audio()
    if sound is not None:
        assert len(sound.samples) == len(sound.valid) == round(clip.duration * 16000)
        assert np.isfinite(sound.samples).all()
    indices = []
    for frame in clip.frames(5):
        assert frame.image.dtype == np.uint8 and frame.image.ndim == 3
        indices.append(frame.index)
    assert indices == sorted(set(indices)) and all(0 <= i < clip.steps(5) for i in indices)


def extractors(path: Path) -> None:
    """The two front ends that look into a clip."""
    from affuse.core import registry
    from affuse.media.clip import Clip

    for name in ("log_mel", "face_crops"):
        extractor = registry.load("extractors", name)()
        found = extractor(Clip(video=path))
        assert found.values.shape[1:] == extractor.spec.shape


def csd(path: Path) -> None:
    """The labels, words and features of CMU-MOSI, one of the three files damaged."""
    from affuse.corpora.cmu_mosi import import_cmu_mosi

    opened(import_cmu_mosi(path.parent, path.parent / "corpus", partial=True))


def meld(path: Path) -> None:
    from affuse.corpora.meld import import_meld

    opened(import_meld(path.parent, path.parent / "corpus", partial=True))


def table(path: Path) -> None:
    from affuse.corpora.table import import_table

    opened(import_table(path, path.parent / "corpus"))


def tables(path: Path) -> None:
    """A table of OpenFace or openSMILE, told by its name."""
    from affuse.stores.tables import import_tables

    read(import_tables(path.parent / "store", {"u0": path}, "openface" if "openface" in path.stem else "opensmile"))


def npz(path: Path) -> None:
    """Arrays for the corpus beside the case's folder."""
    from affuse.cli.import_ import features
    from affuse.corpora.manifest import Corpus

    corpus, name = path.parents[2] / "corpus", f"audio_{path.parent.name}"
    assert features(corpus, name, path) == 0
    from affuse.stores.store import FeatureStore

    read(FeatureStore(Corpus.open(corpus).store_path(name)))


def shard(path: Path) -> None:
    from affuse.stores.store import FeatureStore

    read(FeatureStore(path.parent))


def opened(corpus: Any) -> None:
    """A corpus that was accepted is one that can be used."""
    from affuse.stores.store import FeatureStore

    assert len(corpus) and corpus.space.name
    for name in corpus.stores():
        read(FeatureStore(corpus.store_path(name)))


def read(found: Any) -> None:
    for name in found.ids:
        assert found[name].values.shape[1:] == found.spec.shape


EAT: dict[str, Callable[[Path], None]] = {
    "wav": media,
    "mp4": media,
    "extractors": extractors,
    "csd": csd,
    "meld": meld,
    "table": table,
    "tables": tables,
    "npz": npz,
    "shard": shard,
    "die": die,
    "hang": hang,
    "grab": grab,
}
