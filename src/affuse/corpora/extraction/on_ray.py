"""Extraction on a Ray cluster with shared storage: a shard is a row of a Ray dataset; an actor fills and writes it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from affuse.core.errors import MissingDependency
from affuse.corpora.extraction.shards import Failures, Shard, fill
from affuse.features.extractor import make_extractor


class _Filler:
    """One actor: an extractor, and the shards of which it fills those that it is given."""

    def __init__(self, name: str, parameters: dict[str, Any], path: Path, shards: dict[int, Shard]) -> None:
        from affuse.core.seed import set_threads

        set_threads(1)
        self.extractor, self.path, self.shards = make_extractor(name, parameters), path, shards

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        failed = fill(self.extractor, self.path, self.shards[row["number"]])
        return {"number": row["number"], "failed": json.dumps(failed)}


def run_on_ray(
    name: str, parameters: dict[str, Any], path: Path, shards: Sequence[Shard], workers: int
) -> Iterator[tuple[Shard, Failures]]:
    """(shard, failures) as `workers` actors finish them; joins the cluster of $RAY_ADDRESS, else starts one here.

    Corpus and store must lie on storage that every node sees under the same path. Raises MissingDependency without Ray.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingDependency("extraction on a cluster needs ray", "pip install 'affuse[ray]'") from error
    if not ray.is_initialized():
        # one more than the actors, so that reading the rows never waits for them; a cluster that is there has its own
        local = {"num_cpus": workers + 1, "include_dashboard": False}
        own: dict[str, Any] = {} if os.environ.get("RAY_ADDRESS") else local
        ray.init(log_to_driver=False, logging_level=logging.WARNING, **own)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    ray.data.DataContext.get_current().enable_progress_bars = False
    waiting = {shard.number: shard for shard in shards}
    rows = ray.data.from_items([{"number": n} for n in waiting], override_num_blocks=len(waiting))
    arguments = (name, parameters, path.resolve(), waiting)
    actor: Any = _Filler  # Ray takes a class and makes actors of it; its annotation wants a function
    filled = rows.map(actor, fn_constructor_args=arguments, concurrency=min(workers, len(waiting)), num_cpus=1)
    for row in filled.iter_rows():
        yield waiting[int(row["number"])], json.loads(row["failed"])
