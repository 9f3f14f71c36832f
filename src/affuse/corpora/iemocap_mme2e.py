"""IEMOCAP as MME2E releases it: a folder of faces' pictures and sound per utterance, with its random split."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from affuse.core.errors import BadCorpus
from affuse.core.labels import LabelSpace, canonical, space
from affuse.corpora.iemocap import CODES, PUBLISHED, class_of, facts
from affuse.corpora.manifest import Corpus, write_corpus
from affuse.corpora.reading import mme2e
from affuse.corpora.reading.release import check_labels

CARD = {
    "summary": "IEMOCAP as processed by MME2E: 7,380 utterances of 6 emotions, 30 pictures a second",
    "source": "Dai et al., Multimodal End-to-End Sparse Model for Emotion Recognition, NAACL 2021; Busso et al. 2008",
    "entry": "import_iemocap_mme2e",
    "licence": "USC SAIL release form: research use, no redistribution",
    "download": "the processed data (88.6 GB with CMU-MOSEI) of github.com/wenliangdai/Multimodal-End2end-Sparse",
    "layout": "IEMOCAP_RAW_PROCESSED/{meta.pkl, DIALOGUE/UTTERANCE/{image_L_0.jpg..., image_R_0.jpg..., audio.wav, "
    "audio_L.wav, audio_R.wav}}, IEMOCAP_SPLIT/{train,valid,test}_split.txt",
    "counts": {"train": 5162, "valid": 737, "test": 1481},
    "splits": "as published: utterances at random, every test dialogue and speaker is in train too; the raw release "
    "(iemocap) can be split by session",
}
ORDER = ("ang", "exc", "fru", "hap", "neu", "sad")  # of the release's numbers
FPS = 30.0
CUT = "words are as in meta.pkl, which kept what follows the last colon of a line: the raw release has them whole"


def import_iemocap_mme2e(
    src: Path,
    dst: Path,
    *,
    partial: bool = False,
    labels: Literal["iemocap-4", "iemocap-6"] = "iemocap-6",
    pictures: bool = True,
) -> Corpus:
    """Import the processed release in `src`; conversations are dialogues, `source` is the session (two speakers).

    Pictures and sound are those of the speaker: left where the actor who wears the markers speaks, whose letter the
    dialogue's name has. `pictures`: pack them into one file per utterance below `dst`, as they are (as much room
    again); false leaves them out. labels: iemocap-4 counts excited as happy and has no frustrated. `meta.pkl` is read
    without running anything in it. Raises BadCorpus for wrong counts, ids, labels or picture rates, BadFeatures for a
    pickle that is more than plain values.
    """
    release = mme2e.read_processed(src, "IEMOCAP", facts, lambda name: f"{name.rpartition('_')[0]}/{name}")
    rows = [_row(release, name, space(labels)) for name in release.folders]
    short = mme2e.check_parts(rows, CARD["counts"], partial)  # type: ignore[arg-type]
    _check_codes(rows)
    rows.sort(key=lambda row: (row["conversation"], row["dialogue_start"], row["id"]))
    seen: Counter[str] = Counter()
    for row in rows:
        row["position"] = seen[row["conversation"]]
        seen[row["conversation"]] += 1
    warnings = [mme2e.random_split(rows), CUT, *mme2e.notes(release, rows)]
    if pictures:
        warnings += mme2e.pack(rows, release.folders, lambda row: f"image_{row['half'][0].upper()}_", dst)
    known = {"licence": CARD["licence"], "partial": short, "warnings": warnings}
    return write_corpus(dst, rows, "iemocap_mme2e", labels, language="en", **{k: v for k, v in known.items() if v})


def _row(release: mme2e.Processed, name: str, wanted: LabelSpace) -> dict[str, Any]:
    entry, folder = release.meta[name], release.folders[name]
    label = mme2e.index_of_one(entry.get("label"), ORDER)
    if label is None:
        message = f"meta.pkl: '{name}' has the label {entry.get('label')!r}"
        raise BadCorpus(message, f"a listed utterance has one of {', '.join(ORDER)}: use the file of the release")
    try:
        times = {f"dialogue_{k}": float(entry[f"{k}_time"]) for k in ("start", "end")}
        fps = float(entry.get("fps") or FPS)
        if not (0 < fps < math.inf and all(map(math.isfinite, times.values()))):
            raise ValueError(f"{times}, fps {fps}")
    except (KeyError, TypeError, ValueError) as error:
        raise BadCorpus(f"meta.pkl: times of '{name}': {error!r}", "use the file of the release") from error
    known = facts(name)
    half = known.pop("crop")  # the pictures are cut already
    sounds = [path for path in (folder / f"audio_{half[0].upper()}.wav", folder / "audio.wav") if path.is_file()]
    return {
        "id": name,
        **known,
        **times,
        "split": release.splits[name],
        "half": half,
        "fps": fps,
        "audio": str(sounds[0].resolve()) if sounds else "",
        "text": mme2e.words(entry),
        "emotion": ORDER[label],
        "label": class_of(canonical(ORDER[label]), wanted),
    }


def _check_codes(rows: list[dict[str, Any]]) -> None:
    """Refuse changed labels in sessions that are complete."""
    coded = [{"split": row["source"], "label": row["emotion"]} for row in rows]
    for session, counts in PUBLISHED.items():
        check_labels(session, coded, {canonical(code): n for code, n in zip(CODES, counts, strict=True)})
