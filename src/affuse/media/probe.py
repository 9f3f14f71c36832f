"""What a media file holds, and the one door through which every decoder opens it.

The clip's own clock starts at the earliest start of its picture and sound (files may begin at any
timestamp, and phones and recorders start one of the two late): all times in `affuse.media` are
seconds on that clock, and a stream that starts late is late there too, never shifted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av

from affuse.core.errors import BadMedia, MissingFile

if TYPE_CHECKING:
    from av.container import InputContainer

# Everything else FFmpeg would accept is no clip: still pictures, text as ANSI art, playlists that fetch URLs.
CONTAINERS = (
    "mov,matroska,avi,mpeg,mpegts,mpegvideo,m4v,h264,hevc,av1,ivf,flv,asf,ogg,gif,dv,mxf,rm,nut,mjpeg,"
    "wav,w64,mp3,flac,aac,ac3,eac3,aiff,au,caf,amr,nistsphere,ape,wv,voc"
)
ONLY_CLIPS = {"format_whitelist": CONTAINERS}
MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
INDEXED = {MP4, "matroska,webm", "wav"}  # containers in which a seek lands exactly
FAR = 30.0  # s into the file from which seeking beats decoding from the start
FRAGMENTED = 0.25  # s of packets beyond the stated end that are more than padding
LONGEST_PACKET = {"audio": 60.0, "video": 4 * 3600.0}  # s per packet on average: more is a damaged header, not a recording
LEAD = 1.0  # s decoded before the wanted start, so that decoders have settled
GIVE_A_CLIP = "give a video or sound file (mp4, mov, mkv, webm, avi, mpg, wav, mp3, flac, ...) that plays elsewhere"


@dataclass(frozen=True)
class AudioTrack:
    """The sound of a clip: seconds on the clip's clock, Hz, channels."""

    index: int
    start: float
    end: float
    rate: int
    channels: int


@dataclass(frozen=True)
class VideoTrack:
    """The picture of a clip: seconds on the clip's clock, pixels as displayed, mean frames per second.

    `rotation`: degrees counter-clockwise by which stored frames are turned for display;
    `frames`: number of stored frames (edit lists may hide some of them).
    """

    index: int
    start: float
    end: float
    width: int
    height: int
    fps: float
    frames: int
    rotation: int


@dataclass(frozen=True)
class ClipInfo:
    """A media file: `duration` (s) is the later end of picture and sound, `zero` (s) the file's own time of 0."""

    path: Path
    container: str
    zero: float
    duration: float
    audio: AudioTrack | None
    video: VideoTrack | None


