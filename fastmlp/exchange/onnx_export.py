"""A network as an ONNX graph: what a prediction computes, in plain operators."""

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import io
from .._files import replace_file
from ..activations import Activation
from ..norms import BatchNorm, LayerNorm
from . import formulas
from .expressions import Array, Operand, Operator, op
from .extra import import_onnx

if TYPE_CHECKING:
    from onnx import ModelProto

    from ..mlp import MLP

__all__ = ["to_onnx"]

OPSET, IR_VERSION = 13, 7  # of 2020: ONNX Runtime 1.6 and all that is as old reads them
LARGEST = 2**31 - 2**20  # bytes of parameters: a protobuf has at most 2**31


def to_onnx(net: "MLP", path: str | os.PathLike[str]) -> None:
    """Write what a network predicts as an ONNX file, whole or not at all.

    The graph takes "X" [n, layer_sizes[0]] of the network's dtype, for any n, and gives

    ===================== ================================================================
    loss                  outputs
    ===================== ================================================================
    softmax_cross_entropy "label" int64 [n], "probabilities" [n, K], "logits" [n, K]
    binary_cross_entropy  "label" int64 [n], "probabilities" [n, 2], "logits" [n, 1]; of
                          several labels "label", "probabilities" and "logits" are [n, O]
    poisson               "prediction" [n, O], the means exp(z)
    others                "prediction" [n, O]
    ===================== ================================================================

    which are `MLP.predict`, `predict_proba` and `decision_function`. Dropout is not in it, and
    batch norm has its running statistics. It is of opset 13, without operators of one runtime's
    own. The file's metadata are those of the network; with what the entry "fastmlp" says of it,
    `MLP.from_onnx` gives the same network back, bit for bit.

    Parameters
    ----------
    net
        The network.
    path
        The file to create or replace; ``.onnx`` is the usual ending.

    Raises
    ------
    ImportError
        The package onnx is missing: ``pip install "fastmlp[onnx]"``.
    ValueError
        A parameter is NaN or infinite, a running variance negative, or all together are more than
        the 2 GiB that an ONNX file can hold.
    TypeError
        ``net.metadata`` is not a dictionary of strings.
    OSError
        The file cannot be written.

    References
    ----------
    Operators: https://onnx.ai/onnx/operators/

    Examples
    --------
    >>> import tempfile
    >>> import fastmlp as fm
    >>> net = fm.MLP([4, 8, 3], activation="gelu", norm="layer", seed=7)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     net.to_onnx(f"{folder}/net.onnx")
    ...     fm.MLP.from_onnx(f"{folder}/net.onnx")
    MLP([4, 8, 3], activation=['gelu'], loss='softmax_cross_entropy', \
norm=[LayerNorm(epsilon=1e-05)], dtype='float32', seed=7)
    """
    replace_file(path, model_of(net).SerializeToString(deterministic=True))


def model_of(net: "MLP") -> "ModelProto":
    """Return the network as an ONNX model, see `to_onnx`; a scale of its inputs in its weights."""
    onnx = import_onnx("to_onnx")
    net = net.fold_input_scale()
    header = io.header_of(net)
    if net.theta.nbytes > LARGEST:
        raise ValueError(
            f"an ONNX file holds at most 2 GiB, the parameters have {net.theta.nbytes:,} bytes"
        )
    graph = _Graph(net)
    outputs = graph.outputs()
    model: ModelProto = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "fastmlp",
            [graph.information("X", net.dtype, (net.layer_sizes[0],))],
            [graph.information(name, dtype, shape) for name, (dtype, shape) in outputs.items()],
            [onnx.numpy_helper.from_array(a, name) for name, a in graph.constants.items()],
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="fastmlp",
    )
    metadata = {**net.metadata, io.HEADER_KEY: header}
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    return model


