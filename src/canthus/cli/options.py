"""Options that several verbs have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from canthus.errors import CanthusError
from canthus.io.inputs import check_folder
from canthus.threads import MOST_THREADS


def weights_names() -> list[str]:
    """Names of the shipped weights, for completion in a shell."""
    from canthus.weights import shipped

    return list(shipped())


def folder(given: str | Path) -> Path:
    """The value of --out, before `Path` makes s3://a into s3:/a and nothing into the current folder."""
    try:
        return check_folder(str(given))
    except CanthusError as error:
        raise typer.BadParameter(str(error)) from error


Out = Annotated[Path, typer.Option("--out", parser=folder, metavar="FOLDER", help="Folder for the results.")]
Weights = Annotated[
    str,
    typer.Option(
        "--weights", autocompletion=weights_names, help="Name of shipped weights (see `canthus models`), or a folder."
    ),
]
Accuracy = Annotated[
    Literal["normal", "high"],
    typer.Option(
        "--accuracy", help="With high, the mean of four views of each face, for three times the time of the network."
    ),
]
Place = Annotated[
    str, typer.Option("--out", metavar="FOLDER", help="Folder for the results; of tables also an address, s3://...")
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, max=MOST_THREADS, help="Number of CPU threads; default: all cores.")
]
Provider = Annotated[
    Literal["cpu", "cuda", "coreml", "directml", "openvino", "auto"],
    typer.Option("--provider", help="What ONNX Runtime runs the networks on, where its package has it."),
]
