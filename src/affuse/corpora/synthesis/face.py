"""Drawn talking faces: signed-distance shapes with soft shading, all frames of a block at once.

Coordinates are pixels of a 224 x 224 frame around the face's centre (x right, y down); textures are drawn at
twice that resolution and sampled once per frame pixel, which leaves edges smooth under sub-pixel head motion.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

SIZE = 224
_FINE = 2  # texture pixels per frame pixel
_CENTRE = (112.0, 104.0)
_BLOCK = 16  # frames drawn at once: bounds memory for long clips
Array = np.ndarray
Colour = tuple[float, float, float]

# Columns: inner brow up, outer brow up, brows drawn together, upper lid up, lower lid up, mouth corners up,
# mouth wider, mouth open, upper lip up, lips thin, cheek fold, forehead lines (pixels; folds 0..1).
# After the prototypes of Ekman & Friesen's Facial Action Coding System (action units in brackets).
EXPRESSIONS: dict[str, tuple[float, ...]] = {
    "neutral": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "happy": (0.5, 1.0, 0.0, -0.7, 1.6, 8.0, 5.0, 4.0, 0.8, 0.3, 1.0, 0.0),  # 6 + 12 + 25
    "sad": (4.5, -2.5, 1.5, -1.6, 0.2, -6.0, -1.0, 0.0, 0.0, 0.0, 0.2, 0.5),  # 1 + 4 + 15
    "angry": (-5.0, 0.5, 3.5, 0.4, 1.4, -2.5, -2.5, 0.0, 0.0, 1.0, 0.3, 0.0),  # 4 + 5 + 7 + 23
    "fear": (4.5, 1.0, 2.5, 2.6, 0.8, -2.0, 3.5, 4.0, 0.0, 0.5, 0.0, 0.9),  # 1 + 2 + 4 + 5 + 20 + 26
    "disgust": (-3.0, -1.5, 1.5, -1.8, 1.8, -3.5, 0.0, 2.5, 3.5, 0.0, 0.9, 0.0),  # 9 + 10 + 15
    "surprise": (5.5, 5.0, 0.0, 3.0, -0.3, 0.0, -3.5, 11.0, 0.0, 0.3, 0.0, 1.0),  # 1 + 2 + 5 + 26
}

# How much each of them varies between utterances, relative to the noise.
_SPREAD = np.array([1, 1, 0.5, 0.5, 0.3, 1, 1, 0.5, 0.3, 0.1, 0.1, 0.1])

_SKINS = ((236, 196, 172), (224, 178, 150), (205, 158, 126), (178, 128, 96), (146, 102, 76), (244, 208, 188))
_HAIRS = ((52, 36, 28), (28, 24, 26), (96, 62, 38), (150, 108, 62), (120, 52, 30), (118, 112, 110))
_IRISES = ((84, 60, 40), (60, 88, 120), (74, 98, 70), (50, 40, 34))
_SHIRTS = ((70, 92, 128), (120, 60, 66), (64, 104, 88), (150, 130, 96), (84, 80, 92), (60, 64, 84))
_WALLS = ((176, 184, 190), (196, 188, 176), (168, 182, 172), (188, 180, 190), (150, 164, 176))


@dataclass(frozen=True)
class Face:
    """Who is drawn: colours 0..255 and proportions (factors around 1)."""

    skin: Colour = (222.0, 178.0, 150.0)
    hair: Colour = (62.0, 44.0, 34.0)
    iris: Colour = (80.0, 66.0, 50.0)
    shirt: Colour = (84.0, 96.0, 118.0)
    wall: Colour = (178.0, 182.0, 186.0)
    width: float = 1.0
    jaw: float = 1.0
    eye_gap: float = 1.0
    nose: float = 1.0
    lips: float = 1.0
    brow: float = 1.0
    parting: float = 0.0
    hair_length: float = 0.4


def draw_face(rng: np.random.Generator, cues: float) -> Face:
    """A random face; `cues` 0..1 is how far it departs from the average face."""
    mean = astuple(Face())
    palettes = (_SKINS, _HAIRS, _IRISES, _SHIRTS, _WALLS)
    colours = [p[rng.integers(len(p))] for p in palettes]
    low = (0.93, 0.8, 0.95, 0.85, 0.8, 0.75, -14.0, 0.0)
    high = (1.07, 1.2, 1.06, 1.2, 1.25, 1.3, 14.0, 1.0)
    shape = rng.uniform(low, high)
    mixed: list[Any] = [tuple(_towards(m, c, cues).tolist()) for m, c in zip(mean[:5], colours, strict=True)]
    return Face(*mixed, *_towards(mean[5:], shape, cues).tolist())


def _towards(start: object, end: object, share: float) -> Array:
    a, b = np.asarray(start, float), np.asarray(end, float)
    return a + share * (b - a)


def frames(
    face: Face,
    expression: Mapping[str, float],
    envelope: Array,
    fps: float,
    rng: np.random.Generator,
    noise: float = 0.0,
) -> Iterator[Array]:
    """Yield one uint8 [224, 224, 3] picture per value of `envelope` [T] (0..1: how far speech opens the mouth).

    `expression` weighs the rows of EXPRESSIONS; `noise` 0..1 scatters their parameters and adds grain.
    """
    action = sum((w * np.array(EXPRESSIONS[name]) for name, w in expression.items()), np.zeros(12))
    action = action + (0.4 + 4 * noise) * rng.standard_normal(12) * _SPREAD
    time = np.arange(len(envelope)) / fps
    phase, speed = rng.uniform(0, 2 * np.pi, 4), rng.uniform(0.15, 0.45, 4)
    sway = np.sin(2 * np.pi * speed * time[:, None] + phase) * [3.5, 2.0, 0.035, 0.8]
    onset = rng.uniform(-1.0, 3.5)
    blink = np.exp(-((((time - onset) % 3.1 - 0.4) / 0.09) ** 2))
    for start in range(0, len(envelope), _BLOCK):
        part = slice(start, start + _BLOCK)
        block = _block(face, action, envelope[part], blink[part], sway[part])
        if noise > 0:
            block += np.float32(30 * noise) * rng.standard_normal((*block.shape[:3], 1), np.float32)
        yield from np.clip(block, 0, 255, out=block).astype(np.uint8)


def scene(face: Face) -> Array:
    """The empty room behind `face`: uint8 [224, 224, 3]."""
    return np.moveaxis(_room(face).astype(np.uint8), 0, -1)


def _block(face: Face, action: Array, envelope: Array, blink: Array, sway: Array) -> Array:
    """Frames [T, 224, 224, 3] float32: the head's texture with its moving parts, turned and laid over the scene."""
    texture = np.repeat(_head(face)[None], len(envelope), axis=0)
    _draw_eyes(texture, face, action, blink, sway[:, 3])
    _draw_mouth(texture, face, action, envelope)
    flat = texture.view(np.uint32).reshape(len(envelope), -1)
    head = np.take_along_axis(flat, _sampling(sway), axis=1).view(np.uint8).reshape(-1, SIZE, SIZE, 4)
    alpha = head[..., 3:].astype(np.float32) * np.float32(1 / 255)
    back = _body(face)
    picture = head[..., :3] - back
    picture *= alpha
    picture += back
    return picture


