"""affuse compare: is one run better than another?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from affuse.cli.console import output


def run(
    run_a: Path,
    run_b: Path,
    *,
    metric: str | None = None,
    modalities_a: str = "",
    modalities_b: str = "",
    task: str = "",
    utterances: Annotated[bool, Parameter(negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="one JSON object on stdout")] = False,
) -> int:
    """Paired difference RUN_A - RUN_B with its interval and p.

    Each may be a folder of runs that differ by seed, which the interval then counts.

    Parameters
    ----------
    metric
        Metric to compare (default: uar; label_f1 of labels, ccc of values).
    modalities_a
        Use this subset of modalities of RUN_A (audio, audio+vision); it must have been evaluated.
    modalities_b
        The same for RUN_B.
    task
        One of the runs' other tasks (default: the leading one).
    utterances
        Compare a run that answers per frame by its answers per utterance.
    """
    from affuse.evaluation.compare import compare

    result = compare(run_a, run_b, metric, modalities_a, modalities_b, task, utterances)
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
        return 0
    gap, (mean_a, mean_b) = result["difference"], result["mean"]
    output.print(f"[bold]{result['metric']}[/]  A {mean_a:z.3f}   B {mean_b:z.3f}")
    if gap["p"] is None:
        output.print(f"A - B = {gap['value']:+z.3f}  n = {gap['n']}", markup=False)
        decision = f"no difference can be claimed: one {result['protocol']['group_by']} alone gives no interval"
    else:
        interval = f"[{gap['low']:+z.3f}, {gap['high']:+z.3f}]"
        output.print(f"A - B = {gap['value']:+z.3f}  {interval}  p = {gap['p']:.3f}  n = {gap['n']}", markup=False)
        excluded = gap["low"] > 0 or gap["high"] < 0
        decision = "the interval excludes 0" if excluded else "no difference can be claimed: the interval holds 0"
    output.print(f"{decision} ({result['interval']})", soft_wrap=True)
    protocol = result["protocol"]
    for line in filter(None, [*protocol.get("overlap", []), protocol.get("interval_means")]):
        output.print(line, soft_wrap=True, markup=False)
    return 0
