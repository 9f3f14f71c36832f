"""The utterances of a corpus as clips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affuse.core.errors import BadCorpus
from affuse.media.clip import Clip

if TYPE_CHECKING:
    from affuse.corpora.manifest import Corpus


def clips_of(corpus: Corpus, ids: Sequence[str] | None = None) -> list[tuple[str, Clip]]:
    """(id, Clip) of the corpus' utterances; media paths are relative to the corpus unless absolute."""
    table = corpus.table if ids is None else corpus.table[corpus.table["id"].isin(set(ids))]

    def path(value: str) -> Path | None:
        return corpus.path / value if value else None

    def clip(row: Any) -> Clip:
        end = None if row.end != row.end else row.end
        crop = getattr(row, "crop", "")
        half: Any = crop if crop in ("left", "right") else ""
        return Clip(path(row.video), path(row.audio), row.text or None, row.start, end, half, _words(row))

    return [(row.id, clip(row)) for row in table.itertuples()]


def _words(row: Any) -> tuple[tuple[float, float], ...]:
    """The word times of a row of the manifest; BadCorpus for what is no list of pairs."""
    times = getattr(row, "word_times", None)
    if times is None or isinstance(times, float):  # None and NaN: there are none
        return ()
    try:
        return tuple((float(a), float(b)) for a, b in times)
    except (TypeError, ValueError) as error:
        raise BadCorpus(
            f"utterance '{row.id}' has word_times {times!r}",
            "give [start, end] of each word, as only a Parquet table can",
        ) from error
