"""The language that a file's name or a stream's title states: en, eng, en-US, zh-Hans, German, en.sdh."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Each language: its code (ISO 639-1 where it has one), then everything else it is called in file names.
_NAMES = """
af afr afrikaans; am amh amharic; ar ara arabic; as asm assamese; az aze azerbaijani; be bel belarusian;
bg bul bulgarian; bn ben bengali bangla; bo bod tib tibetan; br bre breton; bs bos bosnian; ca cat catalan;
cs ces cze cz czech čeština; cy cym wel welsh; da dan dk danish dansk; de deu ger german deutsch;
el ell gre gr greek; en eng english; eo epo esperanto; es spa spanish español espanol castellano castilian;
et est estonian eesti; eu eus baq basque; fa fas per persian farsi; fi fin finnish suomi; fo fao faroese;
fil tgl tl filipino tagalog; fr fra fre french français francais; fy fry frisian; ga gle irish; gd gla gaelic;
gl glg galician; gu guj gujarati; ha hau hausa; he heb iw hebrew; hi hin hindi; hr hrv scr croatian hrvatski;
ht hat haitian; hu hun hungarian magyar; hy hye arm armenian; id ind indonesian; ig ibo igbo; is isl ice icelandic;
it ita italian italiano; ja jpn jp japanese 日本語; jv jav javanese; ka kat geo georgian; kk kaz kazakh; km khm khmer;
kn kan kannada; ko kor kr korean 한국어; ku kur kurdish; ky kir kyrgyz; la lat latin; lb ltz luxembourgish; lo lao;
lt lit lithuanian; lv lav latvian; mg mlg malagasy; mi mri mao maori; mk mkd mac macedonian; ml mal malayalam;
mn mon mongolian; mr mar marathi; ms msa may malay; mt mlt maltese; my mya bur burmese; ne nep nepali;
nl nld dut dutch nederlands flemish; no nor nb nob nn nno norwegian norsk bokmål; or ori odia; pa pan punjabi;
pl pol polish polski; ps pus pashto; pt por pob pb portuguese português portugues; qu que quechua;
ro ron rum mo mol romanian română; ru rus russian русский; sa san sanskrit; sd snd sindhi; si sin sinhala sinhalese;
sk slk slo slovak; sl slv slovenian slovene; sn sna shona; so som somali; sq sqi alb albanian; sr srp scc serbian;
st sot sesotho; su sun sundanese; sv swe swedish svenska; sw swa swahili; ta tam tamil; te tel telugu; tg tgk tajik;
th tha thai; ti tir tigrinya; tk tuk turkmen; tr tur turkish türkçe turkce; tt tat tatar; ug uig uyghur;
uk ukr ua ukrainian українська; ur urd urdu; uz uzb uzbek; vi vie vietnamese; xh xho xhosa; yi yid yiddish;
yo yor yoruba; yue cantonese; zh zho chi cmn cn chs cht chinese mandarin 中文; zu zul zulu
"""
_CODES = {name: entry.split()[0] for entry in _NAMES.split(";") for name in entry.split()}
_UNKNOWN = {"und", "mul"}
_FORCED = {"forced", "foreign", "signs", "songs"}
_AUTO = {"auto", "asr", "generated", "automatic"}
_MORE = {
    *("sdh", "cc", "hi", "hearing", "impaired", "orig", "original", "default", "full", "dialogue", "closed"),
    *("captions", "subtitles", "subtitle", "subs", "sub", "simplified", "traditional", "brazilian", "brazil"),
    *("european", "american", "latin", "america", "british", "canadian", "mexican", "spain", "portugal"),
    *("hans", "hant", "latn", "cyrl", "arab", "deva", "hebr", "jpan", "kore", "guru", "419"),
}


@dataclass(frozen=True)
class Tag:
    """A `language` code ("" if it is stated to be undetermined).

    `forced`: foreign parts only; `auto`: recognised speech; `more`: the number of further words (sdh, a region...).
    """

    language: str
    forced: bool = False
    auto: bool = False
    more: int = 0


def read_tag(text: str) -> Tag | None:
    """The language that a tag states, with its region, script and qualifiers; None if any part of it is unknown."""
    words = [word for word in re.split(r"[\s.,_()\[\]&-]+", text.casefold()) if word]
    known = [w for w in words if w in _CODES and (w != "latin" or len(words) == 1)]
    known += [w for w in words if w in _UNKNOWN]
    if not known:
        return None
    at = words.index(known[0])
    rest = {*words[:at], *words[at + 1 :]}
    region = {word for word in words[at + 1 :] if re.fullmatch("[a-z]{2}", word)}
    if rest - _FORCED - _AUTO - _MORE - region - _CODES.keys():
        return None
    return Tag(_CODES.get(known[0], ""), bool(rest & _FORCED), bool(rest & _AUTO), len(rest))
