"""IEMOCAP: five sessions of two actors each; categories, valence, arousal, dominance, and the evaluators' votes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from affuse.core.errors import BadCorpus
from affuse.core.labels import LabelSpace, canonical, space
from affuse.corpora.manifest import SPLITS, Corpus, check_counts, write_corpus
from affuse.corpora.reading.mme2e import random_split, read_lists
from affuse.corpora.reading.release import PICTURE, SOUND, check_labels, first, media, mend

CARD = {
    "summary": "IEMOCAP: 10,039 utterances of 151 two-actor dialogues, 4 or 6 emotions, valence/arousal/dominance, "
    "votes",
    "source": "Busso et al., IEMOCAP: Interactive Emotional Dyadic Motion Capture Database, LREC 42(4), 2008",
    "entry": "import_iemocap",
    "licence": "USC SAIL release form: research use, no redistribution",
    "download": "IEMOCAP_full_release, after signing the release form of sail.usc.edu/iemocap",
    "layout": "Session1-5/dialog/{EmoEvaluation,transcriptions,wav,avi/DivX}, Session1-5/sentences/wav; or the folder "
    "above",
    "counts": {"Ses01": 1819, "Ses02": 1811, "Ses03": 2136, "Ses04": 2103, "Ses05": 2170},
    "splits": "default none, grouped by session (--folds 5: one session out); session5; erc (validation shares "
    "speakers with train, 53 labels are not the release's); mme2e (utterances at random: dialogues and speakers leak)",
}
CODES = ("neu", "hap", "sad", "ang", "exc", "fru")
OUTSIDE = ("fea", "sur", "dis", "oth", "xxx")  # three rare emotions, "other", no majority
# Utterances per session with the emotions of CODES: 7,380 in all; 5,531 of them are not frustrated.
PUBLISHED = {
    "Ses01": (384, 135, 194, 229, 143, 280),
    "Ses02": (362, 117, 197, 137, 210, 325),
    "Ses03": (320, 135, 305, 240, 151, 382),
    "Ses04": (258, 65, 143, 327, 238, 481),
    "Ses05": (384, 143, 245, 170, 299, 381),
}
EVALUATED = {"neutral", "happy", "sad", "angry", "excited", "frustrated", "fear", "surprise", "disgust", "other"}
# The validation dialogues of COSMIC's label file (108 / 12 / 31 dialogues).
ERC_VALID = {
    *("Ses01M_impro01", "Ses01M_script03_1", "Ses02F_impro02", "Ses02F_impro07", "Ses02M_script01_2", "Ses03F_impro01"),
    *(
        "Ses03M_impro02", "Ses03M_impro08a", "Ses03M_script02_2", "Ses03M_script03_2", "Ses04F_impro07",
        "Ses04F_script02_1",
    ),
}
# 53 utterances without a majority ("xxx") that the label files of DialogueRNN and its followers call happy.
_ERC_HAPPY = {
    "Ses01F_impro03": "F007 F011 F014 M012",
    "Ses01F_impro06": "M017",
    "Ses01F_impro07": "F007",
    "Ses01M_impro03": "F000",
    "Ses01M_impro07": "F002",
    "Ses02F_impro03": "F002 F005 F006 F007 F020",
    "Ses02M_impro03": "F010 F026 F027",
    "Ses03F_impro02": "M003",
    "Ses03F_impro03": "F000 F003 F010 M003 M008 M013 M016 M019",
    "Ses03F_impro04": "M020",
    "Ses03F_impro07": "F000 F002 F006 M016 M020 M031",
    "Ses03M_impro02": "F001",
    "Ses03M_impro03": "F000 F019 M005 M006 M008 M009 M010 M024 M025 M026 M027 M034 M036 M037",
    "Ses03M_impro05a": "F017",
    "Ses03M_impro07": "F020 M001 M012 M021",
    "Ses05F_impro07": "M010",
}
ERC_HAPPY = {f"{dialogue}_{turn}" for dialogue, turns in _ERC_HAPPY.items() for turn in turns.split()}
_TURN = re.compile(r"\[([\d.]+) *- *([\d.]+)\]\t(\S+)\t(\w+)\t\[([\d.]+), *([\d.]+), *([\d.]+)\]\s*")
_NAME = re.compile(r"(Ses0[1-5])([FM])_(impro|script)\w+_([FM])\d{3}")
_WORDS = re.compile(r"^(Ses\w+) \[[^]]*\]:(.*)$", re.MULTILINE)
_CATEGORY = re.compile(r"^C-E\d+:([^(\n]*)", re.MULTILINE)
Row = dict[str, Any]


def import_iemocap(
    src: Path,
    dst: Path,
    *,
    partial: bool = False,
    labels: Literal["iemocap-4", "iemocap-6"] = "iemocap-4",
    split: Literal["", "session5", "erc", "mme2e"] = "",
    video: bool = True,
) -> Corpus:
    """Import the full release below `src`; conversations are dialogues, `source` is the session (two speakers).

    labels: iemocap-4 counts excited as happy (5,531 utterances), iemocap-6 keeps it and frustrated (7,380). Others have
    no label; the release's code stays in `emotion`. valence, arousal and dominance are means of 1..5 as annotated (a
    few are 0.5 or 5.5). votes: for every class how many of the `evaluators` named it (each may name several,
    self-reports do not count).

    split: session5 tests on session 5; erc is the split of COSMIC with the labels of DialogueRNN (7,433 in 6 classes);
    mme2e reads {train,valid,test}_split.txt of MME2E, which must lie below `src`.

    video: take the dialogue's picture, and its sound on the same clock (start, end in seconds). Both actors are in one
    frame; `crop` says which half shows the speaker. The F or M of a dialogue's name is the actor who wears the markers
    (README.txt of the release); that this is the left one is not said there, but is what the published preprocessings
    of MME2E (`use_left`) and others agree on. Without picture the sound is sentences/wav where that is there, else the
    dialogue's; dialogue_start and dialogue_end always are the times in the dialogue. Raises BadCorpus for damaged
    lines, foreign codes, wrong counts or missing parts.
    """
    sessions = sorted({*src.glob("Session[1-5]"), *src.glob("*/Session[1-5]")})
    files = [p for s in sessions for p in sorted((s / "dialog" / "EmoEvaluation").glob("Ses*.txt"))]
    if not files:
        raise BadCorpus(f"no Session1/dialog/EmoEvaluation/*.txt below {src}", "give the folder IEMOCAP_full_release")
    rows, odd = _rows(files, space(labels), split == "erc")
    short = check_counts(Counter(r["source"] for r in rows), CARD["counts"], "utterances per session", partial)  # type: ignore[arg-type]
    _check_codes(rows)
    _words(rows, sessions)
    _link(rows, sessions, video)
    short += _check_parts(rows, video, partial)
    warnings = [f"evaluators named the category '{k}' {n} times: it counts for no class" for k, n in odd.items()]
    warnings += _split(rows, split, src)
    known = {"licence": CARD["licence"], "partial": short, "warnings": warnings}
    return write_corpus(dst, rows, "iemocap", labels, language="en", **{k: v for k, v in known.items() if v})


def _rows(files: list[Path], wanted: LabelSpace, erc: bool) -> tuple[list[Row], Counter[str]]:
    """Every utterance in the order of time, and the categories that the release's list does not have."""
    odd: Counter[str] = Counter()
    rows = []
    for path in files:
        for match, chosen in _turns(path):
            row = _row(path, match)
            odd.update(name for names in chosen for name in names - EVALUATED)
            code = "hap" if erc and row["id"] in ERC_HAPPY else row["emotion"]
            row["label"] = class_of(canonical(code), wanted)
            found = Counter(c for names in chosen for c in {class_of(name, wanted) for name in names})
            row["votes"] = [float(found[c]) for c in wanted.labels]
            row["evaluators"] = len(chosen)
            rows.append(row)
    rows.sort(key=lambda r: (r["conversation"], r["start"], r["id"]))
    seen: Counter[str] = Counter()
    for row in rows:
        row["position"] = seen[row["conversation"]]
        seen[row["conversation"]] += 1
    return rows, odd


