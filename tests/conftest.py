"""Fixtures that several tests share."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# networks as small as those of the tests run slower on two threads; read when NumPy and torch are imported
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from faces_maker import write_shards  # noqa: E402
from hypothesis import settings  # noqa: E402

settings.register_profile("same", derandomize=True)  # a run tests what the last one did
settings.load_profile("same")


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """What the command line does to the package's log does not outlive a test."""
    log = logging.getLogger("canthus")
    propagate, level, handlers = log.propagate, log.level, log.handlers[:]
    yield
    log.propagate, log.handlers[:] = propagate, handlers
    log.setLevel(level)


@pytest.fixture(params=["numpy", "torch"])
def xp(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """A function that makes a float64 array of either kind: the same test runs on NumPy and on torch."""
    if request.param == "numpy":
        return lambda values: np.asarray(values, dtype=np.float64)
    torch = pytest.importorskip("torch")
    return lambda values: torch.as_tensor(np.asarray(values, dtype=np.float64))


@pytest.fixture(scope="session")
def made_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 24 made faces in two shards, without vertices, whose augmentation would take most of the time."""
    return write_shards(tmp_path_factory.mktemp("faces"), count=24, shards=2, size=64, dense=False)


@pytest.fixture(scope="session")
def overfitted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """A function: a method's name -> the weights that a short training on 8 made faces gave, and the faces' shard.

    Every method is trained once, from its small configuration in `small`.
    """
    pytest.importorskip("torch")
    from small import recipe

    from canthus.training.train import train

    @functools.cache
    def trained(method: str) -> tuple[Path, Path]:
        run = tmp_path_factory.mktemp(method)
        shards = write_shards(run / "faces", count=8, size=96, dense=method == "cprfa")
        for _ in train(recipe(method, shards), run):
            pass
        return run / "weights", shards / "shard-00000.npz"

    return trained
