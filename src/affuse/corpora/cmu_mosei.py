"""CMU-MOSEI: monologues on YouTube, sentiment -3 ... 3, six emotions 0 ... 3; sequences, raw clips, pickles."""

from __future__ import annotations

from pathlib import Path

from affuse.corpora.manifest import Corpus
from affuse.corpora.sentiment.cmu import Labels, Release, import_release

CARD = {
    "summary": "CMU-MOSEI: 22,856 segments of 3,227 videos, sentiment -3 to 3, six emotions 0 to 3; features, words, "
    "clips",
    "source": "Zadeh et al., Multimodal Language Analysis in the Wild: CMU-MOSEI, ACL 2018",
    "entry": "import_cmu_mosei",
    "licence": "research use; none stated in the repositories that carry it",
    "download": "sequences (.csd: Labels, TimestampedWords, features) and cmu_mosei_std_folds.py of the "
    "CMU-MultimodalSDK, or the raw archive CMU_MOSEI.zip, or a pickle or label.csv of MMSA, mosei_senti_data.pkl of "
    "MulT, a pickle in CARAT's layout, or the label JSON of MERTools (MERBench)",
    "layout": "a folder or file, recognised by content: .csd (HDF5; labels of 7 columns); MMSA, MulT or CARAT pickle; "
    "label.csv; {train,val,test}_corpus JSON; Transcript/*.txt (VIDEO___CLIP___START___END___WORDS); clips "
    "VIDEO_CLIP.mp4 or VIDEO.mp4",
    "counts": {"train": 16326, "valid": 1871, "test": 4659},
    "splits": "default: the standard folds, 2249/300/678 videos, none shared; put cmu_mosei_std_folds.py next to .csd "
    "files; speakers are not known and may recur across videos",
}
RELEASE = Release(
    name="cmu_mosei",
    title="CMU-MOSEI",
    card=CARD,
    emotions=True,
    videos={"train": 2249, "valid": 300, "test": 678},
    segments_published=False,
)


def import_cmu_mosei(
    src: Path, dst: Path, *, partial: bool = False, labels: Labels = "none", aligned: bool = False
) -> Corpus:
    """Import CMU-MOSEI from a folder or file; targets: `sentiment` (-3 ... 3), happy ... fear and `emotions` (0 ... 3).

    Emotions come with .csd labels and CARAT pickles (there 0 or 1), NaN elsewhere. `labels`: classes for the label
    column (sentiment-3, or sentiment-2 without the zeros); `aligned`: features of .csd files averaged over words. Words
    are those of the words sequence, else of the transcripts' lines that begin when the labels do. The labels sequence
    has more segments than the processed releases: its videos are counted instead. Raises BadCorpus, BadFeatures.
    """
    return import_release(RELEASE, src, dst, partial=partial, labels=labels, aligned=aligned)
