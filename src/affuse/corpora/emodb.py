"""Berlin Database of Emotional Speech (EmoDB): ten speakers, ten German sentences, seven emotions."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from affuse.core.errors import BadCorpus
from affuse.corpora.manifest import Corpus, check_counts, write_corpus
from affuse.corpora.reading.release import below

CARD = {
    "summary": "Berlin EmoDB: 10 speakers, 7 emotions, German",
    "source": "Burkhardt et al., A Database of German Emotional Speech, Interspeech 2005",
    "entry": "import_emodb",
    "licence": "free for research (as published by its authors)",
    "download": "wav folder of the emodb.bilderbar.info release",
    "layout": "files named SPEAKER TEXT EMOTION VERSION, e.g. 03a01Fa.wav",
    "counts": {"utterances": 535},
    "splits": "default none, grouped by speaker",
}
EMOTIONS = {
    "W": "angry",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happy",
    "T": "sad",
    "N": "neutral",
}
# Published utterances per emotion of the 535-utterance release.
PUBLISHED = {"angry": 127, "boredom": 81, "disgust": 46, "fear": 69, "happy": 71, "sad": 62, "neutral": 79}
_NAME = re.compile(r"(\d\d)([ab]\d\d)([WLEAFTN])([a-z]?)")
_SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".opus"}


def import_emodb(src: Path, dst: Path, *, partial: bool = False) -> Corpus:
    """Import all utterances below `src`, grouped by speaker. Raises BadCorpus for none or missing ones."""
    rows = []
    for path in (p for p in below(src) if p.suffix.lower() in _SUFFIXES and p.is_file()):
        match = _NAME.fullmatch(path.stem)
        if match is not None:
            speaker = f"speaker{match[1]}"
            rows.append(
                {
                    "id": path.stem,
                    "speaker": speaker,
                    "source": speaker,
                    "label": EMOTIONS[match[3]],
                    "audio": str(path.resolve()),
                    "sentence": match[2],
                }
            )
    if not rows:
        raise BadCorpus(f"no EmoDB files below {src}", "give the folder that holds 03a01Fa.wav ...")
    short = check_counts(Counter(r["label"] for r in rows), PUBLISHED, "utterances per emotion", partial)
    extra = {"licence": CARD["licence"], **({"partial": short} if short else {})}
    return write_corpus(dst, rows, "emodb", "emodb-7", language="de", **extra)
