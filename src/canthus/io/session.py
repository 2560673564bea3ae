"""ONNX Runtime sessions: the one place that says how a network file is opened."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from canthus.decode import decoding
from canthus.errors import WeightsError
from canthus.threads import check_threads

# From 1.29 on, ONNX Runtime reports to its maker and keeps an identifier in the home folder, unless this variable is
# set when it is imported. What a user said is left alone, and so is the environment after the import.
_TELEMETRY = "ORT_DISABLE_TELEMETRY"
_unsaid = _TELEMETRY not in os.environ
if _unsaid:
    os.environ[_TELEMETRY] = "1"
import onnxruntime as ort  # noqa: E402

if _unsaid:
    del os.environ[_TELEMETRY]

MODEL_FILE = "model.onnx"


class Session:
    """A network file run on the CPU. It is opened when it is first used, so that a copy can be pickled.

    path: the file. threads: CPU threads of a run; None leaves their number to ONNX Runtime.
    """

    def __init__(self, path: Path, threads: int | None = None):
        self.path, self.threads = path, check_threads(threads)

    def run(self, outputs: list[str], given: dict[str, Any]) -> list[Any]:
        """The named outputs for the given inputs. Raises `WeightsError` if the file cannot be loaded."""
        return self._opened.run(outputs, given)

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs, in the file's order."""
        return [o.name for o in self._opened.get_outputs()]

    @cached_property
    def _opened(self) -> ort.InferenceSession:
        return open_session(self.path, self.threads)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "threads": self.threads}


def open_session(path: Path, threads: int | None = None) -> ort.InferenceSession:
    """A session on the CPU; `threads` None leaves their number to the runtime. Raises `WeightsError`."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Between runs its threads would wait in a loop and slow NumPy and other sessions: a fitted head then costs twice.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    with decoding(WeightsError, f"ONNX Runtime cannot load '{path}'"):
        # without a fallback: that would be the CPU again, announced on stdout
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0)
