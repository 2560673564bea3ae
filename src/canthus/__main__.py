"""`canthus` and `python -m canthus`."""

from __future__ import annotations

import os
import signal
from typing import Any


def main() -> None:
    """Run the command line. Ctrl-C before a verb has begun ends the program with one line, as it does later."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # ignored in jobs in the background: stays so
        signal.signal(signal.SIGINT, _stop)
    from canthus.cli import app  # takes most of a second

    app()


def _stop(number: int, _: Any) -> None:
    # no exception, as modules being imported may swallow it; nothing is begun that would need to be cleaned up
    os.write(2, b"canthus: stopped by SIGINT\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
