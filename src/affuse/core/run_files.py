"""The files of a run folder: their names, and the formats of run.json that can be read."""

from __future__ import annotations

FORMAT = 2  # 1: before tasks had objects of their own; it is read, and a run of it scored and used as what it was
READ = (1, FORMAT)

CONFIG = "config.yaml"
INFO = "run.json"
METRICS = "metrics.jsonl"
CHECKPOINT = "checkpoint.safetensors"
DESCRIPTION = "model.json"
WEIGHTS = "model.safetensors"
SPLIT = "split.parquet"
EVALUATION = "evaluation.json"
PREDICTIONS = "predictions.parquet"  # of the leading task; see `predictions`
REPORT = "report.html"
CONTROL = "control"  # folder of the model that was trained beside it on some modalities alone


def predictions(task: str = "", utterances: bool = False, split: str = "") -> str:
    """The table of a task that does not lead, of a split that is not test; `utterances`: of frames put together."""
    parts = ["predictions", *filter(None, [task, "utterances" if utterances else "", split])]
    return "-".join(parts) + ".parquet"
