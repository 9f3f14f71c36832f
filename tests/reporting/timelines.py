"""Timelines made up for the tests of what shows and exports them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from affuse.core.timeline import FaceTrack, ModalityView, Segment, Timeline

LABELS = ("neutral", "happy", "sad", "angry", "fear", "disgust", "surprise")
HOSTILE = '<script>alert(1)</script> & "quotes" \'x\' --> \x00\x1b[31m\ud800 שלום'
ABSENT = {m: ModalityView(False, 0.0, {}) for m in ("audio", "vision")}


def conversation(n: int = 40, step: float = 4.0, overlap: bool = True, labels: tuple[str, ...] = LABELS) -> Timeline:
    """Two speakers, parts without a segment, unknown segments, overlapping captions, two faces."""
    rng = np.random.default_rng(0)
    segments = []
    for i in (i for i in range(n) if i % 11 != 7):
        p = dict(zip(labels, rng.dirichlet(np.ones(len(labels))).tolist(), strict=True))
        start, end = i * step, (i + (1.6 if overlap and i % 5 == 2 else 1)) * step
        if i % 13 == 4:
            segments.append(Segment(start, end, "Bo", None, {}, ABSENT, None, "no face, no sound"))
            continue
        vision = ModalityView(i % 3 > 0, 0.5 * (i % 3), p if i % 3 else {})
        views = {"audio": ModalityView(True, 1.0, p), "vision": vision}
        segments.append(Segment(start, end, ["Ann", "Bo"][i % 2], max(p, key=lambda k: p[k]), p, views, f"words {i}"))
        if i % 7 == 3:
            other = dict(zip(labels, np.roll(list(p.values()), 1).tolist(), strict=True))
            views["audio"] = ModalityView(True, 1.0, other)
            segments[-1] = replace(segments[-1], conflict=["audio"])
    total = n * step
    faces = [FaceTrack(k, [(0.0, total / 2)], [(1.0, total / 4)]) for k in range(2)]
    return Timeline("talk.mp4", total, "run", labels, segments, faces, [(0.0, total / 3)])


def hostile() -> Timeline:
    """Markup, quotes, control characters and lone surrogates wherever text comes from outside."""
    p = dict(zip(LABELS, (0.1, 0.6, 0.1, 0.1, 0.05, 0.03, 0.02), strict=True))
    one = Segment(0.0, 4.0, HOSTILE, "happy", p, {"audio": ModalityView(True, 1.0, p)}, HOSTILE)
    two = Segment(4.0, 8.0, "محمد", None, {}, {"audio": ModalityView(False, 0.0, {})}, "w" * 5000, HOSTILE)
    return Timeline("a<b>&\udcff.mp4", 8.0, HOSTILE, LABELS, [one, two])


def unknown() -> Timeline:
    """A clip in which nothing could be told."""
    segments = [Segment(4.0 * k, 4.0 * k + 4, None, None, {}, ABSENT, None, "no sound, no face") for k in range(3)]
    return Timeline("empty.mp4", 12.0, "run", LABELS, segments)


def failed() -> Timeline:
    """A clip that could not be analysed."""
    error = {"type": "BadMedia", "message": "a<b>.mp4 holds nothing", "remedy": "give another clip"}
    return Timeline("a<b>.mp4", 0.0, "run", LABELS, error=error)
