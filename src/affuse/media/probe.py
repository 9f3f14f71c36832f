"""What a media file holds, and the one door through which every decoder opens it.

The clip's own clock starts at the earliest start of its picture and sound (files may begin at any
timestamp, and phones and recorders start one of the two late): all times in `affuse.media` are
seconds on that clock, and a stream that starts late is late there too, never shifted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np

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
LONGEST_PACKET = {"audio": 60.0, "video": 4 * 3600.0}  # mean s per packet: more means a damaged header
LEAD = 1.0  # s decoded before the wanted start, so that the decoder is ready
# Containers whose header states a length.
STATED = {MP4, "matroska,webm", "flv", "flac", "mp3", "aiff", "au", "ivf", "mxf"}
SHORT = 0.25  # s, and packets, by which a track may end before its stated end
SHORT_PACKETS = 3
HOLE = {"audio": 0.5, "video": 1.0}  # s without a packet that are worth a note
UNKNOWN_SIZE = 0x7FFF0000  # bytes: what is written to a pipe cannot state its size, and claims this much or more
WIDEST_PIXEL = 4  # width over height, or height over width, beyond which a stated pixel shape is a mistake
NOUN = {"audio": "sound", "video": "picture"}
GIVE_A_CLIP = "give a video or sound file (mp4, mov, mkv, webm, avi, mpg, wav, mp3, flac, ...) that plays elsewhere"


@dataclass(frozen=True)
class AudioTrack:
    """A sound track of a clip: seconds on the clip's clock, Hz, channels; `name`: its language and title.

    `mix`: weights of the channels in the mono sound, () for their mean (see `affuse.media.audio.choose_track`).
    """

    index: int
    start: float
    end: float
    rate: int
    channels: int
    name: str = ""
    mix: tuple[float, ...] = ()


@dataclass(frozen=True)
class VideoTrack:
    """The picture of a clip: seconds on the clip's clock, square pixels as displayed, mean frames per second.

    `pixel`: width over height of a stored pixel; `rotation`: degrees counter-clockwise by which stored frames are
    turned for display, once their pixels are square; `frames`: number of stored frames (edit lists may hide some);
    `even`: whether frame k begins within half a frame of k / fps s after the first one.
    """

    index: int
    start: float
    end: float
    width: int
    height: int
    fps: float
    frames: int
    rotation: int
    pixel: Fraction = Fraction(1)
    even: bool = True


@dataclass
class Reading:
    """What only decoding shows about a clip, kept as it is read: reading a part again changes nothing.

    `track`: the sound track that is read, `why`: the notes on it (both from `affuse.media.audio.choose_track`);
    `lost`: times (s) of the damaged packets and pictures of each stream, negative where there are no timestamps.
    """

    track: AudioTrack | None = None
    why: tuple[str, ...] = ()
    lost: dict[int, set[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class ClipInfo:
    """A media file: `duration` (s) is the later end of picture and sound, `zero` (s) the file's own time of 0.

    `audio` is the first of `sounds`: all sound tracks, the default one first. `notes`: what is known to be missing.
    """

    path: Path
    container: str
    zero: float
    duration: float
    audio: AudioTrack | None
    video: VideoTrack | None
    notes: tuple[str, ...] = ()
    sounds: tuple[AudioTrack, ...] = ()
    reading: Reading = field(default_factory=Reading, compare=False, repr=False)

    def findings(self) -> list[str]:
        """Notes that only reading the clip can give: which sound was taken, and what could not be decoded so far."""
        found = list(self.reading.why)
        for index, times in self.reading.lost.items():
            what = f"{len(times)} packet{'s' * (len(times) > 1)} of sound"
            if self.video and index == self.video.index:
                what = f"{len(times)} of {self.video.frames} pictures"
            found.append(f"{what} could not be decoded{_at((t, t) for t in sorted(times) if t >= 0)}")
        return found


def _at(spans: Iterable[tuple[float, float]]) -> str:
    """ " (at 1.2-1.9 s, 3.0 s)": spans (s) in order, those less than a second apart joined, the first three named."""
    joined: list[tuple[float, float]] = []
    for start, end in spans:
        if joined and start - joined[-1][1] < 1.0:
            start = joined.pop()[0]
        joined.append((start, end))
    named = [f"{a:.1f} s" if b - a < 0.05 else f"{a:.1f}-{b:.1f} s" for a, b in joined[:3]]
    more = f" and {len(joined) - 3} more" if len(joined) > 3 else ""
    return f" (at {', '.join(named)}{more})" if named else ""


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
        message = f"{path} cannot be looked at: {error.strerror}"
        raise MissingFile(message, "check its path and its folder's permissions") from error
    return _probe(path, (state.st_mtime_ns, state.st_size) if state else ())


@lru_cache(maxsize=1024)
def _probe(path: Path, state: tuple[int, ...]) -> ClipInfo:
    with open_media(path) as container:
        scans = _scan(container, [*_usable(container, "video")[:1], *_usable(container, "audio")])
        found = [scan for scan in scans if scan.packets]
        video = next((scan for scan in found if scan.kind == "video"), None)
        audio = next((scan for scan in found if scan.kind == "audio"), None)
        for scan in (video, audio):
            if scan is not None and scan.absurd:
                claim = f"{(scan.end - scan.start) / 3600:.3g} hours of {scan.kind} in {scan.packets} packets"
                raise BadMedia(f"{path} claims to hold {claim}: its header is damaged", "copy or download it again")
        found = [scan for scan in found if not scan.absurd]
        zero = min((scan.start for scan in found), default=0.0)
        duration = max((scan.end - zero for scan in found), default=0.0)
        if duration <= 0:
            raise BadMedia(f"{path} holds neither picture nor sound", GIVE_A_CLIP)
        # A stream's properties may not be read once its container is closed.
        sounds = tuple(scan.sound(zero) for scan in found if scan.kind == "audio")
        picture = video.picture(zero) if video else None
        notes = (*_cut_off(path, scans, zero), *(note for scan in found for note in scan.notes(zero)))
        return ClipInfo(path, container.format.name, zero, duration, next(iter(sounds), None), picture, notes, sounds)


def _usable(container: InputContainer, kind: str) -> list[Any]:
    """The streams of a kind, cover art and unknown codecs aside: the default one first, comments and the like last."""
    flags = av.stream.Disposition
    aside = flags.comment | flags.descriptions | flags.visual_impaired | flags.karaoke | flags.clean_effects
    usable = [s for s in getattr(container.streams, kind) if s.codec_context and not s.disposition & flags.attached_pic]
    return sorted(usable, key=lambda s: (not s.disposition & flags.default, bool(s.disposition & aside)))


def _cut_off(path: Path, scans: list[_Scan], zero: float) -> list[str]:
    """A note where tracks end well before the length that the file's header states."""
    share, short = _share_present(path), list[str]()
    if scans and scans[0].container == "mp3" and not _counts_its_frames(path):
        return []
    for scan in scans:
        end = scan.last - zero if scan.packets else 0.0
        stated = scan.stated - zero if share == 1 else end / share
        if stated - end > max(SHORT, SHORT_PACKETS * end / max(scan.packets, 1)):
            short.append(f"the {NOUN[scan.kind]} ends at {end:.1f} of {stated:.1f} s")
    # Tracks that are stored side by side all end early where a file is cut off; MP4 knows the length of each.
    if not short or (len(short) < len(scans) and scans[0].container != MP4):
        return []
    rest = "the file was cut off or is damaged, and nothing is known of the rest (copy or download it again)"
    return [f"{' and '.join(dict.fromkeys(short))}: {rest}"]