def _sampling(sway: Array) -> Array:
    """Index [T, 224 * 224] of the texture pixel under every frame pixel: shift (columns 0, 1) and roll (2)."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    x = x - np.float32(_CENTRE[0]) - sway[:, 0, None, None].astype(np.float32)
    y = y - np.float32(_CENTRE[1]) - sway[:, 1, None, None].astype(np.float32)
    cos, sin = (f(sway[:, 2, None, None]).astype(np.float32) for f in (np.cos, np.sin))
    column = np.clip((cos * x + sin * y + SIZE / 2) * _FINE, 0, SIZE * _FINE - 1).astype(np.int32)
    row = np.clip((cos * y - sin * x + SIZE / 2) * _FINE, 0, SIZE * _FINE - 1).astype(np.int32)
    return (row * (SIZE * _FINE) + column).reshape(len(sway), -1)


# --- drawing ---------------------------------------------------------------------------------------------------


def _grid(left: int, right: int, top: int, bottom: int) -> tuple[Array, Array]:
    y, x = np.mgrid[top * _FINE : bottom * _FINE, left * _FINE : right * _FINE].astype(np.float32)
    return (x + 0.5) / _FINE, (y + 0.5) / _FINE


def _cover(distance: Array, soft: float = 1.0) -> Array:
    """Coverage 0..1 of a shape from its signed distance (negative inside); `soft` is the edge's width."""
    return np.clip(0.5 - distance / np.float32(soft), 0, 1)


