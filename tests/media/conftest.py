"""Small clips made on the spot: pictures that tell their own number, a tone that tells its own time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from affuse.media.write import write_clip

RATE = 16000
SENTENCE = "I would never have thought that it could be such a wonderful day."


def numbered(n: int, height: int = 48, width: int = 64) -> Iterator[np.ndarray]:
    """Frames with eight columns, black or white: a decoded frame says in binary which one it is."""
    for k in range(n):
        bits = np.repeat([230 if k >> bit & 1 else 20 for bit in range(8)], width // 8)
        yield np.broadcast_to(bits[None, :, None].astype(np.uint8), (height, width, 3))


def number_of(image: np.ndarray) -> int:
    columns = image.reshape(image.shape[0], 8, -1, 3).mean(axis=(0, 2, 3)) > 125
    return int((columns << np.arange(8)).sum())


def tone(seconds: float) -> np.ndarray:
    """A 440 Hz tone, silent in every odd tenth of a second."""
    t = np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * 440 * t) * ((t * 10).astype(int) % 2 == 0)).astype(np.float32)


def remux(
    source: Path, target: Path, shift: dict[str, float] | None = None, options: dict[str, str] | None = None
) -> Path:
    """Copy packets into another container, a stream's timestamps `shift`ed by seconds."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=options or {}) as new:
        streams = {s.index: new.add_stream_from_template(s) for s in old.streams}
        for packet in old.demux():
            if packet.dts is None:
                continue
            late = round(Fraction((shift or {}).get(packet.stream.type, 0.0)) / packet.time_base)
            packet.pts, packet.dts = packet.pts + late, packet.dts + late
            packet.stream = streams[packet.stream.index]
            new.mux(packet)
    return target


def packets(path: Path, kind: str) -> list[tuple[int, int, float]]:
    """(byte position, size, seconds) of the packets of a stream, for tests that damage them."""
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        return [(p.pos, p.size, float(p.pts * p.time_base)) for p in container.demux(stream) if p.size]


def turned(source: Path, target: Path, degrees: int) -> Path:
    """The clip with an ISO 14496-12 track matrix that shows it `degrees` clockwise."""
    matrix = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}

    def fixed(a: int, b: int, c: int, d: int) -> bytes:
        entries = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
        return b"".join((e & 0xFFFFFFFF).to_bytes(4, "big") for e in entries)

    data = source.read_bytes()
    assert data.count(fixed(*matrix[0])) == 2, "movie and track header"
    head, movie, rest = data.partition(fixed(*matrix[0]))
    target.write_bytes(head + movie + rest.replace(fixed(*matrix[0]), fixed(*matrix[degrees])))
    return target


@pytest.fixture(scope="session")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 s, 25 fps, 64 x 48, numbered frames, tone."""
    path = tmp_path_factory.mktemp("clips") / "talk.mp4"
    write_clip(path, numbered(100), 25, tone(4.0), RATE, crf=10)
    return path


@pytest.fixture(scope="session")
def spoken() -> np.ndarray:
    """A synthetic sentence of 3 to 5 s between two seconds of faint noise."""
    parselmouth = pytest.importorskip("parselmouth")
    voice = parselmouth.praat.call("Create SpeechSynthesizer", "English (America)", "Female1")
    sound = parselmouth.praat.call(voice, "To Sound", SENTENCE, "no")
    x = parselmouth.praat.call(sound, "Resample", RATE, 50).values.mean(0)
    pause = np.zeros(2 * RATE)
    noise = np.random.default_rng(0).normal(scale=1e-3, size=len(x) + 2 * len(pause))
    return (np.concatenate([pause, 0.5 * x / np.abs(x).max(), pause]) + noise).astype(np.float32)


@pytest.fixture(scope="session")
def clips(shared_data: Path) -> Path:
    return shared_data / "av_clips"


@pytest.fixture(scope="session")
def make() -> Callable[..., object]:
    """The makers above under one name, for tests: make('turned', ...)."""
    makers = {f.__name__: f for f in (numbered, number_of, tone, remux, packets, turned)}
    return lambda name, *args, **kwargs: makers[name](*args, **kwargs)
