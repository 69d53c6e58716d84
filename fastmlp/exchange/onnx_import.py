"""A network from an ONNX graph: the formulas of layers are found in it, the last one first."""

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import io
from .._checks import check_path
from ..activations import Activation
from ..architecture import Architecture
from ..losses import Loss
from ..losses import resolve as resolve_loss
from ..norms import BatchNorm, LayerNorm
from . import formulas
from .chain import Chain
from .expressions import Array, Found, Operand, Operator, match, op
from .extra import errors_of_onnx, import_onnx

if TYPE_CHECKING:
    from onnx import ModelProto

    from ..mlp import MLP

__all__ = ["from_onnx"]

Value = Operator | Array
Step = Callable[[Chain, Found], None]
FLOATS = (formulas.SINGLE, formulas.DOUBLE)
DOMAINS = ("", "ai.onnx", "ai.onnx.ml")  # whose operators are known by their names alone
INPUT = "input"  # the kind of the operator that stands for the graph's input


def from_onnx(
    source: "str | os.PathLike[str] | ModelProto", *, loss: str | Loss | None = None
) -> "MLP":
    """Return the network that an ONNX file describes.

    It may be of any program, as long as it is a multilayer perceptron: ``Gemm``, or ``MatMul`` and
    ``Add``; all activations of `fastmlp.Activation`, as operators or written out as `to_onnx` and
    PyTorch do; ``BatchNormalization`` and ``LayerNormalization``; ``Scaler`` and ``Dropout``; last
    ``Softmax``, ``LogSoftmax``, ``Sigmoid``, ``Exp`` or ``ArgMax``, and what scikit-learn's
    converter adds to them. Labels are not looked at, nor by which rule they are chosen. A file of
    `to_onnx` gives the same network back, bit for bit; of another one the predictions are the same
    but for rounding.

    Parameters
    ----------
    source
        The file, or an ``onnx.ModelProto``.
    loss
        The loss of the network, which tells what its outputs mean. By default the graph does:
        "softmax_cross_entropy", "binary_cross_entropy" or "poisson" if it ends in a softmax, a
        sigmoid or an exponential, else "squared_error". A sigmoid at the end of a graph that has
        another loss is an activation.

    Returns
    -------
    MLP
        A network with the graph's metadata, and class names, if it has them, as ``class_names``.

    Raises
    ------
    ImportError
        The package onnx is missing: ``pip install "fastmlp[onnx]"``.
    ValueError
        The file is damaged, or holds something else. The message names the node that is not
        understood.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> import onnx.parser
    >>> graph = onnx.parser.parse_model('''
    ... <ir_version: 8, opset_import: ["": 13]>
    ... mlp (float[n, 2] x) => (float[n, 1] y)
    ... <float[2, 3] W = {1, 2, 3, 4, 5, 6}, float[3, 1] V = {1, 1, 1}, float[1] b = {0.5}>
    ... { z = MatMul(x, W)
    ...   a = Tanh(z)
    ...   y = Gemm(a, V, b) }''')
    >>> from_onnx(graph)
    MLP([2, 3, 1], activation=['tanh'], loss='squared_error', dtype='float32', seed=0)
    """
    onnx = import_onnx("from_onnx")
    model: Any = source if isinstance(source, onnx.ModelProto) else None
    name = "the model" if model is not None else repr(check_path(source, "source"))
    if model is None:
        with open(source, "rb"):  # a missing file is an OSError with its name
            pass
    try:
        return _network(onnx.load(source) if model is None else model, loss)
    except (ValueError, TypeError, *errors_of_onnx()) as error:
        raise ValueError(f"cannot load {name} as a network: {error}") from error


