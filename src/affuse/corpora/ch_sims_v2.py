"""CH-SIMS v2.0, the supervised part: twice the clips of CH-SIMS, labelled alike."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from affuse.corpora.cmu import Labels, Release, import_release
from affuse.corpora.manifest import Corpus

CARD = {
    "summary": "CH-SIMS v2.0 (s): 4,403 Chinese clips, sentiment -1 to 1 of clip, words, sound and picture; clips, features",
    "source": "Liu et al., Make Acoustic and Visual Cues Matter: CH-SIMS v2.0 Dataset and AV-Mixup Consistent Module, ICMI 2022",
    "entry": "import_ch_sims_v2",
    "licence": "none stated by its repositories: research use",
    "download": "CH-SIMS v2(s): Raw and meta.csv, or unaligned.pkl, named by github.com/thuiar/ch-sims-v2; or the label JSON of MERTools",
    "layout": "a folder or file, told by content: meta.csv (video_id, clip_id, text, label, label_T, label_A, label_V, annotation, "
    "mode); Raw/VIDEO/CLIP.mp4; MMSA pickle; {train,val,test}_corpus JSON with its transcription csv",
    "counts": {"train": 2722, "valid": 647, "test": 1034},
    "splits": "default: none, training makes one by video; split=published is by clip: most videos are in several splits",
}
RELEASE = Release(name="ch_sims_v2", title="CH-SIMS v2.0", card=CARD, space="sentiment-sims", unimodal=True, language="zh")


def import_ch_sims_v2(
    src: Path,
    dst: Path,
    *,
    partial: bool = False,
    labels: Labels = "none",
    split: Literal["by-video", "published"] = "by-video",
) -> Corpus:
    """Import CH-SIMS v2.0 (s) from a folder or file: `sentiment`, and sentiment_text, sentiment_audio, sentiment_vision.

    `labels`: classes for the label column (sentiment-3, or sentiment-2 without the zeros). The published split is checked
    and kept as published_split; it shares videos, so it is used only with split=published. Raises BadCorpus, BadFeatures.
    """
    return import_release(RELEASE, src, dst, partial=partial, labels=labels, split=split)
