"""A corpus as plain files, for users of any tool: WAVs, JPEGs and an index, in processes, resumable, failures listed.

OUT holds audio/ and frames/ (see `clip_files`), index.csv, failures.json, preprocess.json (the settings) and
clips.jsonl (what is complete, written clip by clip).
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affuse.core import io
from affuse.core.errors import AffuseError, BadMedia, BadRun, StorageError
from affuse.core.processes import CRASH, spread
from affuse.corpora.clip_files import ClipFiles, Facts, FileSettings, file_names
from affuse.corpora.extraction.clips import clips_of
from affuse.features import face_crops

if TYPE_CHECKING:
    from affuse.corpora.manifest import Corpus
    from affuse.media.clip import Clip

FORMAT = 1
SETTINGS, COMPLETE, INDEX, FAILURES = "preprocess.json", "clips.jsonl", "index.csv", "failures.json"
Progress = Callable[[int, int, int], None]  # done, total, failed


@dataclass(frozen=True)
class Item:
    """One clip to write: `name` is that of its files, `made_of` the hash of its times and of the state of its media."""

    id: str
    name: str
    clip: Clip
    made_of: str


@dataclass(frozen=True)
class Preprocessed:
    """What one call did; `missing` counts the complete clips without a sound, a picture, a face."""

    index: Path
    added: int
    complete: int
    failures: dict[str, dict[str, str]]
    missing: dict[str, int]


def preprocess(
    corpus: Corpus,
    out: Path | str,
    settings: FileSettings | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> Preprocessed:
    """Write the clips of a corpus as files below `out`, and their index.

    What is complete stays unless its media or its times changed; what failed before is tried again. `workers`:
    processes, in which a crash of a decoder is one failed clip; 0: in this process. Raises BadRun where `out` was made
    with other settings or holds something else; errors of single clips are listed, not raised.
    """
    out, settings = Path(out), settings or FileSettings()
    with io.exclusive(out, "another affuse preprocess fills it"):
        _claim(out, corpus, settings)
        items = _items(corpus)
        done = _complete(out, items)
        left = [item for item in items if item.id not in done]
        failures: dict[str, dict[str, str]] = {}
        before = len(done)
        if progress is not None:
            progress(before, len(items), 0)
        for item, found in _outcomes(ClipFiles(out, settings), left, workers):
            if isinstance(found, AffuseError):
                failures[item.id] = found.to_dict()
            else:
                done[item.id] = found
                io.append_jsonl(out / COMPLETE, _row(item, found))
            if progress is not None:
                progress(len(done) + len(failures), len(items), len(failures))
        _write_lists(out, corpus, items, done, failures)
    missing = Counter(what for facts in done.values() for what in facts["missing"].split())
    return Preprocessed(out / INDEX, len(done) - before, len(done), failures, dict(missing))


def _claim(out: Path, corpus: Corpus, settings: FileSettings) -> None:
    """Make sure that `out` is, or becomes, an output of these settings, and clear away what was left half-written."""
    made = {"format": FORMAT, "corpus": corpus.name, **asdict(settings), "only": sorted(set(settings.only))}
    made |= {"face_crops": face_crops.CARD["version"]} if settings.faces else {}
    if (out / SETTINGS).is_file():
        old = io.read_json(out / SETTINGS)
        if other := [k for k in {**old, **made} if old.get(k) != made.get(k)]:
            was, now = (", ".join(f"{k} {which.get(k)}" for k in other) for which in (old, made))
            raise BadRun(f"{out} was made with {was}, not with {now}", "choose another OUT, or delete it")
    elif any(not path.name.startswith(io.ASIDE) for path in out.iterdir()):
        raise BadRun(f"{out} holds other files (no {SETTINGS})", "choose an empty folder, or one that is not there yet")
    io.write_json(out / SETTINGS, made)
    for folder in (out, out / "audio", out / "frames"):
        for aside in folder.glob(f"{io.ASIDE}*"):
            shutil.rmtree(aside) if aside.is_dir() else aside.unlink()


def _items(corpus: Corpus) -> list[Item]:
    clips = clips_of(corpus)
    names = file_names([i for i, _ in clips])
    return [Item(i, names[i], clip, _made_of(clip)) for i, clip in clips]


def _made_of(clip: Clip) -> str:
    """Hash of a clip's times and of the state of its media (not of their folder: a moved corpus is the same)."""
    files = [path for path in (clip.video, clip.audio) if path is not None and path.is_file()]
    states = [(path.name, (now := path.stat()).st_size, now.st_mtime_ns) for path in files]
    return io.digest([clip.start, clip.end, clip.crop, states])


def _complete(out: Path, items: Sequence[Item]) -> dict[str, Facts]:
    """The clips whose files are there, made of the media as they are now."""
    rows = {row["id"]: row for row in io.read_jsonl(out / COMPLETE)}
    kept = [item.id for item in items if rows.get(item.id, {}).get("made_of") == item.made_of]
    facts = {i: rows[i]["facts"] for i in kept}
    files = {i: [f for f in (facts[i].get("audio"), facts[i].get("frames")) if f] for i in kept}
    return {i: facts[i] for i in kept if all((out / file).exists() for file in files[i])}


def _row(item: Item, facts: Facts) -> dict[str, Any]:
    return {"id": item.id, "made_of": item.made_of, "facts": facts}


def _outcomes(files: ClipFiles, items: Sequence[Item], workers: int) -> Iterator[tuple[Item, Facts | AffuseError]]:
    """(item, columns of the index or an error) as they come."""
    if workers == 0:
        for item in items:
            yield item, _attempt(files, item)
        return
    for item, found in spread(_work, items, min(workers, len(items)), _start, (files,)):
        yield item, found or BadMedia(CRASH, "try the clip by itself; convert it, e.g. with ffmpeg")


def _attempt(files: ClipFiles, item: Item) -> Facts | AffuseError:
    try:
        return files.write(item.name, item.clip)
    except StorageError:  # the next clip would have it too
        raise
    except AffuseError as error:
        return error


_files: ClipFiles | None = None


def _start(files: ClipFiles) -> None:
    global _files
    from affuse.core.memory import keep_flat
    from affuse.core.seed import set_threads

    set_threads(1)
    keep_flat()
    _files = files


def _work(item: Item) -> Facts | AffuseError:
    assert _files is not None
    return _attempt(_files, item)


def _write_lists(
    out: Path, corpus: Corpus, items: Sequence[Item], done: Mapping[str, Facts], failures: Mapping[str, Any]
) -> None:
    """The lists of what is complete and of what failed, in the order of the corpus, and the index."""
    rows = [_row(item, done[item.id]) for item in items if item.id in done]
    io.write_text(out / COMPLETE, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    io.write_json(out / FAILURES, {item.id: failures[item.id] for item in items if item.id in failures})
    io.write_text(out / INDEX, _index(corpus, done))


def _index(corpus: Corpus, done: Mapping[str, Facts]) -> str:
    """The manifest's rows of the complete clips with the columns of their files, as CSV.

    Their times in the source become source_start and source_end, because the files hold nothing else. Media paths and
    word times stay in the manifest.
    """
    import pandas as pd

    table = corpus.table[corpus.table["id"].isin(set(done))].set_index("id")
    table = table.drop(columns=["video", "audio", "word_times", "crop"], errors="ignore")
    facts = pd.DataFrame([done[i] for i in table.index], index=table.index)
    names = {c: f"{c}_of_corpus" for c in facts if c in table} | {"start": "source_start", "end": "source_end"}
    return table.rename(columns=names).join(facts).to_csv(lineterminator="\n")
