"""Run a suite of benchmarks/suites: make the corpora that are missing, then `affuse bench`, pages into docs/results."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from differences import draw
from results import ROOT

from affuse.cli.bench import bench
from affuse.core.seed import set_threads
from affuse.evaluation.suite import Suite, load_suite


def run_suite(
    name: str,
    corpora: Mapping[str, Callable[[Path], None]],
    text: str | None,
    more: Callable[[Suite, str, Path], str] = lambda suite, setting, out: "",
    plot: str = "",
) -> int:
    """Parse the command line, make the corpora of the chosen settings below OUT/corpora, run the suite; the exit code.

    `more`: (suite, setting, OUT) -> what the page of a setting ends with. `plot`: the arm from which all others differ
    in PAGES/NAME.svg, which every page then shows; none where it is empty.
    """
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / name)
    parser.add_argument("--pages", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--only", nargs="*", default=[], help="SETTING or SETTING/ARM, with * for any")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--table", action="store_true", help="write the pages and their .parquet only, from the run folders"
    )
    given = parser.parse_args()
    set_threads(1)
    suite = load_suite(ROOT / "benchmarks" / "suites" / f"{name}.yaml")
    wanted = [
        s for s in suite.settings if not given.only or any(fnmatch(s, pattern.split("/")[0]) for pattern in given.only)
    ]
    for setting, values in suite.settings.items():
        corpus = given.out / "corpora" / setting
        moved = [o.replace(f"=runs/{name}/", f"={given.out}/") for o in values.overrides]
        suite.settings[setting] = replace(values, corpus=corpus, overrides=moved)
        if setting in wanted and not (corpus / "corpus.json").is_file():
            corpora[setting](corpus)

    def end(suite: Suite, setting: str, out: Path) -> str:
        return more(suite, setting, out) + (f"\n![Differences between arms]({name}.svg)\n" if plot else "")

    done = bench(suite, given.out, given.pages, given.only, 0 if given.table else given.workers, threads=1, more=end)
    tables = [given.pages / f"{name}-{setting}.parquet" for setting in suite.settings]
    if plot and (there := [table for table in tables if table.is_file()]):
        draw(there, plot, given.pages / f"{name}.svg")
    return done
