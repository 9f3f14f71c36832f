"""Result pages of a suite, one per setting, from its run folders.

Next to each page its sums are kept, from which it is written again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from affuse.core import io, run_files
from affuse.core.errors import ProtocolError
from affuse.evaluation.compare import SMALL, Scored, Sums
from affuse.evaluation.intervals import Difference, Estimate, clustered, holm
from affuse.evaluation.suite import Job, Suite, expected_items, outcomes, plan

Gaps = dict[str, dict[str, Difference]]  # baseline -> arm -> arm less baseline, in the first metric
Appendix = Callable[[Suite, str, Path], str]  # the end of the page of (suite, setting, folder of the runs)


def no_appendix(suite: Suite, setting: str, out: Path) -> str:
    """Nothing at the end of a page."""
    return ""


def write_pages(
    suite: Suite, out: Path, pages: Path, settings: Sequence[str], more: Appendix = no_appendix
) -> list[Path]:
    """Write NAME-SETTING.md and .parquet of these settings, except those without a complete run; `more` ends a page."""
    made = {setting: collect(suite, setting, out, more) for setting in settings}
    return [write(sums, pages / f"{suite.name}-{setting}") for setting, sums in made.items() if sums]


def write(sums: Sums, path: Path) -> Path:
    """Write PATH.md, and its sums as PATH.parquet; returns the path of the page."""
    sums.write(path.with_name(f"{path.name}.parquet"))
    io.write_text(path.with_name(f"{path.name}.md"), text(sums))
    return path.with_name(f"{path.name}.md")


def rewrite(table: Path, pages: Path, metric: str | None = None) -> Path:
    """Write the page of a .parquet again, from it alone: NAME.md, or with another metric in front NAME-METRIC.md."""
    sums = Sums.read(table)
    other = metric if metric not in (None, sums.info["metrics"][0]) else None
    target = pages / f"{table.stem}{f'-{other}' if other else ''}.md"
    io.write_text(target, text(sums, other))
    return target


def page(suite: Suite, setting: str, out: Path) -> str:
    """The page of one setting, from the runs that are complete; empty where none is."""
    sums = collect(suite, setting, out)
    return text(sums) if sums else ""


def collect(suite: Suite, setting: str, out: Path, more: Appendix = no_appendix) -> Sums | None:
    """The sums of one setting's page, from the runs that are complete; None where none is.

    Raises ProtocolError where a run did not score every item of its split.
    """
    jobs = plan(suite, out, [f"{setting}/*"])
    rows = outcomes(jobs, out)
    done = [job for job, row in zip(jobs, rows, strict=True) if row["status"] == "done"]
    if not done:
        return None
    folders = {arm: [job.folder for job in done if job.arm == arm] for arm in suite.arms_of(setting)}
    scored = {arm: Scored(runs, utterances=suite.settings[setting].utterances) for arm, runs in folders.items() if runs}
    check_items(done, scored)
    missing = [(job, row) for job, row in zip(jobs, rows, strict=True) if row["status"] != "done"]
    info = {
        "head": _head(suite, setting, out, done, scored),
        "baselines": [b for b in suite.baselines if b in scored],
        "tail": [*_arms(suite, list(scored)), *_missing(missing)],
        "more": more(suite, setting, out),
    }
    return Sums.of(scored, suite.metrics, info | facts(scored))


def facts(scored: Mapping[str, Scored]) -> dict[str, Any]:
    """Facts of a page: the protocol that the arms share, the baseline with a constant answer, and each arm's costs."""
    evaluation = next(iter(scored.values())).evaluation
    protocol, constant = evaluation["protocol"], evaluation["rows"][0]
    return {
        "by": protocol["group_by"],
        "groups": protocol["groups"],
        "said": [*protocol.get("overlap", []), *filter(None, [protocol.get("interval_means")])],
        "constant": (constant["name"], {name: found["value"] for name, found in constant["metrics"].items()}),
        "costs": {arm: _costs(runs.runs) for arm, runs in scored.items()},
    }


def text(sums: Sums, metric: str | None = None) -> str:
    """The page, from the sums alone; `metric`: the metric of its differences, in place of the page's first."""
    info = sums.info
    metrics = list(dict.fromkeys([*([metric] if metric else []), *info["metrics"]]))
    gaps = {b: {a: sums.less(metrics[0], a, b) for a in sums.arms if a != b} for b in info["baselines"]}
    return "\n".join(
        [
            *info["head"],
            *_intervals(sums),
            *_scores(sums, metrics, gaps),
            *_differences(metrics[0], gaps),
            *_pairs(sums, metrics[0]),
            *_modalities(sums, metrics[0]),
            *info["tail"],
        ]
    ) + info["more"]