def _turns(path: Path) -> Iterator[tuple[re.Match[str], list[set[str]]]]:
    """The summary line of every turn and the categories that each evaluator named."""
    for block in re.split(r"^(?=\[)", _read(path), flags=re.MULTILINE)[1:]:
        line, _, below = block.partition("\n")
        match = _TURN.fullmatch(line)
        if match is None:
            raise BadCorpus(f"{path}: {line!r} is not [start - end] TURN EMOTION [V, A, D]", "use the official file")
        named = [{n.strip() for n in names.split(";")} - {""} for names in _CATEGORY.findall(below)]
        yield match, [{canonical(n.split()[0]) for n in names} for names in named]  # "Neutral state" occurs too


def _row(path: Path, match: re.Match[str]) -> Row:
    begun, ended, name, code, *vad = match.groups()
    known = facts(name)
    if not known or code not in (*CODES, *OUTSIDE):
        wrong = f"emotion '{code}' of {name}" if known else f"utterance '{name}'"
        raise BadCorpus(f"{path}: unknown {wrong}", "use the official file")
    try:
        start, end, valence, arousal, dominance = (float(v) for v in (begun, ended, *vad))
    except ValueError as error:
        raise BadCorpus(f"{path}: a number of {name} cannot be read: {error}", "use the official file") from error
    if max(valence, arousal, dominance) > 6:
        raise BadCorpus(f"{path}: {name} has valence, arousal, dominance {', '.join(vad)}", "they are means of 1..5")
    values = {"valence": valence, "arousal": arousal, "dominance": dominance}
    times = {"start": start, "end": end, "dialogue_start": start, "dialogue_end": end}
    return {"id": name, **known, **times, "emotion": code, **values}


