"""CMU-MOSEI as MME2E releases it: a folder of pictures and sound per segment, six emotions present or absent."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from affuse.core.errors import BadConfig, BadCorpus
from affuse.core.labels import canonical
from affuse.corpora.manifest import Corpus, write_corpus
from affuse.corpora.reading import mme2e

CARD = {
    "summary": "CMU-MOSEI as processed by MME2E: 20,477 segments, six emotions present or absent, 2 pictures a second",
    "source": "Dai et al., Multimodal End-to-End Sparse Model for Emotion Recognition, NAACL 2021; Zadeh et al. 2018",
    "entry": "import_cmu_mosei_mme2e",
    "licence": "research use; none stated in the repositories that carry it",
    "download": "the processed data (88.6 GB with IEMOCAP) of github.com/wenliangdai/Multimodal-End2end-Sparse",
    "layout": "MOSEI_RAW_PROCESSED/{meta.pkl, VIDEO_CLIP/{image_0.jpg..., audio.wav}}, "
    "MOSEI_SPLIT/{train,valid,test}_split.txt",
    "counts": {"train": 14524, "valid": 1765, "test": 4188},
    "splits": "as published: parts of the standard folds, no video is in two; speakers are not known and may recur",
}
ORDER = ("anger", "disgust", "fear", "happy", "sad", "surprise")  # of the release's vectors
_SEGMENT = re.compile(r"[\w-]+_\d{1,9}")


def import_cmu_mosei_mme2e(
    src: Path, dst: Path, *, partial: bool = False, fps: float = 2.0, pictures: bool = True
) -> Corpus:
    """Import the processed release in `src`; columns happy ... fear are 1 where an annotator named the emotion, else 0.

    Segments without any emotion are kept. Train with tasks={emotions: {space: mosei-6, kind: multilabel}}. `fps`: how
    many pictures a second the folders hold. `pictures`: pack them into one file per segment below `dst`, as they are
    (as much room again); false leaves them out. `meta.pkl` is read without running anything in it. Raises BadCorpus for
    wrong counts, ids, labels or picture rates, BadFeatures for a pickle that is more than plain values, BadConfig for
    fps.
    """
    if not 0 < fps < math.inf:
        raise BadConfig(f"fps = {fps}", "give pictures per second above 0")
    release = mme2e.read_processed(src, "MOSEI", _SEGMENT.fullmatch, Path)
    rows = [_row(release, name, fps) for name in release.folders]
    short = mme2e.check_parts(rows, CARD["counts"], partial)  # type: ignore[arg-type]
    warnings = mme2e.notes(release, rows)
    if pictures:
        warnings += mme2e.pack(rows, release.folders, lambda _: "image_", dst)
    known = {"licence": CARD["licence"], "partial": short, "warnings": warnings}
    return write_corpus(dst, rows, "cmu_mosei_mme2e", "mosei-6", language="en", **{k: v for k, v in known.items() if v})


def _row(release: mme2e.Processed, name: str, fps: float) -> dict[str, Any]:
    entry, (video, _, clip) = release.meta[name], name.rpartition("_")
    vector = mme2e.numbers(entry.get("label"))
    if len(vector) != len(ORDER) or not (vector >= 0).all():
        message = f"meta.pkl: '{name}' has the label {entry.get('label')!r}"
        raise BadCorpus(message, f"a vector of {', '.join(ORDER)} is wanted: use the file of the release")
    sound = release.folders[name] / "audio.wav"
    return {
        "id": name,
        "conversation": video,
        "source": video,
        "position": int(clip),
        "split": release.splits[name],
        "fps": fps,
        "audio": str(sound.resolve()) if sound.is_file() else "",
        "text": mme2e.words(entry),
        **{canonical(emotion): float(value > 0) for emotion, value in zip(ORDER, vector, strict=True)},
    }