def _share_present(path: Path) -> float:
    """Share of a RIFF file's (wav, avi) stated bytes that are there; 1 for other files and where none are stated."""
    with path.open("rb") as file:
        head = file.read(8)
    stated = int.from_bytes(head[4:], "little") + 8
    return min(1.0, path.stat().st_size / stated) if head[:4] == b"RIFF" and stated < UNKNOWN_SIZE else 1.0


def _counts_its_frames(path: Path) -> bool:
    """Whether an MP3 states how many frames it has: the length of any other is guessed from its size."""
    with path.open("rb") as file:
        tag = file.read(10)  # ID3: its size is in four times seven bits
        file.seek(10 + sum(b << 7 * k for k, b in enumerate(tag[:5:-1])) if tag[:3] == b"ID3" else 0)
        head = file.read(256)
    return re.search(rb"(Xing|Info)...[\x01\x03\x05\x07\x09\x0b\x0d\x0f]|VBRI", head, re.DOTALL) is not None


def pixel_shape(stated: Fraction | None) -> Fraction:
    """Width over height of a stored pixel: 1 where nothing, or nothing possible, is stated."""
    return stated if stated and 1 / WIDEST_PIXEL <= stated <= WIDEST_PIXEL else Fraction(1)


class _Scan:
    """Times of one stream by its packets: the headers of many containers only estimate them."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.base = stream, float(stream.time_base)
        self.kind, self.container = stream.type, stream.container.format.name
        self.packets, self.first, self.last = 0, math.inf, -math.inf
        self.until, self.holes = math.inf, list[tuple[float, float]]()
        self.shown: Any = None
        self.stamps: list[int] = []

    def add(self, packet: Any) -> None:
        if self.shown is None and self.kind == "video":
            self.shown = next(iter(_attempt(packet) or ()), None)
        stamp = packet.dts if packet.pts is None else packet.pts
        if packet.is_discard or not packet.size:
            return
        self.packets += 1
        if stamp is not None:
            if self.kind == "video":
                self.stamps.append(stamp)
            self.first = min(self.first, stamp * self.base)
            self.last = max(self.last, (stamp + (packet.duration or 0)) * self.base)
        at = self.until if packet.dts is None else packet.dts * self.base
        if at - self.until > HOLE[self.kind]:
            self.holes.append((self.until, at))
        self.until = at + (packet.duration or 0) * self.base

    @property
    def start(self) -> float:
        """The header's start where given: it knows of encoder delay, packets do not."""
        if self.stream.start_time is not None:
            return float(self.stream.start_time * self.base)
        return self.first if self.first < math.inf else 0.0

    @property
    def end(self) -> float:
        """An MP4 header states the exact length, also of a file cut short, unless the file is in fragments."""
        if self.container == MP4 and self.stream.duration:
            stated = self.start + self.stream.duration * self.base
            return stated if self.last < stated + FRAGMENTED else self.last
        if self.last == -math.inf and self.kind == "video":  # a raw stream, without timestamps
            return self.start + self.packets / float(self.stream.guessed_rate or 25)
        return self.last

    @property
    def absurd(self) -> bool:
        """Whether it claims to last longer than its packets can."""
        return self.end - self.start > LONGEST_PACKET[self.kind] * self.packets

    @property
    def stated(self) -> float:
        """The end that the header states, -inf where it states none: other lengths are guessed from the file's size."""
        container = self.stream.container
        if self.container not in STATED:
            return -math.inf
        if self.stream.duration:
            return self.start + float(self.stream.duration * self.base)
        if own := re.fullmatch(r"(\d+):(\d\d):(\d\d\.?\d*)", self.stream.metadata.get("DURATION", "")):  # Matroska
            return 3600 * float(own[1]) + 60 * float(own[2]) + float(own[3])
        alone = all(s.type in NOUN for s in container.streams)  # subtitles may last longer
        return container.duration / av.time_base if container.duration and alone else -math.inf

    def notes(self, zero: float) -> list[str]:
        """What is odd about the packets."""
        found = []
        if self.holes:
            where = _at((a - zero, b - zero) for a, b in self.holes)
            found.append(f"there is no {NOUN[self.kind]} in a part of the clip{where}")
        stated = self.stream.sample_aspect_ratio if self.kind == "video" else None
        if stated and pixel_shape(stated) != stated:
            found.append(f"pixels of {stated.numerator}:{stated.denominator} are taken as square")
        return found

    def sound(self, zero: float) -> AudioTrack:
        codec, stated = self.stream.codec_context, self.stream.metadata
        name = " ".join(x for x in (stated.get("language", "und"), stated.get("title", "")) if x and x != "und")
        start, end = self.start - zero, self.end - zero
        return AudioTrack(self.stream.index, start, end, codec.sample_rate, codec.channels, name)

    def picture(self, zero: float) -> VideoTrack:
        size = self.shown or self.stream.codec_context
        turn = (round(self.shown.rotation / 90) * 90) % 360 if self.shown is not None else 0
        pixel = pixel_shape(self.stream.sample_aspect_ratio or self.stream.codec_context.sample_aspect_ratio)
        shape = round(size.width * pixel), size.height
        width, height = shape[::-1] if turn % 180 else shape
        counted = self.packets / (self.end - self.start) if self.end > self.start else 25.0
        fps = float(self.stream.average_rate or self.stream.guessed_rate or counted)
        return VideoTrack(
            self.stream.index, self.start - zero, self.end - zero, width, height, fps, self.packets, turn, pixel,
            self._even(fps),
        )  # fmt: skip

    def _even(self, fps: float) -> bool:
        times = np.sort(np.array(self.stamps, dtype=float)) * self.base
        return not len(times) or bool(np.abs(times - times[0] - np.arange(len(times)) / fps).max() <= 0.5 / fps)