class _Graph:
    """Nodes and constants of a network's graph; a value is the name of the tensor it is in."""

    def __init__(self, net: "MLP") -> None:
        self.net = net
        self.onnx = import_onnx("to_onnx")
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {
            tensor.name: np.ascontiguousarray(values) for tensor, values in io.tensors_of(net)
        }
        self._names: dict[Any, str] = {}  # of what has been written

    def outputs(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Write all layers; return dtype and shape of a row, by name, of what they give."""
        net, loss, last = self.net, self.net.loss.name, len(self.net.layer_sizes) - 2
        dtype, label, width = net.dtype, np.dtype(np.int64), (net.layer_sizes[-1],)
        a = "X"
        for layer in range(last):
            a = self._hidden(a, layer)
        if not net.is_classifier:
            z = self._sums(a, last, "log_means" if loss == "poisson" else "prediction")
            if loss == "poisson":
                self.write(op("Exp", z), "prediction")
            return {"prediction": (dtype, width)}
        z = self._sums(a, last, "logits")
        labels: tuple[int, ...] = ()
        if loss == "softmax_cross_entropy":
            self.write(op("Softmax", z, axis=-1), "probabilities")
            self.write(op("ArgMax", z, axis=-1, keepdims=0), "label")
            shape = width
        else:
            is_one = width == (1,)
            both = op("Concat", op("Neg", z), z, axis=-1) if is_one else z
            answers = op("Cast", op("Greater", z, 0.0), to=self.onnx.TensorProto.INT64)
            self.write(op("Sigmoid", both), "probabilities")
            self.write(op("Reshape", answers, np.array([-1])) if is_one else answers, "label")
            shape, labels = ((2,), ()) if is_one else (width, width)
        return {"label": (label, labels), "probabilities": (dtype, shape), "logits": (dtype, width)}

    def _sums(self, a: str, layer: int, name: str) -> str:
        weight, bias = f"layers.{layer}.weight", f"layers.{layer}.bias"
        return self.write(op("Gemm", a, weight, bias), name)

    def _hidden(self, a: str, layer: int) -> str:
        name, activation = f"layers.{layer}", self.net.activation[layer]
        z = self._sums(a, layer, f"{name}.sums")
        norm = self.net.norm[layer]
        if norm is not None:
            z = self.write(self._norm(norm, z, name), f"{name}.normed")
        return self.write(self._activation(activation, z, name), f"{name}.output")

    def _norm(self, norm: BatchNorm | LayerNorm, u: str, layer: str) -> Operand:
        gain, shift = f"{layer}.gain", f"{layer}.shift"
        if isinstance(norm, LayerNorm):
            statistics = formulas.layer_mean(u), formulas.layer_variance(u)
            return formulas.normed(u, *statistics, norm.epsilon, gain, shift)
        mean, variance = f"{layer}.running_mean", f"{layer}.running_variance"
        if self.net.dtype == np.float64:  # an attribute would round epsilon to float32
            return formulas.normed(u, mean, variance, norm.epsilon, gain, shift)
        return op("BatchNormalization", u, gain, shift, mean, variance, epsilon=norm.epsilon)

    def _activation(self, activation: Activation, z: str, layer: str) -> Operand:
        is_double = self.net.dtype == np.float64
        table = formulas.WRITTEN_DOUBLE if is_double else formulas.WRITTEN
        is_learnt = activation.name == "prelu"
        parameter = f"{layer}.slope" if is_learnt else activation.alpha or 0.0
        return table[activation.name](z, parameter)

    def write(self, value: Operand, name: str = "") -> str:
        """Return the name of the tensor that holds the value, written if it is new."""
        if isinstance(value, str):
            return value
        if not isinstance(value, Operator):
            array = np.asarray(value, None if isinstance(value, np.ndarray) else self.net.dtype)
            constant = f"constant_{array.tolist()}"
            self.constants[constant] = array
            return constant
        inputs = tuple(self.write(operand) for operand in value.operands)
        key = (value.kind, inputs, repr(value.attributes))
        if key not in self._names:
            self._names[key] = name or f"{value.kind}_{len(self.nodes)}"
            node = self.onnx.helper.make_node(
                value.kind, inputs, [self._names[key]], self._names[key], **value.attributes
            )
            self.nodes.append(node)
        return self._names[key]

    def information(self, name: str, dtype: np.dtype[Any], row: tuple[int, ...]) -> Any:
        """Describe an input or output with any number of rows."""
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(dtype)
        return self.onnx.helper.make_tensor_value_info(name, kind, ["n", *row])
