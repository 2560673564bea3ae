"""Faces over the network, frame by frame, by UDP: JSON lines, or the VMC protocol that programs for avatars understand.

Nothing waits for an answer. The VMC protocol (https://protocol.vmc.info) is OSC 1.0 messages.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from canthus.errors import VideoError
from canthus.face.expressions import EXPRESSIONS
from canthus.io.columns import ImageFaces
from canthus.io.lines import frame_line

LARGEST = 65_507  # bytes of a UDP packet


class Sender:
    """Sends frames to an address: udp://HOST:PORT gets each frame as a packet with its line of JSON (`io.lines`),
    vmc://HOST:PORT the head and the expressions of the face with the lowest number. A context that closes the socket.

    Raises `VideoError` for another address.
    """

    def __init__(self, address: str):
        found = re.fullmatch(r"(udp|vmc)://([^/:]+|\[[^]/]+\]):(\d{1,5})", address)
        if not found or not 0 < int(found[3]) < 65536:
            raise VideoError(f"got the address '{address}' to send to, want udp://HOST:PORT or vmc://HOST:PORT")
        self._packets = _json if found[1] == "udp" else vmc_packets
        try:
            host = found[2].strip("[]")
            family, kind, protocol, _, to = socket.getaddrinfo(host, int(found[3]), type=socket.SOCK_DGRAM)[0]
        except OSError as error:
            raise VideoError(f"got the address '{address}' to send to, whose host is unknown ({error})") from error
        self._to: Any = to
        self._socket = socket.socket(family, kind, protocol)

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def __call__(self, image: ImageFaces) -> None:
        """Send a frame. Raises `VideoError` where it cannot be sent."""
        try:
            for packet in self._packets(image):
                self._socket.sendto(packet, self._to)
        except OSError as error:
            raise VideoError(f"could not send frame {image.frame} to {self._to[0]}:{self._to[1]} ({error})") from error


def _json(image: ImageFaces) -> list[bytes]:
    """The line of a frame, with as many faces as a packet holds, those of the lowest numbers."""
    for count in range(len(image.ids), -1, -1):
        some = image._replace(faces=image.faces[:count], ids=image.ids[:count], followed=None, blinking=None)
        line = frame_line(some)
        if len(line) <= LARGEST:
            return [line]
    return []


def vmc_packets(image: ImageFaces) -> list[bytes]:
    """The packets of a frame for VMC: one bundle with the turn of the bone Head and the expressions by ARKit's names;
    none without a face.

    Its frame is Unity's, left-handed: x to the avatar's right, y up, z out of the face, so x is mirrored.
    """
    if not len(image.ids):
        return []
    face = image.faces[int(np.argmin(image.ids))]
    w, x, y, z = face.pose.quaternion[0].tolist()
    messages = [osc("/VMC/Ext/OK", 1), osc("/VMC/Ext/Bone/Pos", "Head", 0.0, 0.0, 0.0, x, -y, -z, w)]
    for name, value in zip(EXPRESSIONS, np.nan_to_num(face.expression[0]).tolist()):
        messages.append(osc("/VMC/Ext/Blend/Val", name, value))
    messages.append(osc("/VMC/Ext/Blend/Apply"))
    return [bundle(messages)]


def osc(address: str, *values: str | float | int) -> bytes:
    """A message of OSC 1.0: an address and texts, floats and whole numbers of 32 bits."""
    tags, data = ",", b""
    for value in values:
        if isinstance(value, str):
            tags, data = tags + "s", data + _text(value)
        elif isinstance(value, int):
            tags, data = tags + "i", data + struct.pack(">i", value)
        else:
            tags, data = tags + "f", data + struct.pack(">f", value)
    return _text(address) + _text(tags) + data


def bundle(messages: Sequence[bytes]) -> bytes:
    """OSC messages in one packet, to be carried out at once."""
    return _text("#bundle") + struct.pack(">Q", 1) + b"".join(struct.pack(">i", len(m)) + m for m in messages)


def _text(text: str) -> bytes:
    """A text of OSC: ended by a zero byte and filled up to a multiple of four."""
    data = text.encode() + b"\0"
    return data + b"\0" * (-len(data) % 4)