def _intervals(sums: Sums) -> list[str]:
    """How the intervals are made, and what they do not cover."""
    groups, before = len(sums.sizes()), sums.info["groups"]
    joined, of_one_seed = "", ""
    if groups != before:
        joined = f" ({before} before those of fewer than {SMALL} utterances, or of one class alone, were joined)"
    seeds, alone = max(sums.seeds(arm) for arm in sums.arms), [arm for arm in sums.arms if sums.seeds(arm) == 1]
    if seeds > 1 and alone:
        of_one_seed = f" Of one seed, so that a claim is about that seed only: {', '.join(alone)}."
    remarks = "".join(f" {remark[0].upper()}{remark[1:]}." for remark in sums.info["said"])
    return [f"Intervals: 95 %, {clustered(sums.info['by'], groups, seeds)}{joined}.{of_one_seed}{remarks}", ""]


def check_items(done: Sequence[Job], scored: dict[str, Scored]) -> None:
    """Raise ProtocolError for a run that did not score every labelled item of the split exactly once."""
    expected = expected_items(done[0])
    for runs in scored.values():
        for run, table in zip(runs.runs, runs.tables, strict=True):
            for subset, rows in table.groupby("modalities"):
                ids, twice = set(rows["id"]), rows[[c for c in ("id", "frame") if c in rows]].duplicated().any()
                missing, surplus = expected - ids, ids - expected
                if missing or surplus or twice:
                    example = next(iter(sorted(missing or surplus)), "one twice")
                    count = f"{len(ids)} of the {len(expected)} items"
                    message = f"{run} scored {count} of the split with {subset} ({example})"
                    raise ProtocolError(message, "delete its predictions.parquet and run affuse bench again")


def _head(suite: Suite, setting: str, out: Path, done: Sequence[Job], scored: dict[str, Scored]) -> list[str]:
    """Title and protocol."""
    job = done[0]
    first = next(iter(scored.values())).evaluation
    protocol, chosen = first["protocol"], suite.settings[setting]
    tried: dict[str, int] = {}
    for runs in scored.values():
        name, count = runs.evaluation["recipe"], runs.evaluation["protocol"]["configurations_tried"]
        tried[name] = max(tried.get(name, 0), count)
    folds = f"{job.folds} folds" if job.folds else "one split"
    changed = " ".join(f"`{o.replace(str(out), 'OUT')}`" for o in chosen.overrides)
    protocols = [runs.evaluation["protocol"] for runs in scored.values()]
    selections = "; or ".join(dict.fromkeys(p["selection"] for p in protocols))
    standardised = "; ".join(dict.fromkeys(p["standardised_by"] for p in protocols if "standardised_by" in p))
    size = f"{len(first['labels'])} {'classes' if 'accuracy' in first['rows'][0]['metrics'] else 'dimensions'}"
    recipe = f"Recipe `{job.name}`" if len(tried) == 1 else f"{len(tried)} recipes"
    with_changes = f" with {changed}" if changed else ""
    scored_items = f"{first['n']} {first.get('resolution', 'utterance')}s scored (every one of the split)"
    split_by = protocol.get("split_by", protocol["group_by"])
    seeds = f"{max(len(s.runs) for s in scored.values())} seeds"
    how = f"Selection: {selections}. {f'Standardised by {standardised}. ' if standardised else ''}"
    return [
        f"# {suite.name}: {setting}",
        "",
        *([f"{note}\n" for note in (suite.note, chosen.note) if note]),
        f"{recipe}{with_changes} on {first['corpus']['name']}: {scored_items}, {size}, {folds} by {split_by}, {seeds}, "
        f"{sum(tried.values())} configurations tried. {how}Written by `affuse bench` from run folders.",
        "",
    ]


def _scores(sums: Sums, metrics: Sequence[str], gaps: Gaps) -> list[str]:
    """The table of arms."""
    main, costs = metrics[0], sums.info["costs"]
    columns = ["arm", *metrics, f"per seed ({main})", *(f"less {b} ({main})" for b in gaps)]
    lines = _table([*columns, "parameters", "s per epoch", "s per run"])
    for arm in sums.arms:
        cells = [interval(sums.estimate(m, arm)) for m in metrics]
        cells.append(", ".join(f"{v:z.3f}" for v in sums.each(main, arm)))
        cells += [signed(of[arm]) if arm in of else "" for of in gaps.values()]
        lines.append(_row(arm, *cells, *costs.get(arm, ["", "", ""])))
    name, values = sums.info["constant"]
    shown = ", ".join(f"{m} {values[m]:z.3f}" for m in metrics if m in values)
    return [*lines, "", f"{name.capitalize()}: {shown}.", ""]


def _costs(runs: Sequence[Path]) -> list[str]:
    """Trained parameters, median seconds per epoch over all epochs, mean seconds of training per run."""
    infos = [io.read_json(r / run_files.INFO) for r in runs]
    epochs = [row["seconds"] for r in runs for path in r.rglob(run_files.METRICS) for row in io.read_jsonl(path)]
    mean = np.mean([info["train_seconds"] for info in infos])
    return [f"{infos[0]['parameters']:,}", f"{np.median(epochs):.3f}", f"{mean:.1f}"]


