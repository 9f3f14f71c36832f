"""affuse: multimodal emotion recognition, from a video file to an emotion timeline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from affuse.core.compound import Compound
    from affuse.inference.recognizer import Recognizer


def load(
    run: str | Path = "affuse-base",
    device: str = "cpu",
    experts: Mapping[str, str | Path] | None = None,
    labels: str | Compound = "",
) -> Recognizer:
    """The shipped model, or a trained run, as a Recognizer: `affuse.load()("talk.mp4")` gives a Timeline.

    `experts` replace the shipped model's own by classifiers: {"text": "distilroberta-emotion", "vision": "FOLDER@0.8"}.
    `labels="compound"` answers in compound emotions (see docs/analyze.md).
    """
    from affuse.inference.recognizer import load as load_run

    return load_run(run, device, experts, labels)
