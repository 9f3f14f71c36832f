"""CH-SIMS: Chinese film and series clips, sentiment -1 ... 1 of the whole and of each modality alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from affuse.corpora.manifest import Corpus
from affuse.corpora.sentiment.cmu import Labels, Release, import_release

CARD = {
    "summary": "CH-SIMS: 2,281 Chinese clips, sentiment -1 to 1 of clip, words, sound and picture; clips, features",
    "source": "Yu et al., CH-SIMS: A Chinese Multimodal Sentiment Analysis Dataset, ACL 2020",
    "entry": "import_ch_sims",
    "licence": "none stated by its repositories: research use",
    "download": "Raw and label.csv, or unaligned_39.pkl, named by github.com/thuiar/MMSA; or the label JSON of "
    "MERTools (MERBench)",
    "layout": "a folder or file, recognised by content: label.csv (video_id, clip_id, text, label, label_T, label_A, "
    "label_V, annotation, mode); Raw/VIDEO/CLIP.mp4; MMSA pickle; {train,val,test}_corpus JSON with its transcription "
    "csv",
    "counts": {"train": 1368, "valid": 456, "test": 457},
    "splits": "default: none, training makes one by video; split=published is by clip: nearly every video is in both "
    "train and valid",
}
RELEASE = Release(name="ch_sims", title="CH-SIMS", card=CARD, space="sentiment-sims", unimodal=True, language="zh")


def importer(release: Release) -> Callable[..., Corpus]:
    """The importer of `release`: CH-SIMS, or its second version."""

    def import_release_(
        src: Path,
        dst: Path,
        *,
        partial: bool = False,
        labels: Labels = "none",
        split: Literal["by-video", "published"] = "by-video",
    ) -> Corpus:
        """Import a folder or file: `sentiment`, and sentiment_text, sentiment_audio, sentiment_vision (-1 ... 1).

        `labels`: classes for the label column (sentiment-3, or sentiment-2 without the zeros). The published split is
        checked and kept as published_split; it shares videos, so it is used only with split=published. Raises
        BadCorpus, BadFeatures.
        """
        return import_release(release, src, dst, partial=partial, labels=labels, split=split)

    return import_release_


import_ch_sims = importer(RELEASE)
