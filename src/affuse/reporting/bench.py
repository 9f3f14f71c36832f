"""Result pages of a suite, one per setting, from its run folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from affuse.core import io
from affuse.core.errors import ProtocolError
from affuse.evaluation.bench import Job, Suite, expected_items, outcomes, plan
from affuse.evaluation.compare import Scored
from affuse.evaluation.intervals import Difference, Estimate, holm

Gaps = dict[str, dict[str, Difference]]  # baseline -> arm -> arm less baseline, in the first metric


def write_pages(
    suite: Suite, out: Path, pages: Path, settings: Sequence[str], more: Callable[[Suite, str, Path], str] = lambda suite, setting, out: ""
) -> list[Path]:
    """Write NAME-SETTING.md of these settings, which end with what `more` says; a setting without a complete run has none."""
    written = []
    for setting in settings:
        text = page(suite, setting, out)
        if text:
            written.append(pages / f"{suite.name}-{setting}.md")
            io.write_text(written[-1], text + more(suite, setting, out))
    return written


def page(suite: Suite, setting: str, out: Path) -> str:
    """The page of one setting, from the runs that are complete; empty where none is.

    Raises ProtocolError where a run did not score every item of its split.
    """
    jobs = plan(suite, out, [f"{setting}/*"])
    rows = outcomes(jobs, out)
    done = [job for job, row in zip(jobs, rows, strict=True) if row["status"] == "done"]
    if not done:
        return ""
    scored = {arm: Scored([j.folder for j in done if j.arm == arm]) for arm in suite.arms_of(setting) if any(j.arm == arm for j in done)}
    check_items(done, scored)
    gaps = {b: {a: runs.less(scored[b], suite.metrics[0]) for a, runs in scored.items() if a != b} for b in suite.baselines if b in scored}
    lacking = [(j, row) for j, row in zip(jobs, rows, strict=True) if row["status"] != "done"]
    return "\n".join(
        [
            *_head(suite, setting, out, done, scored),
            *_scores(suite, scored, gaps),
            *_differences(suite.metrics[0], gaps),
            *_modalities(suite, scored),
            *_arms(suite, list(scored)),
            *_lacking(lacking),
        ]
    )


def check_items(done: Sequence[Job], scored: dict[str, Scored]) -> None:
    """Refuse a run that did not score every labelled item of the split exactly once."""
    expected = expected_items(done[0])
    for runs in scored.values():
        for run, table in zip(runs.runs, runs.tables, strict=True):
            for subset, ids in table.groupby("modalities")["id"]:
                lacking, surplus = expected - set(ids), set(ids) - expected
                if lacking or surplus or len(ids) != len(expected):
                    example = next(iter(sorted(lacking or surplus)), "one twice")
                    message = f"{run} scored {len(ids)} of the {len(expected)} items of the split with {subset} ({example})"
                    raise ProtocolError(message, "delete its predictions.parquet and run affuse bench again")


def _head(suite: Suite, setting: str, out: Path, done: Sequence[Job], scored: dict[str, Scored]) -> list[str]:
    """Title and protocol."""
    job = done[0]
    first = next(iter(scored.values())).evaluation
    told, chosen = first["protocol"], suite.settings[setting]
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
    return [
        f"# {suite.name}: {setting}",
        "",
        *([f"{note}\n" for note in (suite.note, chosen.note) if note]),
        f"{f'Recipe `{job.name}`' if len(tried) == 1 else f'{len(tried)} recipes'}{f' with {changed}' if changed else ''} on {first['corpus']['name']}: {first['n']} utterances scored (every one of the split), {size}, "
        f"{folds} by {told['group_by']}, {max(len(s.runs) for s in scored.values())} seeds, {sum(tried.values())} configurations tried. Selection: "
        f"{selections}. {f'Standardised by {standardised}. ' if standardised else ''}Intervals: {told['interval']}; for several seeds the mean over seeds within each resample. Written by `affuse bench` from run folders.",
        "",
    ]


def _scores(suite: Suite, scored: dict[str, Scored], gaps: Gaps) -> list[str]:
    """The table of arms."""
    main = suite.metrics[0]
    columns = ["arm", *suite.metrics, f"per seed ({main})", *(f"less {b} ({main})" for b in gaps), "parameters", "s per epoch", "s per run"]
    lines = _table(columns)
    for arm, runs in scored.items():
        cells = [interval(runs.estimate(m)) for m in suite.metrics]
        cells.append(", ".join(f"{v:z.3f}" for v in runs.each(main)))
        cells += [signed(of[arm]) if arm in of else "" for of in gaps.values()]
        lines.append(_row(arm, *cells, *_costs(runs.runs)))
    baseline = next(iter(scored.values())).evaluation["rows"][0]
    shown = ", ".join(f"{m} {baseline['metrics'][m]['value']:z.3f}" for m in suite.metrics)
    return [*lines, "", f"{baseline['name'].capitalize()}: {shown}.", ""]


def _costs(runs: Sequence[Path]) -> list[str]:
    """Trained parameters, median seconds per epoch over all epochs, mean seconds of training per run."""
    told = [io.read_json(r / "run.json") for r in runs]
    epochs = [row["seconds"] for r in runs for path in r.rglob("metrics.jsonl") for row in io.read_jsonl(path)]
    return [f"{told[0]['parameters']:,}", f"{np.median(epochs):.3f}", f"{np.mean([t['train_seconds'] for t in told]):.1f}"]


def _differences(main: str, gaps: Gaps) -> list[str]:
    """What the intervals say about every baseline, and what is left after Holm's correction."""
    lines: list[str] = []
    tested: dict[frozenset[str], tuple[str, Difference]] = {}
    for baseline, of in gaps.items():
        above, below = [a for a, g in of.items() if g.low > 0], [a for a, g in of.items() if g.high < 0]
        if above or below:
            said = f"above {baseline}: {', '.join(above) or 'none'}; below it: {', '.join(below) or 'none'}"
            lines += [f"By a paired interval ({main}) that excludes 0, {said}.", ""]
        else:
            lines += [f"No arm differs from {baseline} by a paired interval ({main}) that excludes 0.", ""]
        for arm, gap in of.items():
            tested.setdefault(frozenset((arm, baseline)), (f"{arm} - {baseline}", gap))
    adjusted = holm([gap.p for _, gap in tested.values()])
    left = [f"{what} ({gap.value:+.3f}, p {p:.3f})" for (what, gap), p in zip(tested.values(), adjusted, strict=True) if p < 0.05]
    kept = f"these survive Holm's correction at 5 %: {', '.join(left)}" if left else "none survives Holm's correction at 5 %"
    return [*lines, f"Differences tested: {len(tested)}; {kept}.", ""]


