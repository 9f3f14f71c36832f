"""Pictures of a clip, decoded in sequence, on a regular time grid: only the chosen frames are converted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from affuse.core.errors import BadConfig
from affuse.media.probe import ClipInfo, VideoTrack, decode, open_media, pixel_shape, probe, seconds

if TYPE_CHECKING:
    from av.container import InputContainer

LONGEST_HOLD = 1.0  # s a frame may stand still unless it states a longer duration itself
CATCH_UP = 1 / 16  # of its duration by which a frame stamped a little too early follows its predecessor
ROUNDING = 1e-6

_Shown = tuple[float, float, tuple[Any, Fraction]]  # begin, until (s), (PyAV frame, width over height of its pixels)


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture: grid `index`, `time` (s), `image` uint8 [H, W, 3] RGB (read only, may be shared).

    The image is as displayed: its pixels are square, and it is turned upright.
    """

    index: int
    time: float
    image: np.ndarray


def grid_steps(duration: float, fps: float) -> int:
    """Number of grid points k / fps in [0, duration): the ceiling, forgiving a twentieth of a step of rounding.

    3.00 s at 25 fps has 75; a last point with less than 1/20 step left is not counted.
    """
    return max(0, math.ceil(duration * fps - 0.05))


def iter_frames(
    path: Path | str, fps: float | None = None, start: float = 0.0, end: float | None = None, size: int | None = None
) -> Iterator[Frame]:
    """Frames of a clip within [start, end) s of its clock, scaled so that the longest side is at most `size` pixels.

    With `fps`, `Frame.index` k stands at start + k / fps and shows the latest frame that began by then, within half
    a frame (of the finer of source and grid). Grid points before the first frame, after the end of the last and in
    damaged parts are left out: the caller masks them. Without `fps`, every frame at its own time, counted.
    A frame without a timestamp, or after timestamps began anew, follows its predecessor's duration; one stamped a
    little before its predecessor follows at once, so that a wrong stamp does not shift the rest.
    No picture in the file: no frames. Raises MissingFile, BadMedia; memory holds two frames at a time.
    """
    if (fps is not None and not 0 < fps < math.inf) or (size is not None and size < 1):
        raise BadConfig(f"cannot sample frames at fps={fps}, size={size}", "both must be above 0")
    info = probe(path)
    if info.video is None:
        return
    with open_media(path) as container:
        tolerance = 0.5 / max(fps, info.video.fps) if fps else 0.0
        shown = _shown(container, info, info.video, start, tolerance)
        yield from _every(shown, start, end, size) if fps is None else _grid(shown, fps, start, end, size)


def frame_times(path: Path | str) -> np.ndarray:
    """When each frame that can be decoded begins, s on the clip's clock, [T] rising; none without a picture.

    Times are the container's own, at variable frame rates too. Nothing is converted. Raises MissingFile, BadMedia.
    """
    info = probe(path)
    if info.video is None:
        return np.zeros(0)
    with open_media(path) as container:
        return np.array([begin for begin, _, _ in _shown(container, info, info.video, 0.0, 0.0)], dtype=float)


def _every(shown: Iterator[_Shown], start: float, end: float | None, size: int | None) -> Iterator[Frame]:
    index = 0
    for time, _, picture in shown:
        if end is not None and time >= end:
            return
        if time >= start - ROUNDING:
            yield Frame(index, time, _image(picture, size))
            index += 1


def _grid(
    shown: Iterator[_Shown], fps: float, start: float, end: float | None, size: int | None
) -> Iterator[Frame]:
    index, steps = 0, math.inf if end is None else grid_steps(end - start, fps)
    for begin, until, picture in shown:
        index = max(index, math.ceil((begin - start) * fps - ROUNDING))
        stop = min(steps, math.ceil((until - start) * fps - ROUNDING))
        if index < stop:
            image = _image(picture, size)
            while index < stop:
                yield Frame(index, start + index / fps, image)
                index += 1
        if index >= steps:
            return


def _shown(
    container: InputContainer, info: ClipInfo, track: VideoTrack, start: float, tolerance: float
) -> Iterator[_Shown]:
    """When each frame is on screen, begun `tolerance` early, ended by the next frame.

    Before damage, and before a silence of more than LONGEST_HOLD, a frame lasts for its own duration only.
    """
    lost: list[float] = []
    stream: Any = container.streams[track.index]
    stated, codec = stream.sample_aspect_ratio, stream.codec_context
    fixed = stated != codec.sample_aspect_ratio  # a container that contradicts its codec is right, as players have it
    last: tuple[float, float, tuple[Any, Fraction]] | None = None
    for picture in decode(container, info, track, start, lost):
        time = seconds(picture, info, -math.inf)
        if last is None:
            time = max(time, track.start) if time == -math.inf else time
        else:
            begun, own, previous = last
            time = time if time > begun else begun + own * (1 if time < begun - LONGEST_HOLD else CATCH_UP)
            broken = any(begun < at < time for at in lost) or time - begun > max(own, LONGEST_HOLD) + ROUNDING
            yield begun - tolerance, min(time - tolerance, begun + own) if broken else time - tolerance, previous
            lost[:] = [at for at in lost if at > time]
        own = float((picture.duration or 0) * picture.time_base) or 1.0 / track.fps
        pixel = pixel_shape(stated if fixed else codec.sample_aspect_ratio or stated)
        last = (time, own, (picture, pixel))
    if last is not None:
        yield last[0] - tolerance, last[0] + last[1], last[2]


def _image(shown: tuple[Any, Fraction], size: int | None) -> np.ndarray:
    """The picture upright and with square pixels, its longest side at most `size`."""
    picture, pixel = shown
    sides = float(picture.width * pixel), picture.height
    scale = min(1.0, size / max(sides)) if size else 1.0
    width, height = (max(1, round(side * scale)) for side in sides)
    image = picture.reformat(width=width, height=height, format="rgb24").to_ndarray()
    image = np.ascontiguousarray(np.rot90(image, round(picture.rotation / 90)))
    image.flags.writeable = False
    return image
