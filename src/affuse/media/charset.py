"""Which encoding a text was written in: Unicode where it is, else a guess that a note names."""

from __future__ import annotations

import codecs

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_CYRILLIC = "оеаинтсрвлі"
_KANA = "".join(map(chr, range(0x3041, 0x30FD)))
# The encodings of subtitles, and for each language written in them the letters besides a to z that it uses, or those
# that it uses most. Bytes are valid in many encodings; the letters show which one was meant.
_LETTERS: dict[str, tuple[str, ...]] = {
    "cp1252": ("àâçèéêëîïôùûüœ", "äöüß", "áéíóúñü¿¡", "ãõáéíóúâêôàçü", "àèéìòùí", "åäöæøé", "áðéíóúýþæö"),
    "cp1250": ("áčďéěíňóřšťúůýž", "áäčďéíĺľňóôŕšťúýž", "ąćęłńóśźż", "áéíóöőúüű", "čćđšž", "ăâîşţ"),
    "cp1251": (_CYRILLIC,),
    "cp1253": ("αοιετσνηυρ",),
    "cp1254": ("çğıöşüâi̇",),
    "cp1255": ("יוהלאמתרבש",),
    "cp1256": ("ايلنموترهب",),
    "cp1257": ("ąčęėįšųūž", "āčēģīķļņšūž", "äõöüšž"),
    "koi8_r": (_CYRILLIC,),
    "cp874": ("านรกอเงมยลวดท่้ีสั",),
    "cp932": (_KANA,),
    "euc_jp": (_KANA,),
    "cp949": ("이다는가을의에고하지도나어은를로아기한그사리해요니게서있없내라자거너만일여세무수보안대정말오늘야네시",),
    "gb18030": ("的一是不了在人有我他这你们好来上个到说就去要会那么什没看她吧吗啊今天知道想",),
    "big5": ("的一是不了在人有我他這你們好來上個到說就去要會那麼什沒看她吧嗎啊今天知道想",),
}
_MARGIN = 0.15  # of disorder: within it, charset-normalizer's order means little
_SAMPLE = 1 << 16  # bytes that a guess uses


def find_encoding(data: bytes) -> tuple[str, str]:
    """(codec, note) of a text: UTF-8, UTF-16 and UTF-32 by their marks or form, else the likeliest legacy encoding.

    The note is empty where nothing was guessed. Decode with errors="replace": a Unicode text may be damaged.
    """
    for mark, codec in _MARKS:
        if data.startswith(mark):
            return codec, ""
    even, odd = data[::2].count(0), data[1::2].count(0)
    if max(even, odd) > len(data) / 20 and max(even, odd) > 4 * min(even, odd):
        return ("utf-16-le" if odd > even else "utf-16-be"), "read as UTF-16, though it has no mark"
    text = data.decode("utf-8", errors="replace")
    damaged = text.count("\ufffd")
    if not damaged:
        return "utf-8", ""
    if sum(ord(c) > 127 for c in text) > 5 * damaged:
        return "utf-8", f"{damaged} damaged character{'s' * (damaged > 1)} in its UTF-8"
    codec = _guess(data)
    return codec, f"read as {codec}, a guess: save it as UTF-8 if its words look wrong"


def _guess(data: bytes) -> str:
    """The encoding of a text that is not Unicode: the plausible one whose letters best fit a language."""
    from charset_normalizer import from_bytes

    lines = b"\n".join(line for line in data.splitlines() if not line.isascii())
    found = list(from_bytes(lines[:_SAMPLE], cp_isolation=list(_LETTERS)))
    if not found:
        return "cp1252"
    close = [match for match in found if match.chaos <= found[0].chaos + _MARGIN]
    codecs_of = [(codec, str(match)) for match in close for codec in match.could_be_from_charset]
    return max(codecs_of, key=lambda pair: (_fit(*pair), pair[0] == "cp1252"))[0]


def _fit(codec: str, text: str) -> float:
    """How many of the letters beyond ASCII, 0..1, one language of the encoding explains."""
    letters = [c for c in text.casefold() if ord(c) > 127 and (c.isalpha() or c in "¹³¼¾¿¡")]
    return max(sum(c in known for c in letters) for known in _LETTERS[codec]) / max(len(letters), 1)