def _modalities(suite: Suite, scored: dict[str, Scored]) -> list[str]:
    """Every arm with a single modality, the others masked."""
    main = suite.metrics[0]
    present = sorted({m for runs in scored.values() for t in runs.tables for m in t["modalities"] if "+" not in m})
    if len(present) < 2:
        return []
    lines = [f"The same models with one modality alone ({main}):", "", *_table(["arm", *present])]
    for arm, runs in scored.items():
        own = set(runs.tables[0]["modalities"])
        lines.append(_row(arm, *(interval(runs.estimate(main, m)) if m in own else "" for m in present)))
    return [*lines, ""]


def _arms(suite: Suite, names: Sequence[str]) -> list[str]:
    """What the arms are."""
    lines = _table(["arm", "recipe, overrides", "note"])
    for name in names:
        arm = suite.arms[name]
        lines.append(_row(name, " ".join(f"`{o}`" for o in (arm.recipe, *arm.overrides, *(f"--only {m}" for m in arm.only)) if o), arm.note))
    return [*lines, ""]


def _lacking(lacking: Sequence[tuple[Job, dict[str, str]]]) -> list[str]:
    """Which runs are not in the tables, and why."""
    if not lacking:
        return []
    why: dict[str, dict[str, list[str]]] = {}
    for job, row in lacking:
        reason = row.get("error", "not run yet").splitlines()[0]
        why.setdefault(reason, {}).setdefault(job.arm, []).append(str(job.seed))
    named = {reason: [f"{arm} ({' '.join(seeds)})" for arm, seeds in arms.items()] for reason, arms in why.items()}
    said = [f"- {', '.join(arms)}: {reason}" for reason, arms in named.items()]
    return [f"Not in the tables, {len(lacking)} runs (seeds):", "", *said, ""]


def _table(columns: Sequence[str]) -> list[str]:
    return [_row(*columns), "|" + "---|" * len(columns)]


def _row(*cells: str) -> str:
    plain = (" ".join(cell.split()).replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(plain)} |"


def interval(e: Estimate) -> str:
    """0.612 [0.570, 0.655]; no interval where there is one cluster."""
    return f"{e.value:z.3f} [{e.low:z.3f}, {e.high:z.3f}]" if e.low == e.low else f"{e.value:z.3f}"


def signed(d: Difference) -> str:
    """+0.031 [+0.004, +0.058]; no interval where there is one cluster."""
    return f"{d.value:+z.3f} [{d.low:+z.3f}, {d.high:+z.3f}]" if d.low == d.low else f"{d.value:+z.3f}"
