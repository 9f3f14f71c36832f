"""Networks in ONNX files, run by onnxruntime on one thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from affuse.core.errors import BadFeatures, MissingDependency


def session(path: Path) -> Any:
    """An onnxruntime session of a file, on the CPU, quiet, with one thread (worker processes share the cores).

    Raises MissingDependency without onnxruntime, BadFeatures for a file that is no ONNX network.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency(f"{path} needs onnxruntime", "pip install 'affuse[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class
        message = f"{path} is not a network that onnxruntime runs: {error}"
        raise BadFeatures(message, "give a complete .onnx file") from error
