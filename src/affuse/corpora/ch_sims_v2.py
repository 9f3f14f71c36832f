"""CH-SIMS v2.0, the supervised part: twice the clips of CH-SIMS, labelled alike."""

from __future__ import annotations

from affuse.corpora.ch_sims import importer
from affuse.corpora.sentiment.cmu import Release

CARD = {
    "summary": "CH-SIMS v2.0 (s): 4,403 Chinese clips, sentiment -1 to 1 of clip, words, sound and picture; clips, "
    "features",
    "source": "Liu et al., Make Acoustic and Visual Cues Matter: CH-SIMS v2.0 Dataset and AV-Mixup Consistent Module, "
    "ICMI 2022",
    "entry": "import_ch_sims_v2",
    "licence": "none stated by its repositories: research use",
    "download": "CH-SIMS v2(s): Raw and meta.csv, or unaligned.pkl, named by github.com/thuiar/ch-sims-v2; or the "
    "label JSON of MERTools",
    "layout": "a folder or file, recognised by content: meta.csv (video_id, clip_id, text, label, label_T, label_A, "
    "label_V, annotation, mode); Raw/VIDEO/CLIP.mp4; MMSA pickle; {train,val,test}_corpus JSON with its transcription "
    "csv",
    "counts": {"train": 2722, "valid": 647, "test": 1034},
    "splits": "default: none, training makes one by video; split=published is by clip: most videos are in several "
    "splits",
}
RELEASE = Release(
    name="ch_sims_v2", title="CH-SIMS v2.0", card=CARD, space="sentiment-sims", unimodal=True, language="zh"
)
import_ch_sims_v2 = importer(RELEASE)
