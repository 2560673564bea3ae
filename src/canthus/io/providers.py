"""ONNX Runtime: how it is imported, and on what it runs networks.

Its packages (onnxruntime, onnxruntime-gpu, ...) put their files into the same place, so only one can be installed. None
is therefore a requirement of canthus: the extras `cpu` and `gpu` bring one, and any other one serves as well.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import distributions
from threading import Lock
from typing import Any

from canthus.errors import CanthusError, pip_install

# name here -> name in ONNX Runtime, and the package that has it
PROVIDERS = {
    "cpu": ("CPUExecutionProvider", "onnxruntime"),
    "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
    "coreml": ("CoreMLExecutionProvider", "onnxruntime for macOS"),
    "directml": ("DmlExecutionProvider", "onnxruntime-directml"),
    "openvino": ("OpenVINOExecutionProvider", "onnxruntime-openvino"),
}
AUTO = "auto"
BEST_FIRST = ("cuda", "directml", "coreml", "openvino")  # what `auto` tries before the CPU

# From 1.29 on, ONNX Runtime reports to its maker and keeps an identifier in the home folder, unless this variable is
# set when it is imported. What a user said is left alone, and so is the environment after the import.
_TELEMETRY = "ORT_DISABLE_TELEMETRY"
_IMPORTING = Lock()


def runtime() -> Any:
    """The module onnxruntime. Raises `CanthusError` where no package of it is installed."""
    with _IMPORTING:
        undecided = "onnxruntime" not in sys.modules and _TELEMETRY not in os.environ
        if undecided:
            os.environ[_TELEMETRY] = "1"
        try:
            import onnxruntime
        except ImportError as error:
            wanted = f"{pip_install('cpu')}, or with an NVIDIA GPU: {pip_install('gpu')}"
            raise CanthusError(
                f"networks are run by ONNX Runtime, which is not installed; to get it, run: {wanted}"
            ) from error
        finally:
            if undecided:
                del os.environ[_TELEMETRY]
    return onnxruntime


def check_provider(provider: Any) -> str:
    """The name of an execution provider that the installed ONNX Runtime has, or 'auto'.

    Raises `CanthusError` for another name, and for a provider that it has not, with the package that has.
    """
    if provider == AUTO:
        return AUTO
    if not isinstance(provider, str) or provider not in PROVIDERS:
        raise CanthusError(f"got the provider {provider!r}, want one of {', '.join([*PROVIDERS, AUTO])}")
    here = available()
    if provider in here:
        return provider
    package, installed = PROVIDERS[provider][1], _installed()
    if len(installed) > 1:
        which = f"{' and '.join(installed)} are installed over each other"
    else:
        which = f"{installed[0] if installed else 'the ONNX Runtime here'} has {', '.join(here)} only"
    raise CanthusError(
        f"got the provider '{provider}', but {which}; want {package} alone: "
        f"pip uninstall {' '.join(installed) or 'onnxruntime'}, then pip install {package.split()[0]}"
    )


def available() -> list[str]:
    """The providers that the installed ONNX Runtime has. Whether this machine has what they need shows when a network
    is opened. Raises `CanthusError` where none is installed."""
    installed = runtime().get_available_providers()
    return [name for name, (full, _) in PROVIDERS.items() if full in installed]


def _installed() -> list[str]:
    """The packages of ONNX Runtime that are installed."""
    names = {(found.metadata["Name"] or "").lower() for found in distributions()}
    return sorted(names & {package.split()[0] for _, package in PROVIDERS.values()})
