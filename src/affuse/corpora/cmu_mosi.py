"""CMU-MOSI: opinions in film reviews on YouTube, sentiment -3 ... 3; sequences of the SDK, raw clips, pickles."""

from __future__ import annotations

from pathlib import Path

from affuse.corpora.manifest import Corpus
from affuse.corpora.sentiment.cmu import Labels, Release, import_release

CARD = {
    "summary": "CMU-MOSI: 2,199 opinion segments of 93 review videos, sentiment -3 to 3; features, words, clips",
    "source": "Zadeh et al., MOSI: Multimodal Corpus of Sentiment Intensity, arXiv:1606.06259, 2016",
    "entry": "import_cmu_mosi",
    "licence": "research use; none stated in the repositories that carry it",
    "download": "sequences (.csd: Opinion_Labels, TimestampedWords, features) by the CMU-MultimodalSDK, or the raw "
    "archive CMU_MOSI.zip, or a pickle or label.csv of MMSA (aligned_50.pkl, unaligned_50.pkl), or mosi_data.pkl of "
    "MulT",
    "layout": "a folder or file, recognised by content: .csd (HDF5; labels of 1 column); MMSA or MulT pickle; "
    "label.csv; OpinionLevelSentiment.csv; Transcript/Segmented/*.annotprocessed; clips VIDEO_CLIP.mp4/.wav, "
    "VIDEO/CLIP.mp4 or VIDEO.mp4",
    "counts": {"train": 1284, "valid": 229, "test": 686},
    "splits": "default: the SDK's standard folds, 52/10/31 videos, none shared; speakers are not known and may recur "
    "across videos",
}
# Standard folds of the CMU-MultimodalSDK (cmu_mosi_std_folds.py).
FOLDS = {
    "train": "2iD-tVS8NPw 8d-gEyoeBzc Qr1Ca94K55A Ci-AH39fi3Y 8qrpnFRGt2A Bfr499ggo-0 QN9ZIUWUXsY 9T9Hf74oK10 "
    "7JsX8y1ysxY 1iG0909rllw Oz06ZWiO20M BioHAh1qJAQ 9c67fiY0wGQ Iu2PFX3z_1s Nzq88NnDkEk Clx4VXItLTE 9J25DZhivz8 "
    "Af8D0E4ZXaw TvyZBvOMOTc W8NXH0Djyww 8OtFthrtaJM 0h-zjBukYpk Vj1wYRQjB-o GWuJjcEuzt8 BI97DNYfe5I PZ-lDQFboO8 "
    "1DmNV9C1hbY OQvJTdtJ2H4 I5y0__X72p0 9qR7uwkblbs G6GlGvlkxAQ 6_0THN4chvY Njd1F0vZSm4 BvYR0L6f2Ig 03bSnISJMiM "
    "Dg_0XKD0Mf4 5W7Z1C_fDaE VbQk4H8hgr0 G-xst2euQUc MLal-t_vJPM BXuRRbG0Ugk LSi-o-IrDMs Jkswaaud0hk 2WGyTLYerpo "
    "6Egk_28TtTM Sqr0AcuoNnk POKffnXeBds 73jzhE8R1TQ OtBXNcAL_lE HEsqda8_d0Q VCslbP0mgZI IumbAb8q2dM",
    "valid": "WKA5OygbEKI c5xsKMxpXnc atnd_PF-Lbs bvLlb-M3UXU bOL9jKpeJRs _dI--eQ6qVU ZAIRrfG22O0 X3j2zQgwYgE "
    "aiEXnCPZubE ZUXBRvtny7o",
    "test": "tmZoasNr4rU zhpQhgha_KU lXPQBPVc5Cw iiK8YX8oH1E tStelxIAHjw nzpVDcQ0ywM etzxEpPuc6I cW1FSBF59ik "
    "d6hH302o4v8 k5Y_838nuGo pLTX3ipuDJI jUzDDGyPkXU f_pcplsH_V0 yvsjCA6Y5Fc nbWiPyCm4g0 rnaNMUZpvvg wMbj6ajWbic "
    "cM3Yna7AavY yDtzw_Y-7RU vyB00TXsimI dq3Nf_lMPnE phBUpBr1hSo d3_k5Xpfmik v0zCBqDeKcE tIrG4oNLFzE fvVhgmXxadc "
    "ob23OKe5a9Q cXypl4FnoZo vvZ4IcEtiZc f9O3YtZ2VfI c7UH_rxdZv4",
}
RELEASE = Release(
    name="cmu_mosi",
    title="CMU-MOSI",
    card=CARD,
    folds={video: split for split, videos in FOLDS.items() for video in videos.split()},
)


def import_cmu_mosi(
    src: Path, dst: Path, *, partial: bool = False, labels: Labels = "none", aligned: bool = False
) -> Corpus:
    """Import CMU-MOSI from a folder or file, whatever it holds; the target is the column `sentiment` (-3 ... 3).

    `labels`: classes for the label column (sentiment-3, or sentiment-2 without the zeros); `aligned`: features of .csd
    files averaged over words instead of at their own rate. Raises BadCorpus, BadFeatures for a refused pickle.
    """
    return import_release(RELEASE, src, dst, partial=partial, labels=labels, aligned=aligned)
