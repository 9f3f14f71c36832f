"""Writing media: a clip as MP4 (for synthetic corpora, demonstrations and tests), sound as WAV, a picture as JPEG."""

from __future__ import annotations

import wave
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np

from affuse.core.errors import BadMedia
from affuse.core.io import atomic


def write_clip(
    path: Path | str,
    frames: Iterable[np.ndarray] | None,
    fps: float = 25.0,
    audio: np.ndarray | None = None,
    rate: int = 16000,
    crf: int = 23,
    preset: str = "veryfast",
) -> None:
    """Encode uint8 [H, W, 3] RGB frames (even sides, streamed) and mono float32 [n] sound to an MP4, atomically.

    Either of the two may be None. Raises BadMedia for nothing to write or frames that H.264 cannot hold.
    """
    pictures = iter(frames if frames is not None else ())
    first = next(pictures, None)
    if first is None and (audio is None or len(audio) == 0):
        raise BadMedia(f"nothing to write to {path}: no frames and no sound", "give frames, sound or both")
    try:
        with atomic(path) as tmp, tmp.open("wb") as file, av.open(file, "w", format="mp4") as container:
            sound = _Sound(container, audio, rate) if audio is not None and len(audio) else None
            if first is not None:
                stream: Any = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(30030))
                stream.width, stream.height, stream.pix_fmt = first.shape[1], first.shape[0], "yuv420p"
                stream.options = {"crf": str(crf), "preset": preset}
                for index, picture in enumerate(_checked(chain([first], pictures), first.shape)):
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                    if sound is not None:
                        sound.write_until((index + 1) / fps)
                container.mux(stream.encode(None))
            if sound is not None:
                sound.finish()
    except av.FFmpegError as error:
        raise BadMedia(f"cannot encode {path} ({fps} fps, {rate} Hz): {error}", "try 25 fps, 16000 Hz") from error


def pack_jpegs(path: Path | str, pictures: Iterable[tuple[int, bytes]], fps: float) -> None:
    """Write JPEG pictures (number, bytes) as a MOV, atomically: number k is shown from k / fps s on.

    They are kept as they are: nothing is encoded anew. Raises BadMedia for none, for what is no JPEG, and for numbers
    that fall.
    """
    rate = Fraction(fps).limit_denominator(30030)
    try:
        with atomic(path) as tmp, tmp.open("wb") as file, av.open(file, "w", format="mov") as container:
            stream: Any = None
            for number, data in pictures:
                packet: Any = av.Packet(data)
                if stream is None:
                    stream = container.add_stream("mjpeg", rate=rate)
                    first: Any = av.CodecContext.create("mjpeg", "r").decode(av.Packet(data))[0]
                    stream.width, stream.height, stream.pix_fmt = first.width, first.height, "yuvj420p"
                packet.stream, packet.time_base, packet.is_keyframe = stream, 1 / rate, True
                packet.pts, packet.dts, packet.duration = number, number, 1
                container.mux(packet)
            if stream is None:
                raise BadMedia(f"nothing to write to {path}: no pictures", "give at least one")
    except (av.FFmpegError, IndexError) as error:
        raise BadMedia(f"cannot pack the pictures of {path}: {error}", "give whole JPEG files") from error


def write_wav(path: Path | str, samples: np.ndarray, rate: int) -> None:
    """Write mono sound, float32 [n] in -1..1 (clipped beyond), as WAV of 16 bits at `rate` Hz, atomically."""
    pcm = np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2")
    with atomic(path) as tmp, wave.open(str(tmp), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(pcm.tobytes())


def jpeg(image: np.ndarray, quality: int = 2) -> bytes:
    """A uint8 [H, W, 3] RGB picture as JPEG; `quality` as FFmpeg's -q:v, 1 (finest) to 31."""
    codec: Any = av.CodecContext.create("mjpeg", "w")
    codec.height, codec.width = image.shape[:2]
    codec.pix_fmt, codec.time_base = "yuvj420p", Fraction(1, 1)
    codec.options = {"qmin": str(quality), "qmax": str(quality)}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(format="yuvj420p")
    frame.pts, frame.time_base = 0, Fraction(1, 1)
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])


def _checked(frames: Iterator[np.ndarray], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    for frame in frames:
        even = frame.ndim == 3 and frame.shape[0] % 2 == 0 and frame.shape[1] % 2 == 0
        if frame.dtype != np.uint8 or frame.shape != shape or not even or frame.shape[2] != 3:
            found = f"cannot encode a {frame.dtype} frame of shape {frame.shape}"
            raise BadMedia(found, "give uint8 [H, W, 3], H and W even, all of one size")
        yield np.ascontiguousarray(frame)


class _Sound:
    """An AAC track written alongside the picture, so that the muxer need not hold one of them back."""

    def __init__(self, container: Any, audio: np.ndarray, rate: int) -> None:
        self.container, self.audio, self.rate, self.at = container, np.asarray(audio, np.float32), rate, 0
        self.stream = container.add_stream("aac", rate=rate, layout="mono")

    def write_until(self, time: float) -> None:
        while self.at < min(len(self.audio), time * self.rate):
            block = self.audio[None, self.at : self.at + self.rate]
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = self.rate, self.at, Fraction(1, self.rate)
            self.container.mux(self.stream.encode(frame))
            self.at += block.shape[1]

    def finish(self) -> None:
        self.write_until(float("inf"))
        self.container.mux(self.stream.encode(None))