def _differences(main: str, gaps: Gaps) -> list[str]:
    """The arms that differ from each baseline by their intervals, and the differences left after Holm's correction."""
    lines: list[str] = []
    tested: dict[frozenset[str], tuple[str, Difference]] = {}
    for baseline, of in gaps.items():
        above, below = [a for a, g in of.items() if g.low > 0], [a for a, g in of.items() if g.high < 0]
        if above or below:
            sides = f"above {baseline}: {', '.join(above) or 'none'}; below it: {', '.join(below) or 'none'}"
            lines += [f"By a paired interval ({main}) that excludes 0, {sides}.", ""]
        else:
            lines += [f"No arm differs from {baseline} by a paired interval ({main}) that excludes 0.", ""]
        for arm, gap in of.items():
            tested.setdefault(frozenset((arm, baseline)), (f"{arm} - {baseline}", gap))
    if not tested:
        return lines
    adjusted = holm([gap.p for _, gap in tested.values()])
    left = [
        f"{name} ({gap.value:+.3f}, p {chance(p)})"
        for (name, gap), p in zip(tested.values(), adjusted, strict=True)
        if p < 0.05
    ]
    correction = "Holm's correction at 5 %"
    kept = f"these survive {correction}: {', '.join(left)}" if left else f"none survives {correction}"
    return [*lines, f"Differences tested: {len(tested)}; {kept}.", ""]


def _pairs(sums: Sums, main: str) -> list[str]:
    """Further differences that the page asks for: (title, arm, modalities, other arm, modalities)."""
    pairs = sums.info.get("pairs", [])
    lines = _table([f"paired difference ({main})", "value and interval", "p"]) if pairs else []
    for title, arm, subset, other, subset_other in pairs:
        gap = sums.less(main, arm, other, subset, subset_other)
        lines.append(_row(title, signed(gap), chance(gap.p)))
    return [*lines, ""] if pairs else []


def _modalities(sums: Sums, main: str) -> list[str]:
    """Every arm with a single modality, the others masked."""
    present = sorted({m for arm in sums.arms for m in sums.subsets(arm) if "+" not in m})
    if len(present) < 2:
        return []
    lines = [f"The same models with one modality alone ({main}):", "", *_table(["arm", *present])]
    for arm in sums.arms:
        known = sums.subsets(arm)
        lines.append(_row(arm, *(interval(sums.estimate(main, arm, m)) if m in known else "" for m in present)))
    return [*lines, ""]


def _arms(suite: Suite, names: Sequence[str]) -> list[str]:
    """The recipe and the note of each arm."""
    lines = _table(["arm", "recipe, overrides", "note"])
    for name in names:
        arm = suite.arms[name]
        stage = [] if arm.pretrain is None else ["affuse pretrain", *arm.pretrain]
        options = [arm.recipe, *arm.overrides, *(f"--only {m}" for m in arm.only), *stage]
        lines.append(_row(name, " ".join(f"`{option}`" for option in options if option), arm.note))
    return [*lines, ""]


def _missing(missing: Sequence[tuple[Job, dict[str, str]]]) -> list[str]:
    """Which runs are not in the tables, and why."""
    if not missing:
        return []
    why: dict[str, dict[str, list[str]]] = {}
    for job, row in missing:
        reason = row.get("error", "not run yet").splitlines()[0]
        why.setdefault(reason, {}).setdefault(job.arm, []).append(str(job.seed))
    named = {reason: [f"{arm} ({' '.join(seeds)})" for arm, seeds in arms.items()] for reason, arms in why.items()}
    lines = [f"- {', '.join(arms)}: {reason}" for reason, arms in named.items()]
    return [f"Not in the tables, {len(missing)} runs (seeds):", "", *lines, ""]


def _table(columns: Sequence[str]) -> list[str]:
    return [_row(*columns), "|" + "---|" * len(columns)]


def _row(*cells: str) -> str:
    plain = (" ".join(cell.split()).replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(plain)} |"


def interval(e: Estimate) -> str:
    """0.612 [0.570, 0.655]; no interval where there is one cluster."""
    return f"{e.value:z.3f} [{e.low:z.3f}, {e.high:z.3f}]" if e.low == e.low else f"{e.value:z.3f}"


def chance(p: float) -> str:
    """A p value with three decimals, never 0."""
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def signed(d: Difference) -> str:
    """+0.031 [+0.004, +0.058]; no interval where there is one cluster."""
    return f"{d.value:+z.3f} [{d.low:+z.3f}, {d.high:+z.3f}]" if d.low == d.low else f"{d.value:+z.3f}"