def _spot(x: Array, y: Array, width: float, height: float) -> Array:
    return np.exp(-((x / np.float32(width)) ** 2) - (y / np.float32(height)) ** 2)


def _paint(picture: Array, colour: object, alpha: Array) -> None:
    """Blend a colour [3] or coloured light [3, ...] over `picture` [3, ...] in place."""
    paint = np.asarray(colour, np.float32)
    over = paint.reshape(3, *(1,) * (picture.ndim - 1)) - picture if paint.ndim == 1 else paint - picture
    over *= alpha
    picture += over


def _lit(colour: object, light: Array) -> Array:
    """A colour [3] under light [...]: [3, ...]."""
    return np.multiply.outer(np.asarray(colour, np.float32), light)


def _tint(colour: Colour, factor: float, red: float = 0.0) -> Array:
    return np.clip(np.asarray(colour, np.float32) * np.float32(factor) + np.array([red, 0, 0], np.float32), 0, 255)


def _ellipse(x: Array, y: Array, a: float, b: float) -> Array:
    """Approximate signed distance to an ellipse with half axes a, b."""
    return (np.hypot(x / np.float32(a), y / np.float32(b)) - 1) * np.float32(min(a, b))


def _outline(face: Face, x: Array, y: Array) -> Array:
    """Signed distance to the face's outline: an ellipse that narrows towards the chin."""
    narrow = 1 - 0.16 * face.jaw * np.clip((y - 4) / 60, 0, 1) ** 1.3
    return (np.hypot(x / (48 * np.float32(face.width) * narrow), y / np.float32(64)) - 1) * np.float32(48)


