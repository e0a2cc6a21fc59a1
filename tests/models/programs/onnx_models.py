"""ONNX files for tests, made by the onnx library: a small classifier, and what a hostile one needs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.models.programs.files import CHANNELS, CLASSES, SIDE, Small


def model(network: Small, batch: int | str = "batch") -> Any:
    """Return the graph of a network in evaluation mode, of a number of images or of any."""
    weights = {name: one.numpy() for name, one in network.state_dict().items() if one.ndim}
    shape = [batch, CHANNELS, SIDE, SIDE]
    norm = [f"bn.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
    nodes = [
        helper.make_node("Conv", ["images", "conv.weight", "conv.bias"], ["a"], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["a", *norm], ["b"], epsilon=1e-5),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "fc.weight", "fc.bias"], ["scores"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, CLASSES])],
        [numpy_helper.from_array(np.ascontiguousarray(one), name) for name, one in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def onnx_file(network: Small, change: Callable[[Any], object] = lambda model: None, **options: Any) -> bytes:
    """Return the bytes of a network's graph, changed in place."""
    made = model(network, **options)
    change(made)
    data: bytes = made.SerializeToString()
    return data


def outside(tensor: Any, location: str) -> None:
    """Let a tensor be kept in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "4")):
        tensor.external_data.add(key=key, value=value)
