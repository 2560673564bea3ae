"""Servers of live video on this machine: MJPEG by HTTP, as cameras in local networks serve it, and RTSP."""

from __future__ import annotations

import io
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
from PIL import Image

RATE = 25
Picture = Callable[[int], np.ndarray]  # of a number


class Live:
    """Serves one client; `sent`: how many pictures went out. `left`: whether the client has."""

    def __init__(self, picture: Picture, serve: Callable[[Live, socket.socket], None]):
        self.picture, self.sent, self.left = picture, 0, False
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def pictures(self) -> Iterator[np.ndarray]:
        """Pictures at their times, until the client leaves."""
        start = time.perf_counter()
        while not self.left:
            time.sleep(max(0.0, start + self.sent / RATE - time.perf_counter()))
            yield self.picture(self.sent)
            self.sent += 1

    def _run(self) -> None:
        with suppress(OSError):  # the client has left
            client, _ = self._listener.accept()
            with client:
                self._serve(self, client)

    def close(self) -> None:
        """Ends with the client's connection."""
        self._listener.close()
        self._thread.join(20)


@contextmanager
def mjpeg(picture: Picture) -> Iterator[tuple[Live, str]]:
    """A server and its address."""

    def serve(live: Live, client: socket.socket) -> None:
        client.recv(65536)
        client.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")
        for image in live.pictures():
            file = io.BytesIO()
            Image.fromarray(image).save(file, "JPEG", quality=90)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {file.tell()}\r\n\r\n"
            client.sendall(head.encode() + file.getvalue() + b"\r\n")

    live = Live(picture, serve)
    try:
        yield live, f"http://127.0.0.1:{live.port}/video"
    finally:
        live.close()


@contextmanager
def rtsp(picture: Picture) -> Iterator[tuple[Live, str]]:
    """A server and its address: RFC 2326 over one TCP connection, an MPEG transport stream in RTP (RFC 2250)."""

    def serve(live: Live, client: socket.socket) -> None:
        asked = client.makefile("rb")
        while True:
            request = b"".join(iter(asked.readline, b"\r\n")).decode()
            if not request:
                return
            method, number = request.split()[0], re.search(r"CSeq: *(\d+)", request, re.IGNORECASE)
            assert number is not None
            answer = {
                "OPTIONS": "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n\r\n",
                "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n\r\n",
                "PLAY": "Session: 1\r\n\r\n",
            }.get(method, "\r\n")
            if method == "DESCRIBE":
                told = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=test\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:0\r\n"
                answer = f"Content-Type: application/sdp\r\nContent-Length: {len(told)}\r\n\r\n{told}"
            client.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {number[1]}\r\n{answer}".encode())
            if method == "PLAY":
                break
        _send_rtp(live, client)

    live = Live(picture, serve)
    try:
        yield live, f"rtsp://127.0.0.1:{live.port}/live"
    finally:
        live.close()


def _send_rtp(live: Live, client: socket.socket) -> None:
    import av

    class Packets:
        """What a muxer writes, as RTP packets of seven TS packets each."""

        def __init__(self) -> None:
            self.waiting, self.number = b"", 0

        def write(self, data: bytes) -> int:
            self.waiting += bytes(data)
            while len(self.waiting) >= 7 * 188:
                load, self.waiting = self.waiting[: 7 * 188], self.waiting[7 * 188 :]
                clock = int(live.sent / RATE * 90_000)
                head = struct.pack(">BBHII", 0x80, 33, self.number % 65536, clock % 2**32, 1)
                try:
                    client.sendall(b"$\0" + struct.pack(">H", len(head + load)) + head + load)
                except OSError:  # a muxer wants to write its end
                    live.left = True
                self.number += 1
            return len(data)

    with av.open(Packets(), "w", format="mpegts", options={"flush_packets": "1"}) as container:
        stream = container.add_stream("mpeg2video", rate=RATE)
        first = live.picture(0)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = 5, 0
        for image in live.pictures():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
