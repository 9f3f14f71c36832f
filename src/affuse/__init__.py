"""affuse: multimodal emotion recognition, from a video file to an emotion timeline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from affuse.inference.recognizer import Recognizer


def load(run: str | Path, device: str = "cpu") -> Recognizer:
    """A trained run as a Recognizer: `affuse.load(RUN)("talk.mp4")` gives a Timeline."""
    from affuse.inference.recognizer import load as load_run

    return load_run(run, device)
