from __future__ import annotations

import pytest

from affuse.media.charset import find_encoding

SENTENCES = {
    "cp1252": [
        "“Don’t you see?” she said – it’s late…",
        "Où est passé l’été ? Ça va déjà très bien.",
        "Schöne Grüße, ich freue mich für dich!",
        "¿Dónde está el niño? Mañana será otro día.",
        "Não, é só uma questão de opinião.",
        "Det är så roligt att se dig, på ön.",
    ],
    "cp1250": [
        "Dobrý večer, přišel jsem příliš pozdě.",
        "Jestem dziś bardzo szczęśliwy, że cię widzę.",
        "Köszönöm, jól vagyok, őszintén szólva.",
    ],
    "cp1251": ["Привет, как дела?", "Я очень рад тебя видеть сегодня."],
    "koi8_r": ["Я очень рад тебя видеть сегодня. Спасибо!"],
    "cp1253": ["Γεια σου, τι κάνεις σήμερα; Είμαι πολύ χαρούμενος."],
    "cp1254": ["Bugün çok mutluyum, teşekkür ederim. Şimdi ne yapıyorsunuz?"],
    "cp1255": ["שלום, מה שלומך היום? אני שמח מאוד."],
    "cp1256": ["مرحبا، كيف حالك اليوم؟ أنا سعيد جدا."],
    "cp1257": ["Labas rytas, kaip jūs šiandien jaučiatės?"],
    "cp874": ["สวัสดีครับ วันนี้ผมมีความสุขมาก"],
    "shift_jis": ["こんにちは。今日はとても嬉しいです。"],
    "euc_jp": ["こんにちは。今日はとても嬉しいです。"],
    "cp949": ["안녕하세요. 오늘은 정말 행복합니다."],
    "gb18030": ["你好，我今天非常高兴。", "我们去看电影吧"],
    "big5": ["你好，我今天非常高興。我們去看電影吧"],
}


def file_of(words: str) -> str:
    return f"1\r\n00:00:01,000 --> 00:00:02,000\r\n{words}\r\n\r\n2\r\n00:00:03,000 --> 00:00:04,000\r\nOK.\r\n"


@pytest.mark.parametrize(("encoding", "words"), [(name, words) for name, some in SENTENCES.items() for words in some])
def test_legacy_encodings_are_guessed_and_noted(encoding: str, words: str):
    data = file_of(words).encode(encoding)
    found, note = find_encoding(data)
    assert words in data.decode(found)
    assert note.startswith(f"read as {found}, a guess")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_unicode_is_no_guess(encoding: str):
    data = file_of("naïve Ж 你").encode(encoding)
    found, note = find_encoding(data)
    assert (data.decode(found), note) == (file_of("naïve Ж 你"), "")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("words", ["Hello there.", "Я очень рад тебя видеть.", "你好，我今天非常高兴。"])
def test_utf16_without_a_mark(encoding: str, words: str):
    assert find_encoding(file_of(words).encode(encoding)) == (encoding, "read as UTF-16, though it has no mark")


def test_damaged_utf8_stays_utf8():
    data = file_of("Où est passé l’été ? Ça va déjà très bien, là-bas.").encode()
    cut = data.replace("é l".encode(), b"\xc3 l")
    found, note = find_encoding(cut)
    assert (found, note) == ("utf-8", "1 damaged character in its UTF-8")
    assert "très bien" in cut.decode(found, errors="replace")
