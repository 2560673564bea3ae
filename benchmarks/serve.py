"""Latency of `canthus serve` on this machine: the bundled photo, sent again and again by 1, 8 and 32 clients."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import common
import numpy as np

PHOTO = Path(__file__).parents[1] / "examples" / "astronaut.jpg"
CLIENTS = 1, 8, 32
SECONDS = 6.0


def times(address: str, until: float) -> list[float]:
    """Milliseconds of each request of one client, on one connection, until a time of `time.perf_counter`."""
    connection, photo, taken = http.client.HTTPConnection(address, timeout=60), PHOTO.read_bytes(), []
    while time.perf_counter() < until:
        began = time.perf_counter()
        connection.request("POST", "/align", photo, {"Content-Type": "image/jpeg"})
        answer = connection.getresponse()
        body = answer.read()
        taken.append(1000 * (time.perf_counter() - began))
        assert answer.status == 200 and len(json.loads(body)["faces"]) == 1, answer.status
    connection.close()
    return taken


def main() -> None:
    """Start the server, ask, print and write serve.json."""
    command = [sys.executable, "-m", "canthus", "serve", "--port", "0"]
    rows = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = urlsplit(server.stdout.readline().split()[0]).netloc
            times(address, time.perf_counter() + 1)  # warm
            for clients in CLIENTS:
                with ThreadPoolExecutor(clients) as pool:
                    until = time.perf_counter() + SECONDS
                    taken = np.concatenate(list(pool.map(times, [address] * clients, [until] * clients)))
                p50, p95 = np.percentile(taken, [50, 95]).round(1).tolist()
                rows[str(clients)] = {"p50 ms": p50, "p95 ms": p95, "requests/s": round(len(taken) / SECONDS, 1)}
                print(clients, rows[str(clients)])
        finally:
            server.terminate()
    common.write("serve", {"clients": rows, "seconds": SECONDS, "photo": PHOTO.name})


if __name__ == "__main__":
    main()