@lru_cache(maxsize=16)
def _room(face: Face) -> Array:
    """The wall with a soft light: float32 [3, 224, 224]."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    light = 0.8 + 0.28 * _spot(x - 50, y - 40, 150, 170)
    return np.clip(_lit(face.wall, light), 0, 255)


@lru_cache(maxsize=16)
def _body(face: Face) -> Array:
    """Wall, shoulders, the hair behind and the neck: float32 [224, 224, 3]."""
    picture = _room(face).copy()
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    x, y = x - np.float32(_CENTRE[0]), y - np.float32(_CENTRE[1])
    light = 0.85 - 0.0016 * x
    shoulders = _ellipse(x, y - 142, 92, 58)
    _paint(picture, _lit(face.shirt, light), _cover(shoulders, 1.5))
    length = 75 * face.hair_length
    hair = _ellipse(x, y + 6 - length / 2, 57 * face.width, 66 + length / 2)
    hair = np.maximum(hair, np.minimum(y - 74, 21 * face.width - np.abs(x)))  # falls beside the neck, not before it
    _paint(picture, _tint(face.hair, 0.6), _cover(hair, 3))
    neck = np.abs(x) - 23 * face.width - 0.004 * np.clip(y - 60, 0, 60) ** 2
    neck = np.maximum(neck, np.hypot(x / 30, (y - 60) / 40) * 30 - 30)
    shadow = 0.58 + 0.25 * np.clip((y - 60) / 40, 0, 1) - 0.002 * x
    _paint(picture, _lit(face.skin, shadow), _cover(neck, 1.5))
    return np.ascontiguousarray(np.moveaxis(picture, 0, -1))


@lru_cache(maxsize=16)
def _head(face: Face) -> Array:
    """Everything of the head that does not move by itself: uint8 texture [448, 448, 4] with coverage."""
    half = SIZE // 2
    x, y = _grid(-half, half, -half, half)
    picture = _lit(_tint(face.hair, 0.7), np.ones_like(x))
    outline, a = _outline(face, x, y), np.float32(48 * face.width)
    ears = _ellipse(np.abs(x) - a - 1, y + 2, 7, 13)
    _paint(picture, _tint(face.skin, 0.82, 8), _cover(ears))
    _paint(picture, _tint(face.skin, 0.6, 10), 0.7 * _cover(_ellipse(np.abs(x) - a - 2, y + 2, 3.5, 8), 3))
    _paint(picture, _skin(face, x, y), _cover(outline, 1.2))
    _draw_nose(picture, face, x, y)
    front = np.maximum(_ellipse(x, y + 8, 54 * face.width, 68), y + 42 - 0.017 * (x - face.parting) ** 2)
    strands = 0.95 + 0.13 * np.sin(34 * np.arctan2(x - face.parting, y + 150) + 3 * np.sin(x / 17))
    sheen = strands + 0.35 * _spot(x + 16, y + 56, 26, 10)
    _paint(picture, _lit(face.hair, sheen), _cover(front, 3))
    alpha = _cover(np.minimum(np.minimum(outline, ears), front), 1.2)
    layers = np.concatenate([picture, 255 * alpha[None]])
    return np.ascontiguousarray(np.moveaxis(layers.clip(0, 255).astype(np.uint8), 0, -1))


def _skin(face: Face, x: Array, y: Array) -> Array:
    """Lit skin: Lambert's law on an ellipsoid, darker sockets, warmer cheeks, shade below the lip and the hair."""
    nx, ny = x / np.float32(52 * face.width), y / np.float32(70)
    nz = np.sqrt(np.clip(1 - nx**2 - ny**2, 0.02, 1))
    light = 0.60 + 0.46 * np.clip(-0.30 * nx - 0.25 * ny + 0.9 * nz, 0, 1)
    gap = np.float32(21 * face.eye_gap)
    light -= 0.16 * _spot(np.abs(x) - gap, y + 15, 13, 8) + 0.10 * _spot(np.abs(x) - 9, y + 8, 5, 9)
    light += 0.07 * _spot(np.abs(x) - 26, y - 10, 12, 10) + 0.06 * _spot(x, y + 34, 24, 10)
    light += 0.06 * _spot(x, y - 54, 10, 6) - 0.10 * _spot(x, y - 47, 13, 3.5)
    light -= 0.22 * np.clip((0.017 * x**2 - 34 - y) / 12, 0, 1)
    return _lit(face.skin, light) + _lit((8, -10, -9), _spot(np.abs(x) - 27, y - 14, 14, 11))


