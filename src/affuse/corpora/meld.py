"""MELD: dialogues of the series Friends, seven emotions and a sentiment per utterance; words, and clips if present."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from affuse.core.errors import BadCorpus
from affuse.corpora.manifest import Corpus, check_counts, write_corpus
from affuse.corpora.reading.release import check_labels, first, mend, read_csv, seconds

CARD = {
    "summary": "MELD: 13,708 utterances of 1,432 dialogues of Friends, 7 emotions, 3 sentiments; words, sound, picture",
    "source": "Poria et al., MELD: A Multimodal Multi-Party Dataset for Emotion Recognition in Conversations, ACL 2019",
    "entry": "import_meld",
    "licence": "GPL-3.0 (labels and words, declare-lab/MELD); clips of a television series: research use",
    "download": "data/MELD/*.csv of github.com/declare-lab/MELD; for sound and picture MELD.Raw.tar.gz (named there)",
    "layout": "{train,dev,test}_sent_emo.csv; dia{D}_utt{U}.mp4 in train_splits, dev_splits_complete, "
    "output_repeated_splits_test",
    "counts": {"train": 9989, "valid": 1109, "test": 2610},
    "splits": "as published, by dialogue: train and dev share 81 of dev's 82 episodes",
}
OFFICIAL = {"train": "train", "valid": "dev", "test": "test"}
CLIPS = {"train": "train_splits", "valid": "dev_splits_complete", "test": "output_repeated_splits_test"}
EMOTIONS = ("neutral", "surprise", "fear", "sad", "happy", "disgust", "angry")
# Utterances per emotion as published, in the order of EMOTIONS.
PUBLISHED = {
    "train": (4710, 1205, 268, 683, 1743, 271, 1109),
    "valid": (470, 150, 40, 111, 163, 22, 153),
    "test": (1256, 281, 50, 208, 402, 68, 345),
}
# The release lacks the one (declare-lab/MELD issue 27) and the other is damaged (issue 39): both keep their words only.
WITHOUT_CLIP = ("dev_dia110_utt7", "train_dia125_utt3")


def import_meld(src: Path, dst: Path, *, partial: bool = False) -> Corpus:
    """Import the official csv files below `src`, with their clips where those are there too.

    The official split is by dialogue and is kept; `source` is the episode, which the splits share (the leak check
    says how many). Clips are cut per utterance; the csv's times, which are in part wrong, are kept as episode_start and
    episode_end (s). Raises BadCorpus for foreign columns, wrong counts, missing splits or missing clips.
    """
    files = {s: path for s, name in OFFICIAL.items() if (path := first(src, f"{name}_sent_emo.csv"))}
    if not files:
        raise BadCorpus(
            f"no train_sent_emo.csv below {src}", "give the folder data/MELD of github.com/declare-lab/MELD"
        )
    rows = [row for split, path in files.items() for row in _rows(split, path, _clips(src, split))]
    found = Counter(str(row["split"]) for row in rows)
    short = check_counts(found, CARD["counts"], "utterances per split", partial)  # type: ignore[arg-type]
    for split in found:
        check_labels(split, rows, dict(zip(EMOTIONS, PUBLISHED[split], strict=True)))
    short += _check_clips(rows, partial)
    extra = {"licence": CARD["licence"], **({"partial": short} if short else {})}
    return write_corpus(dst, rows, "meld", "meld-7", language="en", **extra)


def _clips(src: Path, split: str) -> dict[str, Path]:
    """Name -> clip of a split; clips without a label (the release has some) are never asked for."""
    folder = first(src, CLIPS[split])
    return {p.stem: p.resolve() for p in folder.glob("dia*_utt*.mp4") if p.is_file()} if folder else {}


def _rows(split: str, path: Path, clips: dict[str, Path]) -> list[dict[str, object]]:
    table = read_csv(
        path, "Utterance", "Speaker", "Emotion", "Sentiment", whole=("Dialogue_ID", "Utterance_ID", "Season", "Episode")
    )
    start, end = seconds(table, "StartTime"), seconds(table, "EndTime")
    rows = []
    for row, begun, ended in zip(table.to_dict("records"), start, end, strict=True):
        dialogue = f"dia{int(row['Dialogue_ID'])}"
        clip = f"{dialogue}_utt{int(row['Utterance_ID'])}"
        name = f"{OFFICIAL[split]}_{clip}"
        rows.append(
            {
                "id": name,
                "conversation": f"{OFFICIAL[split]}_{dialogue}",
                "position": int(row["Utterance_ID"]),
                "speaker": row["Speaker"].strip(),
                "source": f"s{int(row['Season']):02d}_e{int(row['Episode']):02d}",
                "split": split,
                "video": str(clips[clip]) if clip in clips and name not in WITHOUT_CLIP else "",
                "text": mend(row["Utterance"]),
                "label": row["Emotion"],
                "sentiment": row["Sentiment"],
                "episode_start": begun,
                "episode_end": ended,
            }
        )
    return rows


def _check_clips(rows: list[dict[str, object]], partial: bool) -> list[str]:
    """What clips are missing; none are where the release was imported for its words only."""
    if not any(row["video"] for row in rows):
        return []
    wanted = Counter(str(row["split"]) for row in rows if row["id"] not in WITHOUT_CLIP)
    found = Counter(str(row["split"]) for row in rows if row["video"])
    return [f"clips of {line}" for line in check_counts(found, wanted, "clips per split", partial)]
