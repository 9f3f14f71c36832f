from __future__ import annotations

import pytest

from affuse.media.languages import Tag, read_tag


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("en", "en"), ("EN", "en"), ("eng", "en"), ("en-US", "en"), ("en_GB", "en"), ("English", "en"),
        ("English (US)", "en"), ("de", "de"), ("ger", "de"), ("deu", "de"), ("German", "de"), ("Deutsch", "de"),
        ("pt-BR", "pt"), ("pt_br", "pt"),
        ("Brazilian Portuguese", "pt"), ("zh-Hans", "zh"), ("zh-Hant-TW", "zh"), ("chi", "zh"), ("es-419", "es"),
        ("Latin American Spanish", "es"), ("sr-Latn", "sr"), ("fil", "fil"), ("en.sdh", "en"), ("sdh.en", "en"),
        ("en.hi", "en"), ("en-orig", "en"), ("und", ""),
    ],
)  # fmt: skip
def test_languages(text: str, language: str):
    tag = read_tag(text)
    assert tag is not None
    assert (tag.language, tag.forced, tag.auto) == (language, False, False)


@pytest.mark.parametrize(
    "text", ["", "2", "part2", "v2", "final", "old", "en.2", "2.en", "backup", "emotion", "cd1", "x", "subs"]
)
def test_what_is_no_language(text: str):
    assert read_tag(text) is None


def test_qualifiers():
    assert read_tag("en.forced") == Tag("en", forced=True, more=1)
    assert read_tag("English (auto-generated)") == Tag("en", auto=True, more=2)
    assert read_tag("en.cc") == Tag("en", more=1)