def _draw_nose(picture: Array, face: Face, x: Array, y: Array) -> None:
    n = face.nose
    ridge = np.clip((y + 14) / 20, 0, 1) * np.clip((20 - y) / 8, 0, 1)
    _paint(picture, _tint(face.skin, 1.12), 0.45 * _spot(x + 1, y * 0, 2.6 * n, 1) * ridge)
    flanks = _spot(np.abs(x) - 6.5 * n, y * 0, 2.8, 1) * ridge * (0.7 + 0.3 * np.sign(x))
    _paint(picture, _tint(face.skin, 0.66), 0.42 * flanks)
    _paint(picture, _tint(face.skin, 1.15), 0.6 * _spot(x + 1, y - 13, 4 * n, 3.5))
    _paint(picture, _tint(face.skin, 0.60, 8), 0.6 * _spot(np.abs(x) - 9.5 * n, y - 15, 2.2, 4))
    _paint(picture, _tint(face.skin, 0.52, 10), 0.6 * _spot(x, y - 20.5, 8 * n, 2.2))
    _paint(picture, _tint(face.skin, 0.22, 10), 0.85 * _cover(_ellipse(np.abs(x) - 4.6 * n, y - 18.3, 2.6, 1.3), 1.6))
    _paint(picture, _tint(face.skin, 0.78), 0.35 * _spot(x, y - 25, 1.8, 3.5))


def _column(values: object) -> Array:
    return np.asarray(values, np.float32).reshape(-1, 1, 1)