@contextmanager
def open_media(path: Path | str) -> Iterator[InputContainer]:
    """Open a clip for decoding; every failure is a MissingFile or BadMedia that names it.

    Opened as a file object: FFmpeg would read `a:b.mp4` as a protocol and URLs as URLs.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a clip" if path.is_dir() else "does not exist"
        raise MissingFile(f"{path} {what}", "check the path of the clip")
    if path.stat().st_size == 0:
        raise BadMedia(f"{path} is empty (0 bytes)", "copy or download it again")
    try:
        with (
            path.open("rb") as file,
            av.open(file, "r", metadata_errors="replace", container_options=ONLY_CLIPS) as container,
        ):
            yield container
    except PermissionError as error:
        raise MissingFile(f"{path} may not be read: {error.strerror}", "change its permissions") from error
    except (av.FFmpegError, OSError) as error:
        raise BadMedia(f"{path} is not a usable clip: {error.strerror or error}", GIVE_A_CLIP) from error


def probe(path: Path | str) -> ClipInfo:
    """Streams, spans and sizes of a clip (one pass over its packets, one decoded picture; cached per file state).

    Raises MissingFile, or BadMedia for files without picture and sound.
    """
    path = Path(path)
    try:
        state = path.stat() if path.is_file() else None
    except OSError as error:  # a folder that may not be entered, a name that is too long
        raise MissingFile(f"{path} cannot be looked at: {error.strerror}", "check its path and its folder's permissions") from error
    return _probe(path, (state.st_mtime_ns, state.st_size) if state else ())


@lru_cache(maxsize=1024)
def _probe(path: Path, state: tuple[int, ...]) -> ClipInfo:
    with open_media(path) as container:
        streams = [s for s in (_main(container, "video"), _main(container, "audio")) if s is not None]
        scans = {scan.stream.type: scan for scan in _scan(container, streams) if scan.packets}
        zero = min((scan.start for scan in scans.values()), default=0.0)
        duration = max((scan.end - zero for scan in scans.values()), default=0.0)
        if duration <= 0:
            raise BadMedia(f"{path} holds neither picture nor sound", GIVE_A_CLIP)
        for kind, scan in scans.items():
            if scan.end - scan.start > LONGEST_PACKET[kind] * scan.packets:
                claim = f"{(scan.end - scan.start) / 3600:.3g} hours of {kind} in {scan.packets} packets"
                raise BadMedia(f"{path} claims to hold {claim}: its header is damaged", "copy or download it again")
        # A stream's properties may not be read once its container is closed.
        video, audio = scans.get("video"), scans.get("audio")
        sound, picture = audio.sound(zero) if audio else None, video.picture(zero) if video else None
        return ClipInfo(path, container.format.name, zero, duration, sound, picture)


def _main(container: InputContainer, kind: str) -> Any:
    """The default stream of a kind, cover art and unknown codecs aside."""
    cover = av.stream.Disposition.attached_pic
    usable = [s for s in getattr(container.streams, kind) if s.codec_context and not s.disposition & cover]
    return max(usable, key=lambda s: bool(s.disposition & av.stream.Disposition.default), default=None)


class _Scan:
    """What the packets of one stream say: headers of many containers only estimate."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.base = stream, float(stream.time_base)
        self.packets, self.first, self.last = 0, math.inf, -math.inf
        self.shown: Any = None

    def add(self, packet: Any) -> None:
        if self.shown is None and self.stream.type == "video":
            self.shown = next(iter(_attempt(packet) or ()), None)
        stamp = packet.dts if packet.pts is None else packet.pts
        if packet.is_discard or not packet.size:
            return
        self.packets += 1
        if stamp is not None:
            self.first = min(self.first, stamp * self.base)
            self.last = max(self.last, (stamp + (packet.duration or 0)) * self.base)

    @property
    def start(self) -> float:
        """The header's start where given: it knows of encoder delay, packets do not."""
        if self.stream.start_time is not None:
            return float(self.stream.start_time * self.base)
        return self.first if self.first < math.inf else 0.0

    @property
    def end(self) -> float:
        """An MP4 header states the exact length, also of a file cut short, unless the file is in fragments."""
        if self.stream.container.format.name == MP4 and self.stream.duration:
            stated = self.start + self.stream.duration * self.base
            return stated if self.last < stated + FRAGMENTED else self.last
        if self.last == -math.inf and self.stream.type == "video":  # a raw stream, without timestamps
            return self.start + self.packets / float(self.stream.guessed_rate or 25)
        return self.last

    def sound(self, zero: float) -> AudioTrack:
        codec = self.stream.codec_context
        return AudioTrack(self.stream.index, self.start - zero, self.end - zero, codec.sample_rate, codec.channels)

    def picture(self, zero: float) -> VideoTrack:
        size = self.shown or self.stream.codec_context
        turn = (round(self.shown.rotation / 90) * 90) % 360 if self.shown is not None else 0
        width, height = (size.height, size.width) if turn % 180 else (size.width, size.height)
        counted = self.packets / (self.end - self.start) if self.end > self.start else 25.0
        fps = float(self.stream.average_rate or self.stream.guessed_rate or counted)
        return VideoTrack(
            self.stream.index, self.start - zero, self.end - zero, width, height, fps, self.packets, turn
        )


def _scan(container: InputContainer, streams: list[Any]) -> list[_Scan]:
    scans = {s.index: _Scan(s) for s in streams}
    for packet in container.demux(streams) if streams else ():
        scans[packet.stream.index].add(packet)
    return list(scans.values())


def decode(
    container: InputContainer, info: ClipInfo, track: AudioTrack | VideoTrack, start: float, lost: list[float]
) -> Iterator[Any]:
    """PyAV frames of one track, from the beginning or, far into an indexed file, from a little before `start`.

    Damaged packets and pictures are left out and their times (s) appended to `lost`. Raises BadMedia
    when the whole track is damage.
    """
    stream: Any = container.streams[track.index]
    sought = info.container in INDEXED and start > FAR
    if sought:
        container.seek(int((start - LEAD + info.zero) / stream.time_base), stream=stream)
    alive = sought
    for packet in container.demux(stream):
        frames = _attempt(packet)
        if frames is None:
            lost.append(seconds(packet, info, math.nan))
        for frame in frames or ():
            if frame.is_corrupt:
                lost.append(seconds(frame, info, math.nan))
                continue
            alive = True
            yield frame
    if lost and not alive:
        raise BadMedia(f"nothing of the {stream.type} of {info.path} can be decoded", "copy or download it again")


def _attempt(packet: Any) -> list[Any] | None:
    """The frames that a packet completes; None if it is damaged."""
    try:
        return list(packet.decode())
    except av.FFmpegError:
        return None


def seconds(item: Any, info: ClipInfo, otherwise: float) -> float:
    """Time of a packet or frame on the clip's clock; `otherwise` if it carries no timestamp."""
    return otherwise if item.pts is None else float(item.pts * item.time_base) - info.zero
