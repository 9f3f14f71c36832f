"""Faces: found where they are, the same in a batch as alone, and brought to the template."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from affuse.core.errors import BadMedia, MissingDependency
from affuse.media import faces, mtcnn
from affuse.media.faces import Face, FaceDetector, align, align_batch, largest, nms, similarity, template

data = pytest.importorskip("skimage.data")

# specs/dependencies.md 2.2: two independent implementations agree on these within 2 pixels
LANDMARKS = np.array([[267, 102], [311, 103], [288, 128], [266, 140], [310, 143]])


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """The astronaut on a grey canvas of 640 x 480."""
    canvas = np.full((480, 640, 3), 128, np.uint8)
    canvas[:, 64:576] = data.astronaut()[:480]
    return canvas


def test_the_astronaut_is_found(detector: FaceDetector, photo: np.ndarray) -> None:
    face = detector.detect(photo)[0]
    assert face.score > 0.99
    assert np.abs(face.landmarks - LANDMARKS).max() < 5
    assert np.abs(face.box - [243, 64, 330, 174]).max() < 6


@pytest.mark.parametrize("min_face", [20, 60])
def test_other_smallest_faces_find_the_same_face(photo: np.ndarray, min_face: int) -> None:
    face = largest(FaceDetector(min_face).detect(photo))
    assert face is not None
    assert np.abs(face.landmarks - LANDMARKS).max() < 5


def test_big_pictures_are_shrunk_and_reported_in_their_own_pixels(detector: FaceDetector, photo: np.ndarray) -> None:
    face = detector.detect(np.ascontiguousarray(photo.repeat(3, 0).repeat(3, 1)))[0]
    assert np.abs(face.landmarks / 3 - LANDMARKS).max() < 5


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("shape", [(480, 640), (30, 500), (8, 8), (1, 1)])
def test_blank_pictures_have_no_face(detector: FaceDetector, value: int, shape: tuple[int, int]) -> None:
    assert detector.detect(np.full((*shape, 3), value, np.uint8)) == []


def test_noise_has_no_face(detector: FaceDetector) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    assert [f for f in detector.detect(noise) if f.score > 0.9] == []


def test_a_batch_gives_what_single_pictures_give(detector: FaceDetector, photo: np.ndarray) -> None:
    images = [photo, np.zeros_like(photo), photo[:, ::-1].copy(), np.roll(photo, 40, 1)]
    together = detector.detect_batch(images)
    for image, found in zip(images, together, strict=True):
        alone = detector.detect(image)
        assert len(alone) == len(found)
        assert [f.score for f in found] == sorted((f.score for f in found), reverse=True)
        for a, b in zip(alone, found, strict=True):
            np.testing.assert_allclose(a.landmarks, b.landmarks, atol=1e-2)
            np.testing.assert_allclose(a.box, b.box, atol=1e-2)
    assert [len(f) > 0 for f in together] == [True, False, True, True]


def test_refine_finds_the_face_near_a_box_and_nothing_elsewhere(detector: FaceDetector, photo: np.ndarray) -> None:
    box = detector.detect(photo)[0].box
    blank = np.full_like(photo, 90)
    moved = [box, box + 15, box * 1.04, box]
    found = detector.refine([photo, photo, photo, blank], np.stack(moved))
    assert found[3] is None
    for face in found[:3]:
        assert face is not None
        assert np.abs(face.landmarks - LANDMARKS).max() < 6


def test_wrong_pictures_are_refused(detector: FaceDetector, photo: np.ndarray) -> None:
    for bad in ([photo, photo[:100]], [photo.astype(np.float32)], [photo[..., 0]], [photo[:0]]):
        with pytest.raises(BadMedia, match="uint8"):
            detector.detect_batch(bad)
    assert detector.detect_batch([]) == []
    assert detector.refine([], np.zeros((0, 4))) == []


def plain_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, by_smaller: bool) -> list[int]:
    """The textbook loop."""
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable").tolist():
        for k in kept:
            w = min(boxes[i, 2], boxes[k, 2]) - max(boxes[i, 0], boxes[k, 0])
            h = min(boxes[i, 3], boxes[k, 3]) - max(boxes[i, 1], boxes[k, 1])
            shared = max(w, 0) * max(h, 0)
            a, b = ((boxes[j, 2] - boxes[j, 0]) * (boxes[j, 3] - boxes[j, 1]) for j in (i, k))
            if shared > threshold * (min(a, b) if by_smaller else a + b - shared):
                break
        else:
            kept.append(i)
    return kept


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 60), st.integers(1, 4), st.booleans())
def test_nms_equals_the_plain_loop(seed: int, count: int, groups: int, by_smaller: bool) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 40, (count, 2))
    boxes = np.concatenate([corner, corner + rng.integers(5, 40, (count, 2))], 1).astype(np.float64)
    scores, group = rng.permutation(count) / max(count, 1), rng.integers(0, groups, count)
    tensors = torch.tensor(boxes), torch.tensor(scores), torch.tensor(group)
    found = nms(*tensors, 0.4, by_smaller=by_smaller).tolist()
    wanted = [
        np.flatnonzero(group == g)[i]
        for g in range(groups)
        for i in plain_nms(boxes[group == g], scores[group == g], 0.4, by_smaller)
    ]
    assert found == wanted


@settings(max_examples=40, deadline=None)
@given(st.floats(-3.1, 3.1), st.floats(0.2, 8), st.floats(-500, 500), st.floats(-500, 500))
def test_similarity_recovers_a_known_transform(angle: float, scale: float, x: float, y: float) -> None:
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    source = (template(112) - [x, y]) @ np.linalg.inv(turn).T
    found = similarity(source[None], template(112))[0]
    np.testing.assert_allclose(found, np.column_stack([turn, [x, y]]), atol=1e-5)


def test_similarity_equals_umeyama_of_scikit_image() -> None:
    from skimage.transform import SimilarityTransform

    points = template(112) * 1.7 + np.random.default_rng(1).normal(0, 4, (6, 5, 2))
    for mine, source in zip(similarity(points, template(112)), points, strict=True):
        reference = SimilarityTransform.from_estimate(source, template(112))
        np.testing.assert_allclose(mine, reference.params[:2], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("size", "margin"), [(112, 0.0), (112, 0.25), (96, 0.2)])
def test_alignment_puts_the_face_on_the_template(
    detector: FaceDetector, photo: np.ndarray, size: int, margin: float
) -> None:
    tilted = np.ascontiguousarray(np.rot90(photo))  # landmarks of a face on its side
    turned = np.column_stack([LANDMARKS[:, 1], 640 - LANDMARKS[:, 0]])
    for image, landmarks in ((photo, LANDMARKS), (tilted, turned)):
        crop = align(image, landmarks, size, margin)
        assert crop.shape == (size, size, 3)
        assert crop.dtype == np.uint8
        face = largest(detector.detect(crop))
        assert face is not None
        assert np.abs(face.landmarks - template(size, margin)).max() < 0.08 * size


def test_aligning_onto_itself_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    np.testing.assert_array_equal(align(image, template(112)), image)


def test_align_batch_equals_single(photo: np.ndarray) -> None:
    images = np.stack([photo, photo[::-1]])
    landmarks = np.stack([LANDMARKS, LANDMARKS * 1.3 - 20])
    together = align_batch(images, landmarks, 48, 0.2)
    for i in range(2):
        np.testing.assert_array_equal(together[i], align(images[i], landmarks[i], 48, 0.2))
    assert align_batch([], np.zeros((0, 5, 2)), 48).shape == (0, 48, 48, 3)


def test_largest_weighs_size_and_score() -> None:
    points = np.zeros((5, 2))
    small, big = Face(np.array([0, 0, 10, 10]), 1.0, points), Face(np.array([0, 0, 30, 30]), 0.9, points)
    assert largest([small, big]) is big
    assert largest([]) is None


def test_weights_are_converted_once_and_a_damaged_cache_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFFUSE_CACHE", str(tmp_path))
    first = mtcnn.load()
    [cached] = tmp_path.glob("*.safetensors")
    cached.write_bytes(b"broken")
    second = mtcnn.load()
    monkeypatch.setattr(mtcnn, "_wheel", lambda: pytest.fail("the cache was not used"))
    third = mtcnn.load()
    for nets in zip(first, second, third, strict=True):
        states = [net.state_dict() for net in nets]
        assert all(torch.equal(states[0][k], s[k]) for s in states for k in states[0])
        assert not nets[0].training
        assert not any(p.requires_grad for p in nets[0].parameters())


def test_without_the_wheel_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFFUSE_CACHE", str(tmp_path))
    monkeypatch.setattr(mtcnn.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="pip install mtcnn"):
        FaceDetector()


def test_pyramid_levels_show_the_same_picture() -> None:
    image = torch.from_numpy(data.astronaut()[:301, :403].copy())[None]
    matrix = torch.tensor([[[5.0, 0.0, 40.0], [0.0, 5.0, 30.0]]])
    one = torch.zeros(1, dtype=torch.long)
    crop = faces.sample(faces.Pyramid(image), matrix, one, 48)[0]
    area = torch.nn.functional.avg_pool2d(image[0, 30:270, 40:280].permute(2, 0, 1).float(), 5)
    assert (crop - area).abs().mean() < 6  # of 255: blurred a little, not shifted and not aliased
    shifted = faces.sample(faces.Pyramid(image), matrix + torch.tensor([0, 0, 5.0]), one, 48)[0]
    assert (shifted - area).abs().mean() > 1.8 * (crop - area).abs().mean()
