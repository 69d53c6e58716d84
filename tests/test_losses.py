"""Names and options of the losses, what they take as targets, and what they refuse."""

from typing import Any

import numpy as np
import pytest

from fastmlp.kernels import loss as kernels
from fastmlp.losses import NAMES, Loss, resolve, targets_for

SINGLE = np.dtype("float32")
SOFTMAX, BINARY = Loss("softmax_cross_entropy"), Loss("binary_cross_entropy")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_loss_with_the_default_options(name: str) -> None:
    loss = resolve(name)
    assert loss == Loss(name)
    assert resolve(loss) is loss
    assert str(loss) == name
    assert loss.code == kernels.CODES[name]


def test_options_are_numbers_and_tuples_of_numbers() -> None:
    loss = Loss("softmax_cross_entropy", 0.1, np.array([1, 2, 3]))
    assert str(loss) == "softmax_cross_entropy(label_smoothing=0.1, class_weight=(1.0, 2.0, 3.0))"
    assert hash(loss) == hash(Loss("softmax_cross_entropy", 0.1, [1, 2, 3]))
    assert Loss("pinball", quantile=[0.1, 0.9]).quantile == (0.1, 0.9)


@pytest.mark.parametrize(
    ("name", "options", "error", "words"),
    [
        ("mse", {}, ValueError, "loss must be one of .*, got 'mse'"),
        (None, {}, ValueError, "loss must be one of .*, got None"),
        ("huber", {"delta": 0}, ValueError, r"delta must be in \(0, inf\), got 0"),
        ("huber", {"delta": np.nan}, ValueError, "delta must be in"),
        ("huber", {"delta": True}, TypeError, "delta must be a number, got True"),
        ("pinball", {"quantile": 1.0}, ValueError, r"quantile must be in \(0, 1\)"),
        ("pinball", {"quantile": [0.5, 0]}, ValueError, r"quantile\[1\] must be in \(0, 1\)"),
        ("pinball", {"quantile": []}, ValueError, "quantile must not be empty"),
        ("pinball", {"quantile": "0.5"}, TypeError, "quantile must be a number"),
        ("softmax_cross_entropy", {"label_smoothing": 1}, ValueError, "label_smoothing must be in"),
        ("softmax_cross_entropy", {"class_weight": [1, 0]}, ValueError, r"class_weight\[1\] must"),
        (
            "softmax_cross_entropy",
            {"class_weight": 2},
            TypeError,
            "class_weight must be a sequence",
        ),
        ("softmax_cross_entropy", {"delta": 2.0}, ValueError, "delta is not an option of the loss"),
        ("huber", {"quantile": 0.1}, ValueError, "quantile is not an option of the loss huber"),
        ("huber", {"label_smoothing": 0.1}, ValueError, "label_smoothing is not an option"),
        ("poisson", {"class_weight": [1, 2]}, ValueError, "class_weight is not an option"),
    ],
)
def test_refused_options(
    name: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Loss(name, **options)


@pytest.mark.parametrize(
    ("loss", "outputs", "words"),
    [
        (SOFTMAX, 1, r"layer_sizes\[-1\] must be at least 2 for softmax_cross_entropy, got 1"),
        (Loss("softmax_cross_entropy", class_weight=[1, 2]), 3, "each of the 3 classes, got 2"),
        (Loss("binary_cross_entropy", class_weight=[1, 2, 3]), 3, "each of the 2 classes, got 3"),
        (Loss("pinball", quantile=[0.1, 0.9]), 3, "each of the 3 outputs, got 2"),
    ],
)
def test_refused_outputs(loss: Loss, outputs: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        loss.check_outputs(outputs)
    with pytest.raises(ValueError, match=words):
        loss.objective(outputs)


def test_objectives() -> None:
    _, smoothing, _, quantiles, class_weights = Loss(
        "binary_cross_entropy", label_smoothing=0.2, class_weight=[1, 3]
    ).objective(4)
    assert smoothing == 0.2
    assert (quantiles.tolist(), class_weights.tolist()) == ([], [1.0, 3.0])
    assert Loss("pinball", quantile=0.9).objective(2).quantiles.tolist() == [0.9, 0.9]
    assert Loss("pinball", quantile=[0.1, 0.9]).objective(2).quantiles.tolist() == [0.1, 0.9]
    assert Loss("huber", delta=3).objective(2).delta == 3.0


@pytest.mark.parametrize(
    ("loss", "y", "outputs", "expected"),
    [
        (SOFTMAX, [[0.25, 0.75], [1.0, 0.0]], 2, [[0.25, 0.75], [1.0, 0.0]]),
        (SOFTMAX, np.eye(2, dtype=int), 2, [[1, 0], [0, 1]]),
        (SOFTMAX, np.eye(2, dtype=bool), 2, [[1, 0], [0, 1]]),
        (BINARY, [True, False], 1, [[1], [0]]),
        (BINARY, [0, 1], 1, [[0], [1]]),
        (BINARY, [[0.5, 1, 0], [0, 0, 1]], 3, [[0.5, 1, 0], [0, 0, 1]]),
        (Loss("poisson"), [0, 7], 1, [[0], [7]]),
        (Loss("huber"), [-1.5, 7], 1, [[-1.5], [7]]),
    ],
)
def test_targets(loss: Loss, y: Any, outputs: int, expected: Any) -> None:
    labels, targets = targets_for(loss, y, 2, outputs, SINGLE)
    assert (labels.dtype, labels.shape, targets.dtype) == (np.int64, (0,), SINGLE)
    np.testing.assert_array_equal(targets, expected)


def test_labels() -> None:
    labels, targets = targets_for(SOFTMAX, np.array([2, 0, 1], np.uint8), 3, 3, SINGLE)
    assert (labels.dtype, labels.tolist(), targets.shape) == (np.int64, [2, 0, 1], (0, 3))


def test_probabilities_may_be_rounded() -> None:
    """Those of a softmax in float32, of a thousand classes."""
    e = np.random.default_rng(0).random((5, 1000), dtype=np.float32)
    _, targets = targets_for(
        SOFTMAX, e / e.sum(axis=1, keepdims=True), 5, 1000, np.dtype("float64")
    )
    assert targets.shape == (5, 1000)


@pytest.mark.parametrize(
    ("loss", "y", "outputs", "error", "words"),
    [
        (SOFTMAX, [0.0, 1.0], 2, TypeError, "target must be integer class labels 0 to 1"),
        (SOFTMAX, [0, 2], 2, ValueError, "target must hold labels 0 to 1 .* found 2 at index 1"),
        (SOFTMAX, np.eye(3)[:2], 2, ValueError, r"target must have shape \(2, 2\)"),
        (SOFTMAX, [[0], [1]], 2, ValueError, r"target must have shape \(2,\)"),
        (SOFTMAX, [[1, 0], [0.5, 0.4]], 2, ValueError, "whose sum is 1, row 1 has 0.9"),
        (
            SOFTMAX,
            [[1.5, -0.5], [1, 0]],
            2,
            ValueError,
            r"at least 0, found -0.5 at index \[0, 1\]",
        ),
        (SOFTMAX, [[np.nan, 1], [1, 0]], 2, ValueError, "target must be finite"),
        (BINARY, [0, 2], 1, ValueError, r"target must be in \[0, 1\], found 2.0 at index \[1, 0\]"),
        (BINARY, ["a", "b"], 1, TypeError, "target must be an array of real numbers"),
        (BINARY, [0, 1], 3, ValueError, r"target must have shape \(2, 3\)"),
        (Loss("poisson"), [1, -1], 1, ValueError, "target must be at least 0, found -1.0"),
        (Loss("huber"), [1, np.inf], 1, ValueError, "target must be finite"),
    ],
)
def test_refused_targets(
    loss: Loss, y: Any, outputs: int, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        targets_for(loss, y, 2, outputs, SINGLE, "target")