def _network(model: "ModelProto", loss: str | Loss | None) -> "MLP":
    wanted = None if loss is None else resolve_loss(loss)
    import_onnx("from_onnx").checker.check_model(model)
    graph = _Graph(model)
    head, value = graph.head(wanted)
    chain = Chain()
    for operator, step, found in _steps(value):
        try:
            step(chain, found)
        except ValueError as error:
            raise ValueError(f"{_name(operator)}: {error}") from None
    net = chain.network(wanted or Loss(head or "squared_error"))
    if graph.class_names:
        net.metadata["class_names"] = json.dumps(graph.class_names)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if io.HEADER_KEY in metadata:
        net = _described(net, metadata, head)
        net.loss = wanted or net.loss
        del metadata[io.HEADER_KEY]
    net.metadata.update(metadata)
    return net


def _described(net: "MLP", metadata: dict[str, str], head: str | None) -> "MLP":
    """The network with all that `to_onnx` said of it, or itself, if that is of another graph."""
    from ..mlp import MLP

    arguments = io.parse_header(metadata)
    texts = arguments.pop("metadata")
    names = ("layer_sizes", "activation", "norm", "dropout", "l2", "l1")
    architecture = Architecture.of(*(arguments[name] for name in names))
    loss = arguments["loss"].name
    if (
        _outline(architecture) != _outline(net.architecture)
        or arguments["dtype"] != net.dtype.name
        or (loss if loss in HEADS else None) != head
    ):
        return net
    described = MLP(**arguments, initializer="zeros")
    described.theta[...], described.running[...] = net.theta, net.running
    described.metadata.update(texts)
    return described


def _outline(architecture: Architecture) -> list[Any]:
    """What a graph shows of an architecture, numbers as float32."""
    hidden = zip(
        architecture.sizes[1:-1], architecture.activations, architecture.norms, strict=True
    )
    return [architecture.sizes] + [
        (
            f.name,
            f.per_unit and units > 1,
            f.name != "prelu" and np.float32(f.alpha or 0.0),
            type(norm),
            np.float32(norm.epsilon if norm else 0.0),
        )
        for units, f, norm in hidden
    ]


class _Graph:
    """The values of a graph: constants as arrays, what depends on the input as operators."""

    def __init__(self, model: "ModelProto") -> None:
        self.onnx = import_onnx("from_onnx")
        self.graph = model.graph
        self.versions = {opset.domain: opset.version for opset in model.opset_import}
        self.class_names: list[str] = []
        to_array = self.onnx.numpy_helper.to_array
        self.values: dict[str, Value] = {c.name: to_array(c) for c in self.graph.initializer}
        inputs = [i for i in self.graph.input if i.name not in self.values]
        if len(inputs) != 1:
            raise ValueError(f"the graph must have one input, it has {len(inputs)}")
        shape = inputs[0].type.tensor_type.shape.dim
        if len(shape) not in (0, 2):
            raise ValueError(f"the graph's input must be a matrix, it has {len(shape)} axes")
        self.values[inputs[0].name] = Operator(INPUT, (), name=inputs[0].name)
        for node in self.graph.node:
            self._add(node)

    def _add(self, node: Any) -> None:
        """Make an operator of a node, or pass on its operand if it changes nothing."""
        for name in node.input:
            if name and name not in self.values:
                raise ValueError(f"the input {name!r} of node {node.name!r} is not defined")
        operands = tuple(self.values[name] for name in node.input if name)
        attributes = self._attributes(node)
        kind = node.op_type if node.domain in DOMAINS else f"{node.domain}.{node.op_type}"
        operator = Operator(kind, operands, attributes, node.name or node.output[0])
        value: Value = operator
        if kind == "Constant" and "value" in attributes:
            value = self.onnx.numpy_helper.to_array(attributes["value"])
        elif _changes_nothing(operator):
            value = operands[0]
        for names in attributes.get("classlabels_strings"), attributes.get("classlabels_int64s"):
            if names:
                self._name_classes(names)
        if kind == "ArrayFeatureExtractor" and isinstance(operands[0], np.ndarray):
            self._name_classes(operands[0].ravel())
        self.values[node.output[0]] = value

    def _name_classes(self, names: Any) -> None:
        texts = [name.decode() if isinstance(name, bytes) else str(name) for name in names]
        if texts != [str(number) for number in range(len(texts))]:
            self.class_names = texts

    def _attributes(self, node: Any) -> dict[str, Any]:
        """The attributes, those that are not given by their default; axis 1 of a matrix is -1."""
        read = self.onnx.helper.get_attribute_value
        version = self.versions.get(node.domain, 1)
        values = {}
        if self.onnx.defs.has(node.op_type, version, node.domain):
            schema = self.onnx.defs.get_schema(node.op_type, version, node.domain)
            defaults = (a.default_value for a in schema.attributes.values())
            values = {default.name: read(default) for default in defaults if default.name}
        values |= {attribute.name: read(attribute) for attribute in node.attribute}
        if values.get("axis") == 1:
            values["axis"] = -1
        if list(values.get("axes", ())) == [1]:
            values["axes"] = [-1]
        return values

    def head(self, loss: Loss | None) -> tuple[str | None, Value]:
        """The loss that the end of the graph tells, if any, and what the last layer gives.

        A loss that is asked for takes off no end but its own.
        """
        found = [_end(value, loss) for value in self._results()]
        heads = {head for head, _ in found if head is not None}
        if len(heads) > 1 or any(value is not found[0][1] for _, value in found):
            names = ", ".join(output.name for output in self.graph.output)
            raise ValueError(f"the graph's outputs {names} are not those of one network")
        return (heads.pop() if heads else None), found[0][1]

    def _results(self) -> list[Value]:
        """The outputs that are not labels, or else the labels."""
        for output in self.graph.output:
            if output.name not in self.values:
                raise ValueError(f"the output {output.name!r} is not defined")
        values = [
            self.values[output.name]
            for output in self.graph.output
            if output.type.WhichOneof("value") == "sequence_type"
            or output.type.tensor_type.elem_type in FLOATS
        ]
        values = values or [self.values[output.name] for output in self.graph.output]
        if not values:
            raise ValueError("the graph has no output")
        return values


