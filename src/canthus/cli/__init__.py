"""The command line: each verb reads its options, calls one function and reports the result."""

from __future__ import annotations

from typing import Annotated

import typer

import canthus
from canthus.cli.faces import align, models, serve, track
from canthus.cli.measuring import check, evaluate, reproduce
from canthus.cli.training import export, synth, train, train_detector
from canthus.commands.terminal import console, register

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    help="Find 3D face landmarks, head pose and face shape in photos and videos, and train and measure such methods.",
)


data = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look into annotated data sets.")
app.add_typer(data, name="data")
register(data, check)
for _verb in (align, track, models, evaluate, reproduce, synth, train, train_detector, export, serve):
    register(app, _verb)


def _version(wanted: bool) -> None:
    if wanted:
        console.print(canthus.__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass
