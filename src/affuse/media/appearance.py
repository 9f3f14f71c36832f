"""How a face and its surroundings look, to notice another face in its place; without a network, in microseconds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

CELLS, BLOCK, SHIFT = 24, 5, 2  # cells of a side, of a block, and by which a block may move
AROUND = 2.2  # sides of the face that the cells cover
GRID = np.arange(-CELLS, CELLS) / 2 + 0.25  # places of the pixels that are read, two a cell
OPPONENTS = np.array([[1 / 3, 1 / 3, 1 / 3], [1, -1, 0], [0, -1, 1]], np.float32)  # grey, red and blue against green
FACE, LIGHT, ALIKE = (7, 17), 0.15, 0.96  # cells of the face alone; log of a change of light; correlation of one face


@dataclass
class Appearance:
    """How a face and its surroundings looked at a step.

    cells [24, 24, 3] of a grid that lies on the picture, so that what does not move has the same cells while the face
    moves: cell, their side in pixels; row and column: the middle one's place; contrast: what brings theirs to 50 grey
    levels; colours [3, 144]: grey, red and blue against green of larger cells, light and contrast taken off, each in
    ascending order, so that nothing that moves changes them. Against the appearance before (NaN: there was none): shift
    of the colours, change of the cells.
    """

    step: int
    cell: float
    row: int
    column: int
    cells: np.ndarray
    contrast: float
    colours: np.ndarray
    shift: float = np.nan
    change: float = np.nan

    @classmethod
    def of(cls, image: np.ndarray, box: np.ndarray, step: int = 0, like: Appearance | None = None) -> Appearance:
        """The face in a box, on a grid of its own or that of an earlier appearance."""
        x0, y0, x1, y1 = box.tolist()
        cell = like.cell if like is not None else cell_of(box)
        row, column = int(((y0 + y1) / 2 + 0.1 * CELLS * cell) / cell), int((x0 + x1) / 2 / cell)
        height, width = image.shape[:2]
        y = (cell * (row + GRID)).clip(0, height - 1).astype(np.intp)
        x = (cell * (column + GRID)).clip(0, width - 1).astype(np.intp)
        cells = _halved(image.take(y, 0).take(x, 1).astype(np.float32))
        colours = OPPONENTS @ _halved(cells).reshape(-1, 3).T
        colours[0] -= colours[0].mean()
        contrast = 50 / max(float(colours[0] @ colours[0] / colours.shape[1]) ** 0.5, 4.0)
        colours.sort()
        return cls(step, cell, row, column, cells, contrast, contrast * colours)

    def moved(self, before: Appearance) -> Appearance:
        """What the cells show of the place where the face was before."""
        y, x = (np.arange(CELLS) + move for move in (before.row - self.row, before.column - self.column))
        return replace(self, cells=self.cells[y.clip(0, CELLS - 1)][:, x.clip(0, CELLS - 1)])


def cell_of(box: np.ndarray) -> float:
    """The side of a cell, pixels, that suits a box."""
    x0, y0, x1, y1 = box.tolist()
    return AROUND * (max(x1 - x0, 1e-3) * max(y1 - y0, 1e-3)) ** 0.5 / CELLS


def _halved(x: np.ndarray) -> np.ndarray:
    x = x[::2] + x[1::2]
    return (x[:, ::2] + x[:, 1::2]) * np.float32(0.25)


def change_of(before: Appearance, *now: Appearance) -> float:
    """1 - likeness of blocks of cells, each where it fits best in one of `now`, up to SHIFT cells away."""
    a = _blocks(before)[0][:, [SHIFT * (2 * SHIFT + 2)]]
    a -= a.mean(3, keepdims=True)
    var_a = (a**2).sum((2, 3))
    b, var_b = (np.concatenate(parts, 1) for parts in zip(*map(_blocks, now), strict=True))
    products = (b.reshape(*b.shape[:2], -1) @ a.reshape(len(a), -1, 1))[..., 0]
    grain = 3 * (4 * BLOCK) ** 2  # of a camera, 4 grey levels: flat blocks are alike
    likeness = (2 * products + grain) / (var_a + var_b + grain)
    best = likeness.argmax(1)[:, None]
    weight = np.sqrt((var_a + np.take_along_axis(var_b, best, 1)) / 2 + grain)
    return float(1 - np.average(np.take_along_axis(likeness, best, 1), weights=weight))


def is_relit(before: Appearance, now: Appearance) -> bool:
    """Whether this is the same face in another light, which can change all colours where a camera clips them."""
    if abs(np.log(max(now.cells.mean(), 1) / max(before.cells.mean(), 1))) < LIGHT:
        return False
    low, high = FACE
    a = before.cells[low:high, low:high].mean(2)
    b = sliding_window_view(now.cells[low - 1 : high + 1, low - 1 : high + 1].mean(2), a.shape).reshape(-1, a.size)
    a, b = a.ravel() - a.mean(), b - b.mean(1, keepdims=True)
    return bool((b @ a / np.sqrt((b**2).sum(1) * (a @ a) + 1)).max() >= ALIKE)


def _blocks(look: Appearance) -> tuple[np.ndarray, np.ndarray]:
    """Each block of the cells at each of its places [16, 25, 3, 25], and the variance there [16, 25]."""
    places, count = 2 * SHIFT + 1, (CELLS - 2 * SHIFT) // BLOCK
    x = sliding_window_view(look.cells * np.float32(look.contrast), (BLOCK, BLOCK), (0, 1))
    x = x[: count * places, : count * places].reshape(count, places, count, places, -1)
    x = x.swapaxes(1, 2).reshape(count**2, places**2, 3, BLOCK**2)
    return x, np.einsum("...cp,...cp->...", x, x) - (x.sum(3) ** 2).sum(2) / BLOCK**2