def _changes_nothing(operator: Operator) -> bool:
    kind, attributes = operator.kind, operator.attributes
    if kind == "Cast":  # float64 and back for one operator, or scikit-learn's of the input
        return attributes.get("to") in FLOATS
    if kind == "Flatten":
        return bool(attributes.get("axis") == -1)
    if kind == "Dropout":  # a third operand might say that it is in training
        return len(operator.operands) < 3
    return kind in ("Identity", "ZipMap")


def _end(value: Value, loss: Loss | None) -> tuple[str | None, Value]:
    for head, formulas_ in HEADS.items():
        if loss is None or loss.name == head:
            for formula in formulas_:
                if (found := match(formula, value)) is not None:
                    return head, found["z"]
    return None, value


def _steps(value: Value) -> list[tuple[Operator, Step, Found]]:
    """What leads from the input to the value, each with what its formula found."""
    steps = []
    while not isinstance(value, Operator) or value.kind != INPUT:
        if not isinstance(value, Operator):
            raise ValueError("the graph's output does not depend on its input")
        for formula, step in STEPS:
            if (found := match(formula, value)) is not None:
                steps.append((value, step, found))
                value = found["z"]
                break
        else:
            raise ValueError(f"{_name(value)} is not understood as a part of a network")
    return steps[::-1]


def _name(operator: Operator) -> str:
    return f"node {operator.name!r} ({operator.kind})"


def _number(value: Any) -> float:
    """A constant or an attribute; of float32 the decimal number that it was rounded from."""
    array = np.asarray(value)
    is_double = isinstance(value, np.ndarray) and array.dtype == np.float64
    return float(array.item() if is_double else str(np.float32(array.item())))


def _linear(chain: Chain, found: Found) -> None:
    weight = found["weight"].T if found.get("transposed") else found["weight"]
    chain.linear(weight, found.get("bias"))


