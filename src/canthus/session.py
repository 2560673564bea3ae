"""ONNX Runtime sessions: the one place that says how a network file is opened."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

from canthus.errors import WeightsError

MODEL_FILE = "model.onnx"


def open_session(path: Path, threads: int | None = None) -> ort.InferenceSession:
    """A session on the CPU; `threads` None leaves their number to the runtime. Raises `WeightsError`."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises several unrelated classes
        raise WeightsError(f"ONNX Runtime cannot load '{path}': {error}") from error
