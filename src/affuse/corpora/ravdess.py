"""RAVDESS: 24 actors, two sentences, eight emotions; audio, video or both, from the official file names."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from affuse.core.errors import BadCorpus
from affuse.corpora.manifest import Corpus, check_counts, write_corpus
from affuse.corpora.reading.release import below

CARD = {
    "summary": "RAVDESS speech: 24 actors, 8 emotions, audio and audio-visual takes",
    "source": "Livingstone & Russo, PLoS ONE 13(5), 2018; Zenodo record 1188976",
    "entry": "import_ravdess",
    "licence": "CC BY-NC-SA 4.0",
    "download": "Audio_Speech_Actors_01-24.zip and Video_Speech_Actor_01.zip ... Video_Speech_Actor_24.zip",
    "layout": "any folders; files named MODALITY-CHANNEL-EMOTION-INTENSITY-STATEMENT-REPETITION-ACTOR.{wav,mp4,...}",
    "counts": {"audio": 1440, "audio-visual": 1440},
    "splits": "default none, grouped by actor",
}
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fear", "disgust", "surprise")
STATEMENTS = ("Kids are talking by the door", "Dogs are sitting by the door")
_NAME = re.compile(r"(0[123])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(\d\d)")
_SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".mp4", ".avi", ".mov", ".mkv", ".webm"}


def import_ravdess(src: Path, dst: Path, *, partial: bool = False) -> Corpus:
    """Import speech takes below `src`; takes with picture and sound count once, video with its sound preferred.

    A take is (emotion, intensity, statement, repetition, actor): its id is the official name without the
    modality field. Song (channel 02) is left out. Raises BadCorpus for foreign names or missing takes.
    """
    takes: dict[str, dict[str, object]] = {}
    for path in (p for p in below(src) if p.suffix.lower() in _SUFFIXES and p.is_file()):
        match = _NAME.fullmatch(path.stem)
        if match is None or match[2] != "01":
            continue
        row = takes.setdefault(path.stem[3:], _row(match, path.stem[3:]))
        key = "audio" if match[1] == "03" else "video"
        if key == "video" and match[1] == "02" and "video" in row:
            continue  # 02 is the same picture without sound
        row[key] = str(path.resolve())
    if not takes:
        raise BadCorpus(f"no RAVDESS speech files below {src}", "unzip Audio_Speech_Actors_01-24.zip there")
    found = Counter(str(row["speaker"]) for row in takes.values())
    wanted = {f"actor{a:02d}": 60 for a in range(1, 25)}
    short = check_counts(found, wanted, "takes per actor", partial)
    if shown := Counter(str(row["speaker"]) for row in takes.values() if "video" in row):
        short += [f"pictures of {line}" for line in check_counts(shown, found, "pictures per actor", partial)]
    extra = {"licence": CARD["licence"], "partial": short} if short else {"licence": CARD["licence"]}
    return write_corpus(dst, list(takes.values()), "ravdess", "ravdess-8", **extra)


def _row(match: re.Match[str], take: str) -> dict[str, object]:
    actor = f"actor{match[7]}"
    return {
        "id": take,
        "speaker": actor,
        "source": actor,
        "label": EMOTIONS[int(match[3]) - 1],
        "text": STATEMENTS[int(match[5]) - 1],
        "gender": "male" if int(match[7]) % 2 else "female",
        "intensity": "strong" if match[4] == "02" else "normal",
    }
