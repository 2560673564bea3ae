"""An application on a port, until a signal comes."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from canthus.errors import CanthusError

DRAIN_SECONDS = 60  # that requests under way have to end, after a signal


def serve(
    app: FastAPI, host: str, port: int, *, limit_concurrency: int, verbose: bool, started: Callable[[str], None]
) -> None:
    """Serve `app` at host:port, port 0 being any free one, until SIGINT or SIGTERM; then finish what is under way.

    `started` gets the address. Connections beyond `limit_concurrency` are answered with 503. Raises `CanthusError`
    for an address that cannot be used.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(address, family=family, backlog=2048)
    except (OSError, OverflowError, UnicodeError) as error:
        raise CanthusError(
            f"got the address {host}:{port}, which cannot be opened ({error}), want a free one"
        ) from error
    config = uvicorn.Config(
        app,
        log_level="info" if verbose else "warning",
        limit_concurrency=limit_concurrency,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        server_header=False,
    )
    server = uvicorn.Server(config)
    with listener:
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        started(f"http://{shown}:{listener.getsockname()[1]}")
        try:
            server.run([listener])
        except SystemExit:
            if not server.started:  # otherwise it is the signal again, after all that was under way has ended
                raise
