"""`canthus serve` under load on this machine's loopback: 1, 8 and 32 clients, each with a photo of its own.

    python benchmarks/serve.py [--seconds 6]

Every client has one connection, sends its photo (the example photo, cut differently for each client) again and again,
and compares the answer with what the package says of it: a face more than 0.1 px away is *mixed up*, a request without
an answer *lost*. Beside them, all the time, others send what is no image, photos that are cut off, and photos that
arrive in 20 pieces within 2 seconds; and some go in the middle of a request. Timed is a request of the orderly clients,
from sending to the parsed answer; requests a second are theirs. Memory is what the server's process holds after each
stage. At last a clip of 60 frames is tracked, and the server is told to end while 8 requests are under way.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import common
import numpy as np
from PIL import Image

import canthus

PHOTO = Path(__file__).parents[1] / "examples" / "astronaut.jpg"
CLIENTS = 1, 8, 32
FRAMES = 60
JPEG = {"Content-Type": "image/jpeg"}


def photos(count: int) -> tuple[list[bytes], list[np.ndarray]]:
    """Photos as files, each cut elsewhere and so of a size of its own, and the points (68,2) of the face in them."""
    picture, aligner = Image.open(PHOTO).convert("RGB"), canthus.load(threads=1)
    files, points = [], []
    for k in range(count):
        data = io.BytesIO()
        picture.crop((k, 2 * (k % 16), 512 - k, 512)).save(data, "JPEG", quality=90)
        files.append(data.getvalue())
        points.append(aligner.predict(data.getvalue()).xy[0])
    return files, points


class Load:
    """What clients of the server at an address see, until `end`, a time of `time.perf_counter`."""

    def __init__(self, address: str, end: float):
        self.address, self.end = address, end
        self.times: list[float] = []
        self.seen: Counter[str] = Counter()
        self.lock = threading.Lock()

    def count(self, what: str) -> None:
        with self.lock:
            self.seen[what] += 1

    def orderly(self, photo: bytes, points: np.ndarray) -> None:
        """One client on one connection."""
        connection = http.client.HTTPConnection(self.address, timeout=60)
        while time.perf_counter() < self.end:
            began = time.perf_counter()
            self.count("sent")
            try:
                connection.request("POST", "/align", photo, JPEG)
                answer = connection.getresponse()
                body = answer.read()
            except OSError:
                self.count("lost")
                connection.close()
                continue
            if answer.status != 200:
                self.count(str(answer.status))
                continue
            faces = json.loads(body)["faces"]
            with self.lock:
                self.times.append(1000 * (time.perf_counter() - began))
            right = len(faces) == 1 and np.abs(np.array(faces[0]["landmarks"])[:, :2] - points).max() < 0.1
            self.count("right" if right else "mixed up")
        connection.close()

    def malformed(self, photo: bytes) -> None:
        """What no server likes; each is to get its own refusal."""
        requests = [(b"no image", JPEG, 415), (photo[:5000], JPEG, 422), (photo, {"Content-Type": "text/x"}, 415)]
        while time.perf_counter() < self.end:
            for body, headers, wanted in requests:
                connection = http.client.HTTPConnection(self.address, timeout=60)
                connection.request("POST", "/align", body, headers)
                status = connection.getresponse().status
                connection.close()
                self.count("malformed, refused as they should" if status == wanted else f"malformed, {status}")
            time.sleep(0.3)

    def slow(self, photo: bytes) -> None:
        """A photo in 20 pieces, 2 seconds long."""
        while time.perf_counter() < self.end:
            with self._begun(photo) as raw:
                for piece in range(20):
                    raw.sendall(photo[len(photo) * piece // 20 : len(photo) * (piece + 1) // 20])
                    time.sleep(0.1)
                answer = raw.recv(100)
                self.count("slow, answered" if answer.startswith(b"HTTP/1.1 200") else "slow, not answered")

    def gone(self, photo: bytes) -> None:
        """Clients that go, some with half of the photo sent, some without waiting for the answer."""
        while time.perf_counter() < self.end:
            for part in (len(photo) // 2, len(photo)):
                with self._begun(photo) as raw:
                    raw.sendall(photo[:part])
                self.count("gone")
            time.sleep(1.0)

    def _begun(self, photo: bytes) -> socket.socket:
        host, port = self.address.split(":")
        raw = socket.create_connection((host, int(port)), timeout=60)
        head = (
            f"POST /align HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(photo)}\r\n\r\n"
        )
        raw.sendall(head.encode())
        return raw


def memory(process: int) -> float | None:
    """Megabytes that a process holds; None where the system does not say."""
    status = Path(f"/proc/{process}/status")
    if not status.exists():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return round(int(line.split()[1]) / 1000, 1)


def stage(address: str, clients: int, seconds: float, files: list[bytes], points: list[np.ndarray]) -> dict[str, Any]:
    """What so many orderly clients see, with the others beside them."""
    began = time.perf_counter()
    load = Load(address, began + seconds)
    with ThreadPoolExecutor(clients + 4) as pool:
        others = [pool.submit(kind, files[0]) for kind in (load.malformed, load.slow, load.slow, load.gone)]
        orderly = [pool.submit(load.orderly, files[k], points[k]) for k in range(clients)]
        for job in orderly:
            job.result()
        taken = time.perf_counter() - began
        for job in others:
            job.result()
    p50, p95, p99 = np.percentile(load.times, [50, 95, 99]).round(1).tolist()
    rate = round(len(load.times) / taken, 1)
    return {"p50 ms": p50, "p95 ms": p95, "p99 ms": p99, "requests/s": rate, "answers": dict(sorted(load.seen.items()))}


def clip(address: str) -> float:
    """Frames a second of a clip, from sending to the whole answer."""
    picture, data = Image.open(PHOTO).convert("RGB"), io.BytesIO()
    frames = [picture.crop((k % 20, 0, 400 + k % 20, 400)) for k in range(FRAMES)]
    frames[0].save(data, "GIF", save_all=True, append_images=frames[1:], duration=40)
    connection, began = http.client.HTTPConnection(address, timeout=120), time.perf_counter()
    connection.request("POST", "/track", data.getvalue(), {"Content-Type": "image/gif"})
    answer = json.loads(connection.getresponse().read())
    taken = time.perf_counter() - began
    assert [[face["id"] for face in frame["faces"]] for frame in answer["frames"]] == [[0]] * FRAMES
    return round(FRAMES / taken, 1)


def drained(server: subprocess.Popen[str], address: str, photo: bytes) -> dict[str, Any]:
    """How requests under way end when the server is told to."""

    def ask() -> int:
        connection = http.client.HTTPConnection(address, timeout=60)
        connection.request("POST", "/align", photo, JPEG)
        asked.release()
        return connection.getresponse().status

    asked = threading.Semaphore(0)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask) for _ in range(8)]
        for _ in answers:
            asked.acquire()
        time.sleep(0.02)  # so that all have been accepted
        server.terminate()
        statuses = Counter(str(answer.result()) for answer in answers)
    return {"requests": dict(statuses), "exit code": server.wait(60)}


def main() -> None:
    """Start the server, ask, print and write serve.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of each stage")
    seconds = parser.parse_args().seconds
    files, points = photos(max(CLIENTS))
    results: dict[str, Any] = {"seconds": seconds, "photo": PHOTO.name, "load before": round(os.getloadavg()[0], 1)}
    command = [sys.executable, "-m", "canthus", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = urlsplit(server.stdout.readline().split()[0]).netloc
            stage(address, 1, 1.0, files, points)  # warm
            results["memory MB at first"] = memory(server.pid)
            results["clients"] = {}
            for clients in CLIENTS:
                row = stage(address, clients, seconds, files, points) | {"memory MB": memory(server.pid)}
                results["clients"][str(clients)] = row
                print(clients, row)
            results["clip frames/s"] = clip(address)
            results["memory MB after the clip"] = memory(server.pid)
            results["drained"] = drained(server, address, files[0])
            print({name: value for name, value in results.items() if name != "clients"})
        finally:
            server.terminate()
    common.write("serve", results)


if __name__ == "__main__":
    main()
