"""Files by their names and first bytes: which may be clips, and an error of its own for each kind that is none."""

from __future__ import annotations

import codecs
import glob
import os
import re
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

from affuse.core.errors import BadMedia, MissingFile

# How files are called that `affuse.media.probe.CONTAINERS` may hold.
_NAMES = """
.mp4 .m4v .mov .qt .3gp .3g2 .f4v .mj2 .ismv .insv .mkv .mk3d .webm .avi .divx .mpg .mpeg .mpe .mpv .m1v .m2v .mp2v
.vob .ts .mts .m2ts .m2t .trp .tod .mod .flv .wmv .asf .ogv .ogm .ogx .gif .dv .dif .mxf .rm .rmvb .nut .mjpeg .mjpg
.h264 .264 .avc .h265 .265 .hevc .obu .ivf
.wav .wave .bwf .rf64 .w64 .mp3 .mp2 .mpa .m2a .flac .aac .adts .m4a .m4b .m4r .ac3 .eac3 .ec3 .ogg .oga .opus .spx
.mka .weba .wma .aiff .aif .aifc .au .snd .caf .amr .awb .3ga .ra .ape .wv .voc .sph .nist
"""
MEDIA = frozenset(_NAMES.split())
SUBTITLES = (".srt", ".vtt")
PLAINLY = {  # how files begin that are no clips, though FFmpeg would take some for one
    "a picture": rb"\xff\xd8\xff|\x89PNG|BM|II\*\0|MM\0\*|8BPS|RIFF....WEBP|....ftyp(?:hei[cmsx]|mif1|avif)",
    "a document or an archive": rb"%PDF|\{\\rtf|\xd0\xcf\x11\xe0|PK\x03\x04|Rar!|7z\xbc\xaf|\x1f\x8b",
    "what macOS keeps beside a file of that name (AppleDouble)": rb"\0\x05\x16\x07",
}
NO_FILES = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
GIVE_A_CLIP = "affuse analyses clips: give a video or sound file (mp4, mov, mkv, webm, wav, mp3, ...)"


def check_clip(clip: str | Path) -> os.stat_result:
    """The state of a clip's file. Raises MissingFile or BadMedia, which say what it is, for a file that is no clip."""
    name = os.fspath(clip)
    try:
        state = os.stat(name)
    except OSError as error:
        raise _missing(name, error) from error
    if stat.S_ISDIR(state.st_mode):
        if not os.access(name, os.R_OK | os.X_OK):
            raise MissingFile(f"the folder {name} may not be read", "change its permissions")
        raise MissingFile(f"the folder {name} holds no clip", GIVE_A_CLIP)
    if (kind := NO_FILES.get(stat.S_IFMT(state.st_mode))) is not None:
        raise MissingFile(f"{name} is {kind}, not a file", "save the clip to a file first: it is read more than once")
    suffix = os.path.splitext(name)[1].lower()
    if suffix in SUBTITLES:
        raise BadMedia(f"{name} holds subtitles, not a clip", f"give the clip, with --transcript {name}")
    if (what := _plainly(name)) is not None and not (what == "a picture" and suffix in (".mjpg", ".mjpeg")):
        raise BadMedia(f"{name} is {what}, not a clip", GIVE_A_CLIP)
    return state


def _missing(name: str, error: OSError) -> MissingFile:
    """Why there is no file of that name, and what to do."""
    if name in ("", "-"):
        what = "an empty name" if not name else "standard input (-)"
        return MissingFile(f"{what} is no clip", "give the path of a file; save first what comes through a pipe")
    if re.match(r"[a-z][a-z0-9+.-]+://", name, re.IGNORECASE):
        local = name.lower().startswith("file:")
        remedy = "download it first, then give the path of the file"
        if local:
            remedy = f"give its path: {unquote(urlsplit(name).path)}"
        return MissingFile(f"{name} is an address, not a file", remedy)
    if os.path.islink(name):
        message = f"{name} is a broken link: {os.readlink(name)} cannot be reached"
        return MissingFile(message, "bring back what it points to, or give the clip itself")
    if isinstance(error, FileNotFoundError):
        unmatched = ", and no clip matches it" if glob.has_magic(name) else ""
        return MissingFile(f"{name} does not exist{unmatched}", "check the path of the clip")
    return MissingFile(f"{name} cannot be looked at: {error.strerror}", "check its path and its folder's permissions")


def _plainly(name: str) -> str | None:
    """What a file is that is no clip, by its first bytes; None: perhaps a clip."""
    try:
        with open(name, "rb") as file:
            head = file.read(1024)
    except OSError:  # opening the clip raises it again
        return None
    found = (what for what, begin in PLAINLY.items() if re.match(begin, head, re.DOTALL))
    return next(found, "text (a failed download, or a playlist?)" if _is_text(head) else None)


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)  # may end within a character
    except UnicodeDecodeError:
        return False
    readable = all(c.isprintable() or c.isspace() for c in text)
    return bool(text) and readable and not text.startswith(("NIST_1A", "#!AMR"))
