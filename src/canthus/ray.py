"""Photos by the million on a Ray cluster (extra `scale`): a data set of Ray Data, or the parts of `canthus align`; and
the shards of `canthus synth`.

What is aligned and rendered is what one machine would align, with the same rows, and render, with the same pixels.
Photos, head assets and the folder for results must be where every machine of the cluster reaches them.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import canthus
from canthus.commands.parts import SHOWN, Answer, Part, Plan, align_chunk, left, lost
from canthus.commands.photos import Summary
from canthus.errors import CanthusError, pip_install
from canthus.inference.lanes import Lanes
from canthus.inference.predictor import Predictor
from canthus.io.columns import ImageFaces
from canthus.io.outputs import remove_leftovers
from canthus.io.photo_lists import BOX, Photo
from canthus.io.places import folder
from canthus.io.tables import arrow_table

if TYPE_CHECKING:
    from canthus.synth.render_jobs import Rendering

BATCH = 64  # photos of a batch of Ray Data
LEAST = 16  # CPUs for which parts are waiting, whatever the cluster has now
ATTEMPTS = 3  # of a part whose machine is lost
ANSWER = 10.0  # seconds in which a cluster answers


def align(
    dataset: Any,
    weights: str | Path | None = None,
    *,
    accuracy: Literal["normal", "high"] = "normal",
    min_face: float | None = None,
    actors: int = 1,
) -> Any:
    """The faces of a data set of Ray Data with a column `image`, paths or addresses, one row a face.

    Boxes are not taken; other columns are left out. The answer is a data set with `columns.COLUMNS` and a column
    `error`, which is null but for photos that could not be read: these are one row with `image` and `error`. weights,
    accuracy, min_face: as of `canthus.load`. actors: how many processes align, each on one CPU of the cluster. Raises
    `CanthusError` where Ray is missing, and for a data set without images or with boxes, and what `canthus.load`
    raises.
    """
    _ray()
    columns = dataset.columns() or []
    if "image" not in columns or not set(BOX).isdisjoint(columns):
        raise CanthusError(f"got a data set with the columns {', '.join(columns)}, want `image` and no boxes")
    aligner = canthus.load(weights, accuracy=accuracy, threads=1, min_face=min_face)
    return dataset.map_batches(
        _Batches, fn_constructor_args=(aligner,), batch_size=BATCH, batch_format="numpy", concurrency=actors, num_cpus=1
    )


class _Batches:
    """An actor of Ray Data."""

    def __init__(self, aligner: Predictor):
        self.lanes = Lanes(aligner)

    def __call__(self, batch: dict[str, np.ndarray]) -> Any:
        import pyarrow as pa

        photos = [Photo(str(image), str(image)) for image in batch["image"]]
        answers = [
            a for some in self.lanes.map(partial(align_chunk, share=self.lanes.share), photos, lost) for a in some
        ]
        images = [ImageFaces(a.name, 0, 0.0, a.faces, np.arange(len(a.faces))) for a in answers if a.faces is not None]
        faces = arrow_table(images, weights=self.lanes.aligner.card.title)
        faces = faces.append_column("error", pa.nulls(len(faces), pa.string())).replace_schema_metadata()
        failed = [answer for answer in answers if answer.faces is None]
        columns = {name: pa.nulls(len(failed), faces.schema.field(name).type) for name in faces.column_names}
        columns["image"] = pa.array([answer.name for answer in failed], pa.string())
        columns["error"] = pa.array([answer.error for answer in failed], pa.string())
        return pa.concat_tables([faces, pa.table(columns, faces.schema)])


def align_parts(
    photos: Iterable[Photo],
    out: str,
    address: str,
    plan: Plan,
    weights: str | Path | None = None,
    min_face: float | None = None,
    resume: bool = False,
    progress: Callable[[Summary], None] = lambda summary: None,
    accuracy: Literal["normal", "high"] = "normal",
) -> Summary:
    """What `commands.parts.align` does, on a cluster: each CPU of it takes a part at a time.

    address: of the cluster; "auto" finds the one that this machine belongs to, "local" starts one on this machine. A
    part whose machine is lost is done again, ATTEMPTS times in all. `progress` after each part. Raises as
    `commands.parts.align`, and `CanthusError` where Ray is missing or no cluster is there.
    """
    ray = _cluster(address)
    aligner = canthus.load(weights, accuracy=accuracy, threads=1, min_face=min_face)
    summary, start, shared = Summary(), time.perf_counter(), ray.put(aligner)
    parts = left(photos, folder(out), aligner, plan, resume, summary, progress)
    for files, faces, failures, failed in _each(ray, _write_part, ((shared, part, out) for part in parts)):
        summary.files += files
        summary.faces += faces
        shown = failures[: SHOWN - len(summary.failures)]
        summary.failures += shown
        summary.untold += failed - len(shown)
        summary.seconds = time.perf_counter() - start
        progress(summary)
    return summary


def render(wanted: Rendering, address: str) -> Iterator[Path]:
    """What `synth.render_jobs.render` does, on a cluster: each CPU of it renders a shard or clip at a time.

    The folder must be where every machine of the cluster reaches it, under the same path. address: as of `align_parts`.
    Raises `CanthusError`, also for a shard whose process or machine is lost ATTEMPTS times.
    """
    ray = _cluster(address)
    missing = [(wanted.render, number, path) for number, path in enumerate(wanted.paths) if not os.path.exists(path)]
    remove_leftovers(wanted.paths[0].parent)
    yield from _each(ray, _rendered, missing)


def _rendered(render: Callable[[int, Path], None], number: int, path: Path) -> Path:
    if not os.path.exists(path):  # an attempt before may have ended after it
        render(number, path)
    return path


def _cluster(address: str) -> Any:
    """Ray, connected to the cluster at an address. Raises `CanthusError`."""
    ray = _ray()
    host, _, port = address.rpartition(":")
    try:
        if host and "/" not in host and port.isdecimal():  # Ray itself would try for a quarter of an hour
            socket.create_connection((host.strip("[]"), int(port)), ANSWER).close()
        ray.init(address, ignore_reinit_error=True, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, OverflowError, RuntimeError, OSError) as error:
        raise CanthusError(f"got the Ray address '{address}', where no cluster answers ({error})") from error
    return ray


def _each(ray: Any, call: Callable[..., Any], given: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
    """What `call` gives of each of the arguments, on one CPU of the cluster each, as they are finished. Arguments are
    taken as CPUs come free. Raises the `CanthusError` that a call raises, and one for a call that is lost ATTEMPTS
    times with its process or machine."""
    remote, running = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(call), list[Any]()

    def finished() -> Iterator[Any]:
        done, running[:] = ray.wait(running)
        for answer in done:
            try:
                yield ray.get(answer)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, CanthusError):
                    raise error.cause from error
                raise
            except ray.exceptions.RayError as error:
                why = str(error).strip().split("\n")[0]
                raise CanthusError(f"work was lost {ATTEMPTS} times with its process or machine ({why})") from error

    for arguments in given:
        running.append(remote.remote(*arguments))
        while len(running) >= 2 * max(LEAST, ray.cluster_resources().get("CPU", 0)):  # machines come and go
            yield from finished()
    while running:
        yield from finished()


def _write_part(aligner: Predictor, part: Part, out: str) -> tuple[int, int, list[tuple[str, str]], int]:
    """Write a part; how many photos and faces it has, some of the failures, and how many there are."""
    failures = list[tuple[str, str]]()

    def watched(some: list[Answer]) -> list[Answer]:
        failures.extend((answer.name, answer.error) for answer in some if answer.faces is None)
        return some

    lanes = Lanes(aligner)
    answers = map(watched, lanes.map(partial(align_chunk, share=lanes.share), part.photos, lost))
    about = part.write(folder(out), answers, aligner)
    return len(part.photos) - about["failures"], about["faces"], failures[:SHOWN], len(failures)


def _ray() -> Any:
    try:
        import ray
        import ray.data  # noqa: F401
    except ImportError as error:
        raise CanthusError(f"a cluster needs Ray: {pip_install('scale')}") from error
    return ray