def facts(name: str) -> Row:
    """What the id of an utterance says: dialogue, speaker, session, setting, half of the picture; {} for other ids."""
    parts = _NAME.fullmatch(name)
    if parts is None:
        return {}
    session, markers, setting, who = parts.groups()
    return {
        "conversation": name.rpartition("_")[0],
        "speaker": session + who,
        "source": session,
        "gender": "female" if who == "F" else "male",
        "setting": "improvised" if setting == "impro" else "scripted",
        "crop": "left" if markers == who else "right",
    }


def class_of(name: str, wanted: LabelSpace) -> str:
    """The class of `wanted` that a category counts for, or ""."""
    merged = "happy" if name == "excited" and name not in wanted.labels else name
    return merged if merged in wanted.labels else ""


def _read(path: Path) -> str:
    """Text of a file, UTF-8 or else Latin-1 (`mend` repairs its cp1252 punctuation); BadCorpus if it cannot be read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadCorpus(f"{path} cannot be read: {error}", "unpack the release again") from error
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return content.decode("latin-1").replace("\r\n", "\n")


def _check_codes(rows: list[Row]) -> None:
    """Refuse changed labels in sessions that are complete."""
    coded = [{"split": r["source"], "label": r["emotion"] if r["emotion"] in CODES else "outside"} for r in rows]
    for session, counts in PUBLISHED.items():
        published = {canonical(code): n for code, n in zip(CODES, counts, strict=True)}
        total: int = CARD["counts"][session]  # type: ignore[index]
        check_labels(session, coded, {**published, "outside": total - sum(counts)})


def _words(rows: list[Row], sessions: list[Path]) -> None:
    """Fill in what was said; turns of the transcripts that nobody evaluated are left out."""
    files = [p for s in sessions for p in sorted((s / "dialog" / "transcriptions").glob("Ses*.txt"))]
    said = {name: mend(text) for path in files for name, text in _WORDS.findall(_read(path))}
    for row in rows:
        row["text"] = said.get(row["id"], "")


def _link(rows: list[Row], sessions: list[Path], video: bool) -> None:
    """Fill in the media. A row has one clock: a sentence's own file goes with no picture of the dialogue."""

    def below(*parts: str, suffixes: set[str]) -> dict[str, str]:
        return {stem: str(path) for s in sessions for stem, path in media(s.joinpath(*parts), suffixes).items()}

    pictures = below("dialog", "avi", suffixes=PICTURE) if video else {}
    sounds, sentences = below("dialog", "wav", suffixes=SOUND), below("sentences", "wav", suffixes=SOUND)
    for row in rows:
        dialogue = row["conversation"]
        row["video"], row["audio"] = pictures.get(dialogue, ""), sounds.get(dialogue, "")
        if not row["video"] and row["id"] in sentences:
            row |= {"audio": sentences[row["id"]], "start": 0.0, "end": float("nan")}


def _check_parts(rows: list[Row], video: bool, partial: bool) -> list[str]:
    """What is missing besides evaluations, one line each."""
    found = {
        f"utterances with {what}": sum(bool(r[k]) for r in rows) for what, k in (("words", "text"), ("sound", "audio"))
    }
    wanted = dict.fromkeys(found, len(rows))
    if video:
        found["dialogues with picture"] = len({r["conversation"] for r in rows if r["video"]})
        wanted["dialogues with picture"] = len({r["conversation"] for r in rows})
    return check_counts(found, wanted, "parts of the release", partial)


def _split(rows: list[Row], split: str, src: Path) -> list[str]:
    """Fill in a published split; what its users must know."""
    if split == "mme2e":
        return _split_mme2e(rows, src)
    for row in rows:
        test = "test" if row["source"] == "Ses05" else "train"
        valid = split == "erc" and row["conversation"] in ERC_VALID
        row["split"] = "valid" if valid else test if split else ""
    if split != "erc":
        return []
    return [
        "split=erc: the validation dialogues share their speakers with train",
        f"split=erc: {len(ERC_HAPPY)} utterances without a majority are called happy, as in DialogueRNN's labels "
        "(7,433, not 7,380)",
    ]


def _split_mme2e(rows: list[Row], src: Path) -> list[str]:
    found = {name: first(src, f"{name}_split.txt") for name in SPLITS}
    if missing := [name for name, path in found.items() if path is None]:
        raise BadCorpus(f"split=mme2e: no {missing[0]}_split.txt below {src}", "put IEMOCAP_split of MME2E there")
    where = read_lists({name: path for name, path in found.items() if path}, facts)
    for row in rows:
        row["split"] = where.get(row["id"], "")
    return [random_split(rows)]