def _moving(texture: Array, box: tuple[int, int, int, int]) -> tuple[Array, Array, Array, Array]:
    """A float copy of a rectangle of `texture` [T, ...] to paint on, its view, and its coordinates."""
    left, right, top, bottom = ((edge + SIZE // 2) * _FINE for edge in box)
    view = texture[:, top:bottom, left:right, :3]
    return np.moveaxis(view, -1, 0).astype(np.float32, order="C"), view, *_grid(*box)


def _draw_eyes(texture: Array, face: Face, action: Array, blink: Array, gaze: Array) -> None:
    inner, outer, squeeze, lid, lower, *_, wrinkles = action.tolist()
    picture, view, x, y = _moving(texture, (-44, 44, -42, 8))
    s, u, v = np.sign(x), np.abs(x) - np.float32(21 * face.eye_gap), y + 8
    bow = np.clip(1 - (u / 11.5) ** 2, 0, 1)
    upper = -_column(max(0.6, 4.8 + lid) * (1 - 0.93 * blink)) * bow**0.75
    bottom = max(0.3, 3.4 - lower) * bow
    v = v + 0.06 * u  # outer corners a little higher
    hole = np.where(np.abs(u) < 11.5, np.maximum(upper - v, v - bottom), 9.0)
    _paint(picture, _tint(face.skin, 0.55, 6), 0.55 * np.exp(-(((v - upper + 3.2) / 1.3) ** 2)) * bow)
    _paint(picture, _tint(face.skin, 0.62, 12), 0.4 * np.exp(-(((v - bottom - 1.2) / 1.2) ** 2)) * bow)
    opening = _cover(hole)
    _paint(picture, _lit((1, 1, 1), 236 - 60 * np.exp(-np.clip(v - upper, 0, None) / 2.0)), opening)
    w = u - s * _column(gaze)
    radius = np.hypot(w, v + 0.8)
    _paint(picture, _tint(face.iris, 0.5), opening * _cover(radius - 5.3))
    _paint(picture, _tint(face.iris, 1.25), opening * _cover(radius - 4.3, 2) * (0.5 + 0.5 * np.clip(v / 4, 0, 1)))
    _paint(picture, (14, 11, 10), opening * _cover(radius - 2.2))
    _paint(picture, (255, 255, 255), opening * _cover(np.hypot(w + s * 1.7, v + 2.8) - 1.2))
    _paint(picture, (34, 24, 22), 0.9 * np.exp(-(((v - upper) / 1.05) ** 2)) * (bow > 0) * (0.35 + 0.65 * bow**0.3))
    along = np.clip((u + 12 + squeeze) / (26 + squeeze), 0, 1)
    centre = -23.5 - (inner * (1 - along) ** 1.3 + outer * along) - 3.6 * np.sin(np.pi * along**0.8)
    ends = np.clip((u + 12.5 + squeeze) / 2, 0, 1) * np.clip((14.5 - u) / 5, 0, 1)
    hairs = _cover(np.abs(y - centre) - face.brow * (2.7 - 1.5 * along), 1.8) * ends
    _paint(picture, _tint(face.hair, 0.85), 0.85 * hairs)
    furrow = np.clip(squeeze - 1, 0, 3) / 3 * _spot(np.abs(x) - 4, y + 22, 1.0, 6)
    lines = np.clip(np.cos((y + 34 + 0.004 * x**2) * 1.4), 0, 1) ** 3 * _spot(x, y + 35, 26, 5)
    _paint(picture, _tint(face.skin, 0.5, 8), np.clip(0.65 * furrow + 0.35 * max(wrinkles, 0.0) * lines, 0, 1))
    view[...] = np.moveaxis(np.clip(picture, 0, 255).astype(np.uint8), 0, -1)


def _draw_mouth(texture: Array, face: Face, action: Array, envelope: Array) -> None:
    corners, wider, opened, raised, thin, fold, _ = action[5:].tolist()
    picture, view, x, y = _moving(texture, (-34, 34, 8, 62))
    opening = _column(np.clip(opened + 6.5 * envelope, 0, 15))
    width = np.float32(17 + wider) - 0.12 * opening
    q = np.clip((x / width) ** 2, 0, 1)
    bow = 1 - q
    middle = 34.5 + 0.3 * corners - corners * q + 0.1 * opening
    top, bottom = middle - opening * 0.35 * bow - raised * bow, middle + opening * 0.65 * bow**0.8
    full = face.lips * (1 - 0.55 * np.clip(thin, 0, 1))
    crest = top - 4.4 * full * bow**0.75 * (1 - 0.22 * _spot(x, x * 0, 3, 1))
    base = bottom + 6.0 * full * bow**0.65
    inside_x = np.abs(x) - width
    lips = _cover(np.maximum(np.maximum(crest - y, y - base), inside_x), 1.6)
    _paint(picture, _tint(face.skin, 0.5, 10), 0.4 * np.exp(-(((y - base - 2.5) / 2.2) ** 2)) * bow)
    _paint(picture, _tint(face.skin, 0.72, 26), 0.85 * lips)
    _paint(picture, _tint(face.skin, 0.55, 24), 0.6 * lips * (y < top))
    shine = np.exp(-(((y - bottom - 2.6) / 1.4) ** 2)) * _spot(x, x * 0, 9, 1)
    _paint(picture, _tint(face.skin, 1.0, 20), 0.45 * lips * shine)
    gap = _cover(np.maximum(np.maximum(top - y, y - bottom), inside_x), 1.2) * np.clip(opening / 1.5, 0, 1)
    _paint(picture, (58, 20, 22), gap)
    teeth = np.clip((top + np.minimum(0.5 * opening, 4.5) - y) / 1.2, 0, 1) * np.clip((0.86 - q) / 0.2, 0, 1)
    _paint(picture, (236, 230, 222), 0.9 * gap * teeth)
    seam = np.exp(-(((y - middle + raised * bow) / 0.9) ** 2)) * (np.abs(x) < width) * np.clip(1 - opening / 2.5, 0, 1)
    _paint(picture, _tint(face.skin, 0.28, 14), 0.8 * seam)
    corner = _spot(np.abs(x) - width, y - middle, 2.2, 2.0)
    _paint(picture, _tint(face.skin, 0.45, 10), 0.5 * corner)
    path = np.clip((y - 12) / 24, 0, 1)
    crease = np.exp(-(((np.abs(x) - 11 - 12 * path**1.2 - 0.4 * wider) / 1.5) ** 2)) * np.sqrt(4 * path * (1 - path))
    _paint(picture, _tint(face.skin, 0.55, 8), (0.12 + 0.38 * np.clip(fold, 0, 1)) * crease)
    view[...] = np.moveaxis(np.clip(picture, 0, 255).astype(np.uint8), 0, -1)
