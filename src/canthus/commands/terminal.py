"""How the command line speaks: results on stdout, progress and log on stderr, a user's mistake as one sentence.

A line is never wrapped when it does not go to a terminal, so that it can be read by another program.
"""

from __future__ import annotations

import inspect
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Annotated, Any, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from canthus.errors import CanthusError, pip_install

# names of files may hold what Rich takes for markup
console = Console(markup=False, highlight=False)
errors = Console(stderr=True, markup=False, highlight=False)
log = logging.getLogger("canthus")

PLAIN_INTERVAL = 10.0  # seconds between two progress lines where stderr is no terminal
WIDE = 100  # columns of a table that does not go to a terminal
# modules of optional dependencies that do not belong to the extra of the verb that needs them
EXTRA_OF = {
    "av": "video",
    "fsspec": "scale",
    "h5py": "formats",
    "matplotlib": "plots",
    "mitsuba": "path",
    "pyarrow": "tables",
    "ray": "scale",
    "tensorboard": "tensorboard",
}

Justify = Literal["left", "right"]
Update = Callable[..., None]


Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also show what the program does, step by step.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show errors only: no progress, summary or warnings.")]


def register(app: typer.Typer, function: Callable[..., None]) -> None:
    """Make a function a verb of `app`, with the options --verbose and --quiet besides its own parameters.

    The help is the docstring; its first paragraph stands uncut in the list of verbs.
    """

    @wraps(function)
    def run(verbose: bool, quiet: bool, **options: Any) -> None:
        log.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.WARNING)
        log.handlers, log.propagate = [_Handler()], False
        with stopped_by_signals():
            function(**options)

    own = inspect.signature(function, eval_str=True)
    more = {"verbose": Verbose, "quiet": Quiet}
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [inspect.Parameter(name, keyword, default=False, annotation=kind) for name, kind in more.items()]
    parameters = [*own.parameters.values(), *added]
    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    summary = " ".join(inspect.cleandoc(function.__doc__ or "").split("\n\n")[0].split())
    app.command(function.__name__.replace("_", "-"), short_help=summary)(run)


class _Handler(logging.Handler):
    """Log records as lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        errors.print(
            level + printable(self.format(record), keep="\n"), style="yellow" if level else None, soft_wrap=True
        )


def say(text: str) -> None:
    """A summary on stdout, unless --quiet is given."""
    if log.isEnabledFor(logging.WARNING):
        console.print(printable(text, keep="\n"), soft_wrap=True)


def fail(text: str) -> None:
    """An error on stderr."""
    errors.print(printable(text), style="red", soft_wrap=True)


def printable(text: str, keep: str = "") -> str:
    """`text` with backslash escapes for what a terminal would obey or cannot show, such as control characters in names
    of files."""
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def plain_errors(extra: str = "train") -> Iterator[None]:
    """A user's mistake is one sentence and exit code 2, not a traceback; `extra` is what the verb needs installed."""
    try:
        yield
    except CanthusError as error:
        fail(f"canthus: {error}")
        raise typer.Exit(2) from error
    except ModuleNotFoundError as error:
        module = (error.name or "canthus").split(".")[0]
        if module == "canthus":
            raise
        fail(f"canthus: '{module}' is not installed; to get it, run: {pip_install(EXTRA_OF.get(module, extra))}")
        raise typer.Exit(2) from error


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGTERM, SIGHUP and Ctrl-C leave the block as errors do, so that unfinished files are removed; then a line on
    stderr names them, and the exit code is 128 + their number. A second signal ends the program at once.

    A signal that is ignored, as SIGHUP is under nohup, stays ignored.
    """
    names = [name for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name)]  # Windows has no SIGHUP
    numbers = [n for n in map(signal.Signals.__getitem__, names) if signal.getsignal(n) not in (signal.SIG_IGN, None)]
    caught: list[str] = []

    def stop(number: int, _: Any) -> None:
        caught.append(signal.Signals(number).name)
        for each in numbers:
            signal.signal(each, signal.SIG_DFL)
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # only it can have handlers
        yield
        return
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    except BaseException as error:  # compiled modules that are stopped while imported turn it into an ImportError
        if not caught:
            raise
        fail(f"canthus: stopped by {caught[0]}; finished results are kept")
        raise SystemExit(128 + signal.Signals[caught[0]]) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def progress(verb: str) -> Iterator[Update]:
    """Gives `update(completed, total=None, note="")`, shown as a bar on a terminal.

    Elsewhere a plain line is printed every ten seconds, and one at the end.
    """
    if not log.isEnabledFor(logging.WARNING):
        yield lambda completed, total=None, note="": None
    elif errors.is_terminal:
        columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}")
        with Progress(TextColumn(verb), *columns, console=errors) as bar:
            task = bar.add_task("", total=None, note="")

            def update(completed: int, total: int | None = None, note: str = "") -> None:
                if completed < bar.tasks[0].completed or total != bar.tasks[0].total:  # another file, or a resumed run
                    bar.reset(task, total=total, completed=completed, note=note)
                    bar.tasks[0].total = total
                else:
                    bar.update(task, completed=completed, note=note)

            yield update
    else:
        text, shown, next_time = "", "", time.monotonic() + PLAIN_INTERVAL

        def show() -> None:
            nonlocal shown
            if text != shown:
                errors.print(text, soft_wrap=True)
                shown = text

        def line(completed: int, total: int | None = None, note: str = "") -> None:
            nonlocal text, next_time
            text = f"{verb}: {completed}, {note}" if total is None else f"{verb}: {completed}/{total} {note}"
            text = text.rstrip(", ")
            if time.monotonic() >= next_time:
                show()
                next_time = time.monotonic() + PLAIN_INTERVAL

        yield line
        show()


def print_table(title: str, columns: Mapping[str, Justify], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout, of columns by name: as wide as the terminal, `WIDE` columns where there is none."""
    table = Table(title=title or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for number, (name, side) in enumerate(columns.items()):
        table.add_column(name, justify=side, no_wrap=number == 0)
    for row in rows:
        table.add_row(*row)
    width = None if console.is_terminal else max(console.width, WIDE)
    Console(width=width, markup=False, highlight=False).print(table)