def _batch_norm(chain: Chain, found: Found) -> None:
    momentum = 1 - _number(found["momentum"]) if "momentum" in found else BatchNorm.momentum
    norm = BatchNorm(_number(found["epsilon"]), round(momentum, 6))
    statistics = {"running_mean": found["mean"], "running_variance": found["variance"]}
    chain.norm(norm, found["mean"].size, gain=found["gain"], shift=found["shift"], **statistics)


def _layer_norm(chain: Chain, found: Found) -> None:
    arrays = {kind: found[kind] for kind in ("gain", "shift") if kind in found}
    chain.norm(LayerNorm(_number(found["epsilon"])), found["gain"].size, **arrays)


def _scale(chain: Chain, found: Found) -> None:
    factor = np.array(found["scale"], np.float32)
    chain.scale(factor, -np.array(found["offset"], np.float32) * factor)


def _reshape(chain: Chain, found: Found) -> None:
    shape = found["shape"].tolist()
    if shape != [-1, chain.width]:
        raise ValueError(f"the shape must be [-1, {chain.width}], got {shape}")


def _activate(name: str) -> Step:
    def step(chain: Chain, found: Found) -> None:
        parameter = found.get("parameter")
        if isinstance(parameter, np.ndarray) and parameter.ndim > 0:
            # of slopes; leaky_relu, written out, is the same formula
            chain.activation(Activation("prelu", per_unit=parameter.size > 1), parameter)
        else:
            chain.activation(Activation(name, None if parameter is None else _number(parameter)))

    return step


def _parts() -> list[tuple[Operand, Step]]:
    """Every formula of a part of a network, and what it adds to the chain."""
    z, gain, shift, epsilon = "z", "gain", "shift", "epsilon"
    plain = {"alpha": 1.0, "transA": 0}
    running = {"epsilon": epsilon, "momentum": "momentum", "training_mode": 0}
    product = op("MatMul", z, "weight")
    norm: Operand
    parts: list[tuple[Operand, Step]] = [
        (op("Add", product, "bias"), _linear),
        (product, _linear),
        (op("Gemm", z, "weight", "bias", beta=1.0, transB="transposed", **plain), _linear),
        (op("Gemm", z, "weight", transB="transposed", **plain), _linear),
        (op("Scaler", z, offset="offset", scale="scale"), _scale),
        (op("Reshape", z, "shape"), _reshape),
        (op("BatchNormalization", z, gain, shift, "mean", "variance", **running), _batch_norm),
        (formulas.normed(z, "mean", "variance", epsilon, gain, shift), _batch_norm),
    ]
    for operands in (gain, shift), (gain,):
        norm = op("LayerNormalization", z, *operands, axis=-1, epsilon=epsilon)
        parts.append((norm, _layer_norm))
    for variance in formulas.layer_variance(z), formulas.layer_variance_by_power(z):
        norm = formulas.normed(z, formulas.layer_mean(z), variance, epsilon, gain, shift)
        parts.append((norm, _layer_norm))
    everything = [*formulas.WRITTEN.items(), *formulas.WRITTEN_DOUBLE.items(), *formulas.FOREIGN]
    for name, formula in everything:
        if name != "identity":
            parts.append((formula(z, "parameter"), _activate(name)))
    return parts


STEPS = _parts()
HEADS: dict[str, list[Operand]] = {
    "softmax_cross_entropy": [
        op("Softmax", "z", axis=-1),
        op("LogSoftmax", "z", axis=-1),
        op("ArgMax", op("Softmax", "z", axis=-1), axis=-1),
        op("ArgMax", "z", axis=-1),
    ],
    "binary_cross_entropy": [
        op("Sigmoid", op("Concat", op("Neg", "z"), "z", axis=-1)),
        op("Concat", op("Sub", 1.0, op("Sigmoid", "z")), op("Sigmoid", "z"), axis=-1),
        op("Sigmoid", "z"),
    ],
    "poisson": [op("Exp", "z")],
}
