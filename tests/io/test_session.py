"""Opening network files: what ONNX Runtime is told, seen by what it does."""

from __future__ import annotations

import time

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from onnx import helper  # noqa: E402

from canthus.io.session import open_session  # noqa: E402

NODES = 2000


def test_opening_does_not_grow_with_the_square_of_the_nodes(tmp_path):
    """Tensors of so many sizes that none takes the memory of another, which the runtime's planner finds out by
    comparing each with all those before it."""
    names = ["x", *(f"y{k}" for k in range(NODES))]
    nodes = [helper.make_node("Concat", [a, "x"], [b], axis=1) for a, b in zip(names, names[1:])]
    given, told = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", width])
        for name, width in ((names[0], 1), (names[-1], NODES + 1))
    )
    graph = helper.make_graph(nodes, "chain", [given], [told])
    path = tmp_path / "chain.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    planned = ort.SessionOptions()
    planned.intra_op_num_threads = 1
    began = time.process_time()
    ort.InferenceSession(str(path), planned, providers=["CPUExecutionProvider"])
    middle = time.process_time()
    session = open_session(path, threads=1)
    ended = time.process_time()
    assert ended - middle < (middle - began) / 2
    np.testing.assert_array_equal(session.run(None, {"x": np.ones((2, 1), np.float32)})[0], np.ones((2, NODES + 1)))
