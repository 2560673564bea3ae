"""ONNX Runtime sessions: the one place that says how a network file is opened."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from canthus.decode import decoding
from canthus.errors import CanthusError, WeightsError
from canthus.io.providers import AUTO, BEST_FIRST, PROVIDERS, available, check_provider, runtime
from canthus.threads import check_threads

MODEL_FILE = "model.onnx"
_DIRECTML = Lock()  # which runs a session for one thread at a time only


class Session:
    """A network run by ONNX Runtime. It is opened when it is first used, so that a copy can be pickled.

    network: its file, or the bytes of one. threads: CPU threads of a run; None leaves their number to ONNX Runtime.
    provider: what runs it, a name of `providers.PROVIDERS` or 'auto'. Raises `CanthusError` for a provider that is not
    there.
    """

    def __init__(self, network: Path | bytes, threads: int | None = None, provider: str = "cpu"):
        self.network, self.threads, self.provider = network, check_threads(threads), check_provider(provider)

    def run(self, outputs: list[str], given: dict[str, Any]) -> list[Any]:
        """The named outputs for the given inputs. Raises `WeightsError` if the file cannot be loaded."""
        session = self._opened
        with self._turn:
            return session.run(outputs, given)

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs, in the file's order."""
        return [o.name for o in self._opened.get_outputs()]

    @cached_property
    def _opened(self) -> Any:
        return open_session(self.network, self.threads, self.provider)

    @property
    def _turn(self) -> AbstractContextManager[Any]:
        directml = PROVIDERS["directml"][0] in self._opened.get_providers()
        return _DIRECTML if directml else nullcontext()

    def __getstate__(self) -> dict[str, Any]:
        return {"network": self.network, "threads": self.threads, "provider": self.provider}


def open_session(network: Path | bytes, threads: int | None = None, provider: str = "cpu") -> Any:
    """An `onnxruntime.InferenceSession`; `threads` None leaves their number to the runtime.

    What a provider cannot do runs on the CPU. 'auto' takes the first of BEST_FIRST that works on this machine, or the
    CPU. Raises `WeightsError` for a file that cannot be loaded, `CanthusError` for a provider that does not work here.
    """
    if check_provider(provider) == AUTO:
        installed = available()
        for name in (name for name in BEST_FIRST if name in installed):
            try:
                return _session_on(name, network, threads)
            except CanthusError:  # no such processor, or a driver is missing: the next one
                continue
        provider = "cpu"
    return _session_on(provider, network, threads)


def _session_on(provider: str, network: Path | bytes, threads: int | None) -> Any:
    ort = runtime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Between runs its threads would wait in a loop and slow NumPy and other sessions: a fitted head then costs twice.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Which tensors may share memory is found out by comparing each with all others, nine tenths of the time that it
    # takes to open a network of thousands of nodes. The arena gives freed memory out again in any case.
    options.enable_mem_reuse = False
    if threads is not None:
        options.intra_op_num_threads = threads
    if provider == "directml":
        options.enable_mem_pattern = False  # as its makers require
    full, cpu = PROVIDERS[provider][0], PROVIDERS["cpu"][0]
    given, called = (network, "the network") if isinstance(network, bytes) else (str(network), f"'{network}'")
    with decoding(WeightsError, f"ONNX Runtime cannot load {called}"):
        # without a fallback: that would be the CPU again, announced on stdout
        session = ort.InferenceSession(
            given, options, providers=list(dict.fromkeys([full, cpu])), enable_fallback=0
        )  # fmt: skip
    if full not in session.get_providers():
        raise CanthusError(
            f"got the provider '{provider}', which is installed but does not work on this machine, want its processor "
            "and drivers, or another provider"
        )
    return session
