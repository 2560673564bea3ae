"""Faces over the network: packets as a plain reader of OSC 1.0 and of JSON finds them."""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import replace

import numpy as np
import pytest
from shapes import made_up_faces

from canthus.errors import VideoError
from canthus.face.expressions import EXPRESSIONS
from canthus.io.columns import ImageFaces
from canthus.io.send import LARGEST, Sender, osc, vmc_packets


def image(count: int = 2) -> ImageFaces:
    faces = made_up_faces([(10.0, 20.0 * k, -5.0) for k in range(count)])
    expression = np.tile(np.linspace(0, 1, 52), (count, 1))
    faces = replace(faces, expression=expression)
    return ImageFaces("0", 5, 0.2, faces, np.arange(count)[::-1])


def read(message: bytes) -> tuple:
    """Address and values of an OSC message, byte by byte as the specification has it."""

    def text(at: int) -> tuple[str, int]:
        end = message.index(b"\0", at)
        return message[at:end].decode(), (end // 4 + 1) * 4

    address, at = text(0)
    tags, at = text(at)
    values = []
    for tag in tags[1:]:
        if tag == "s":
            value, at = text(at)
        else:
            (value,), at = struct.unpack(">f" if tag == "f" else ">i", message[at : at + 4]), at + 4
        values.append(value)
    assert at == len(message)
    return address, *values


def test_an_osc_message_by_hand():
    # "/ab" and a zero; ",is" and a zero; 258 = 0x0102; "abcd" is four bytes, so its zero takes four more
    assert osc("/ab", 258, "abcd") == b"/ab\0,is\0\0\0\1\2abcd\0\0\0\0"


def test_vmc_has_the_head_and_the_expressions_of_the_first_face():
    (packet,) = vmc_packets(image())
    assert packet[:16] == b"#bundle\0" + struct.pack(">Q", 1)
    messages, at = [], 16
    while at < len(packet):
        (length,) = struct.unpack(">i", packet[at : at + 4])
        messages.append(read(packet[at + 4 : at + 4 + length]))
        at += 4 + length
    assert messages[0] == ("/VMC/Ext/OK", 1) and messages[-1] == ("/VMC/Ext/Blend/Apply",)
    w, x, y, z = image().faces.pose.quaternion[1]  # the face whose number is 0
    assert messages[1][:5] == ("/VMC/Ext/Bone/Pos", "Head", 0.0, 0.0, 0.0)
    assert messages[1][5:] == pytest.approx((x, -y, -z, w), abs=1e-6)
    assert [m[1] for m in messages[2:-1]] == list(EXPRESSIONS)
    assert [m[2] for m in messages[2:-1]] == pytest.approx(np.linspace(0, 1, 52).tolist(), abs=1e-6)
    assert vmc_packets(image(0)) == []


@pytest.fixture
def receiver():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        one.settimeout(10)
        yield one


def test_json_arrives(receiver):
    with Sender(f"udp://127.0.0.1:{receiver.getsockname()[1]}") as send:
        send(image())
        send(image(20))  # more than a packet holds
    first, second = (receiver.recv(LARGEST + 1) for _ in range(2))
    told = json.loads(first)
    assert told["frame"] == 5 and [face["id"] for face in told["faces"]] == [1, 0]
    assert 5 < len(json.loads(second)["faces"]) < 20


def test_another_implementation_of_osc_understands_vmc():
    pytest.importorskip("pythonosc")
    from pythonosc.dispatcher import Dispatcher
    from pythonosc.osc_server import BlockingOSCUDPServer

    heard: list[tuple] = []
    dispatcher = Dispatcher()
    dispatcher.set_default_handler(lambda address, *values: heard.append((address, *values)))
    with BlockingOSCUDPServer(("127.0.0.1", 0), dispatcher) as server:
        server.timeout = 10
        with Sender(f"vmc://127.0.0.1:{server.server_address[1]}") as send:
            send(image())
        server.handle_request()
    assert heard[0] == ("/VMC/Ext/OK", 1) and heard[-1] == ("/VMC/Ext/Blend/Apply",)
    (bone,) = (h for h in heard if h[0] == "/VMC/Ext/Bone/Pos")
    w, x, y, z = image().faces.pose.quaternion[1]
    assert bone[1] == "Head" and bone[5:] == pytest.approx((x, -y, -z, w), abs=1e-6)
    values = {h[1]: h[2] for h in heard if h[0] == "/VMC/Ext/Blend/Val"}
    assert values == pytest.approx(dict(zip(EXPRESSIONS, np.linspace(0, 1, 52))), abs=1e-6)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:9", "tcp://a:1", "udp://a", "udp://a:0", "vmc://a:99999", "udp://no.such.host.invalid:1"]
)
def test_other_addresses_are_refused(address):
    with pytest.raises(VideoError, match="to send to"):
        Sender(address)