def _scan(container: InputContainer, streams: list[Any]) -> list[_Scan]:
    scans = {s.index: _Scan(s) for s in streams}
    for packet in container.demux(streams) if streams else ():
        scans[packet.stream.index].add(packet)
    return list(scans.values())


def decode(
    container: InputContainer, info: ClipInfo, track: AudioTrack | VideoTrack, start: float, lost: list[float]
) -> Iterator[Any]:
    """PyAV frames of one track, from the beginning or, far into an indexed file, from a little before `start`.

    Damaged packets and pictures are left out and their times (s) appended to `lost` and kept in `info.reading`.
    Raises BadMedia when the whole track is damage.
    """
    stream: Any = container.streams[track.index]
    sought = info.container in INDEXED and start > FAR
    if sought:
        container.seek(int((start - LEAD + info.zero) / stream.time_base), stream=stream)
    alive = sought
    for number, packet in enumerate(container.demux(stream), 1):
        frames = _attempt(packet)
        damaged = [packet] if frames is None else [frame for frame in frames if frame.is_corrupt]
        for item in damaged:
            lost.append(seconds(item, info, math.nan))
            at = seconds(item, info, -float(number))
            if not sought or at >= start:  # what leads up to `start` may lack what it refers to
                info.reading.lost.setdefault(track.index, set()).add(at)
        for frame in frames or ():
            if not frame.is_corrupt:
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
