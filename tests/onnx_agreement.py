"""How far ONNX Runtime is from our own predictions, over random networks.

``python tests/onnx_agreement.py --networks 500`` prints the largest error by activation, loss and
norm; `test_exchange_onnx` asserts it for some of the networks.

An output z of the last layer is a sum of terms a W and b, which both sides round, and which may
cancel. So its error is max |theirs - ours| over the size of the terms, max sum |a| |W| + |b|, over
some samples (N. J. Higham, *Accuracy and stability of numerical algorithms*, chapter 3).
Probabilities and means are exponentials of z, so an error of z makes a relative one of theirs:
their error is max |theirs - ours| / max |ours|, over the size of the terms if that is above 1. The
last column is the stricter max |theirs - ours| / max |ours| for all.

The networks are well conditioned, as those of `networks.py`: normed units are divided by
sqrt(var + epsilon) with an epsilon of 0.1 to 0.5. With 1e-5, the layer norm of a few almost equal
units turns the rounding of its inputs into anything, in ONNX Runtime and here.
"""

import argparse
from collections import defaultdict
from typing import Any

import networks
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

import fastmlp as fm
from fastmlp.activations import NAMES as ACTIVATIONS
from fastmlp.exchange.onnx_export import model_of
from fastmlp.losses import NAMES as LOSSES

WIDTHS = [1, 2, 7, 15, 16, 17, 31, 33, 64, 65, 90]
EXPONENTIAL = ("softmax_cross_entropy", "binary_cross_entropy", "poisson")
NORMS = ("none", "batch", "layer")


def random_network(number: int, dtype: str) -> tuple[fm.MLP, Any]:
    """The network of that number, and samples: activation, loss and norm take turns.

    All pairs of activation and loss are among 104 successive numbers, all triples among 312.
    """
    rng = np.random.default_rng(number)
    name = ACTIVATIONS[number % len(ACTIVATIONS)]
    loss = LOSSES[number // len(ACTIVATIONS) % len(LOSSES)]
    kind = NORMS[number % len(NORMS)]
    depth = int(rng.integers(1, 5))
    least = 3 if kind == "layer" else 1
    hidden = [max(least, int(rng.choice(WIDTHS))) for _ in range(depth)]
    outputs = int(rng.choice(WIDTHS))
    if loss == "softmax_cross_entropy":
        outputs = max(outputs, 2)
    net = fm.MLP(
        [int(rng.choice(WIDTHS)), *hidden, outputs],
        activation=[networks.random_activation(rng, name) for _ in range(depth)],
        loss=networks.random_loss(rng, loss, outputs),
        norm=random_norm(rng, kind),
        dropout=networks.random_dropout(rng),
        seed=number,
        dtype=dtype,
    )
    networks.randomize(rng, net)
    return net, rng.normal(size=(int(rng.integers(1, 300)), net.layer_sizes[0])).astype(dtype)


def random_norm(rng: np.random.Generator, kind: str) -> fm.BatchNorm | fm.LayerNorm | None:
    """A norm of that kind."""
    epsilon = rng.uniform(0.1, 0.5)
    return {"none": None, "batch": fm.BatchNorm(epsilon), "layer": fm.LayerNorm(epsilon)}[kind]


def expected(net: fm.MLP, X: Any) -> dict[str, Any]:
    """What the graph's outputs should be."""
    if not net.is_classifier:
        return {"prediction": net.predict(X)}
    return {
        "label": net.predict(X),
        "probabilities": net.predict_proba(X),
        "logits": net.decision_function(X),
    }


def run(model: onnx.ModelProto, X: Any, optimize: bool = True) -> dict[str, Any]:
    """The outputs of a model in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    (inputs,) = session.get_inputs()
    return dict(zip(names, session.run(names, {inputs.name: X}), strict=True))


def errors(net: fm.MLP, X: Any, optimize: bool = True) -> dict[str, tuple[float, float]]:
    """Both errors of each output that is no label; dtypes, shapes and clear labels are the same."""
    theirs, ours = run(model_of(net), X, optimize), expected(net, X)
    assert list(theirs) == list(ours)
    values = net.activations(X)
    terms = size_of_terms(net, X if len(net.weights) == 1 else values.activations[-2])
    sizes = {}
    for name, mine in ours.items():
        its = theirs[name]
        assert (its.shape, its.dtype) == (mine.shape, mine.dtype)
        if name == "label":
            assert ((its == mine) | (margin(net, values.activations[-1]) < 1e-5 * terms)).all()
            continue
        distance = float(np.abs(its.astype(np.float64) - mine).max())
        largest = float(np.abs(mine).max())
        is_linear = name == "logits" or net.loss.name not in EXPONENTIAL
        scale = terms if is_linear else largest * max(1.0, terms)
        sizes[name] = distance / scale, distance / largest
    return sizes


def size_of_terms(net: fm.MLP, a: Any) -> float:
    """max sum |a| |W| + |b| of the last layer, for its inputs a."""
    return float((np.abs(a) @ np.abs(net.weights[-1]) + np.abs(net.biases[-1])).max())


def margin(net: fm.MLP, z: Any) -> Any:
    """How far each label is from being another."""
    if net.loss.name == "softmax_cross_entropy":
        second, first = np.sort(z, axis=1)[:, -2:].T
        return first - second
    return np.abs(z[:, 0] if z.shape[1] == 1 else z)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=500)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    given = parser.parse_args()
    worst: dict[tuple[str, str], NDArray[Any]] = defaultdict(lambda: np.zeros(2))
    for number in range(given.networks):
        net, X = random_network(number, given.dtype)
        for output, sizes in errors(net, X).items():
            kinds = {
                "activation": net.activation[0].name,
                "loss": net.loss.name,
                "norm": NORMS[number % len(NORMS)],
                "output": output,
            }
            for key in (*kinds.items(), ("all", str(given.networks))):
                worst[key] = np.maximum(worst[key], sizes)
    print(f"{given.dtype:>10}  {'':<22}  of the terms  of the largest")
    for (kind, name), sizes in sorted(worst.items()):
        print(f"{kind:>10}  {name:<22}  {sizes[0]:>12.1e}  {sizes[1]:>14.1e}")


if __name__ == "__main__":
    main()
