"""A network for tables and its training: after RealMLP-TD-S, with settings that need no search.

`network` makes it, `train` trains it on encoded inputs (see `TabularEncoder`) and returns an
ordinary `MLP`. docs/tables.md lists every ingredient and where it comes from.

References
----------
D. Holzmüller, L. Grinsztajn, I. Steinwart: Better by default: strong pre-tuned MLPs and
boosted trees on tabular data. NeurIPS 2024.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ._arrays import array_of
from ._checks import check_whole
from .history import History
from .initializers import lecun_normal
from .losses import Loss
from .mlp import MLP, check_network
from .optimizers import Adam
from .schedules import CosineLog
from .training import Callbacks, Training, checked_callbacks, fit

__all__ = ["network", "rescaled", "settings", "train"]

HIDDEN = (256, 256, 256)
EPOCHS = 256
BATCH = 256
BETA2 = 0.95
CYCLES = 4
RATES = {True: 0.04, False: 0.07}  # of a classifier, and of a regression
ACTIVATIONS = {True: "selu", False: "mish"}
LABEL_SMOOTHING = 0.1
SCALE_FACTOR, BIAS_FACTOR = 6.0, 0.1


def network(
    inputs: int,
    outputs: int,
    loss: str = "softmax_cross_entropy",
    *,
    seed: int = 0,
    dtype: DTypeLike = "float32",
) -> MLP:
    """Return the network [inputs, 256, 256, 256, outputs] before training.

    The inputs have a scale. W_l = V_l / sqrt(n_in) with V_l ~ N(0, 1), b_l ~ N(0, 1), and zeros in
    the last layer, so that every prediction begins at 0. SELU and labels smoothed by 0.1 for a
    classifier, else Mish.

    Parameters
    ----------
    inputs, outputs
        Encoded features, and classes (1 for two classes with "binary_cross_entropy") or targets.
    loss
        Name of the loss.
    seed, dtype
        As of `MLP`.

    Raises
    ------
    TypeError, ValueError
        As `MLP`.

    Examples
    --------
    >>> network(4, 3).layer_sizes
    (4, 256, 256, 256, 3)
    """
    is_classifier = Loss(loss).is_classifier
    net = MLP(
        [check_whole(inputs, "inputs", 1), *HIDDEN, check_whole(outputs, "outputs", 1)],
        activation=ACTIVATIONS[is_classifier],
        loss=Loss(loss, label_smoothing=LABEL_SMOOTHING) if is_classifier else loss,
        input_scale=True,
        initializer=[lecun_normal] * len(HIDDEN) + ["zeros"],
        seed=seed,
        dtype=dtype,
    )
    rng = np.random.Generator(np.random.Philox([net.seed, 1]))
    for bias in net.biases[:-1]:
        bias[...] = rng.normal(size=bias.shape)
    return net


def settings(net: MLP, samples: int) -> dict[str, Any]:
    """Return what `fit` is to be called with, for a `network` and a number of samples.

    Adam with beta2 = 0.95, 256 epochs in batches of at most 256 samples, as equal as they can be;
    the rates are `CosineLog` waves up to 0.04 for a classifier, else 0.07, times factors:

    With the NTK parametrisation z = a V / sqrt(n_in) + b, Adam moves V by its learning rate,
    whatever the size of the gradient, so W = V / sqrt(n_in) by the rate / sqrt(n_in). (Adam's
    epsilon would be sqrt(n_in) times as large.) Biases have 0.1, the scale of the inputs 6.

    "binary_cross_entropy" has one output z where softmax has two, z = z_2 - z_1, with gradients
    that are opposite numbers: from zeros both move alike in opposite directions, so z moves twice
    as far. For that the factors of the last layer are doubled.

    References
    ----------
    A. Jacot, F. Gabriel, C. Hongler: Neural tangent kernel: convergence and generalization in
    neural networks. NeurIPS 2018.

    Examples
    --------
    >>> chosen = settings(network(4, 3), samples=300)
    >>> chosen["batch_size"], chosen["learning_rate_factors"]["weight"]
    (150, [0.5, 0.0625, 0.0625, 0.0625])
    """
    check_network(net)
    samples = check_whole(samples, "samples", 1, 2**62)
    weights = [1.0 / math.sqrt(n_in) for n_in in net.layer_sizes[:-1]]
    biases = [BIAS_FACTOR] * len(weights)
    if net.loss.name == "binary_cross_entropy":
        weights[-1] *= 2.0
        biases[-1] *= 2.0
    steps = math.ceil(samples / BATCH)
    return {
        "optimizer": Adam(CosineLog(RATES[net.is_classifier], cycles=CYCLES), beta2=BETA2),
        "epochs": EPOCHS,
        "batch_size": math.ceil(samples / steps),
        "learning_rate_factors": {"weight": weights, "bias": biases, "input_scale": SCALE_FACTOR},
    }


def train(
    net: MLP,
    X: ArrayLike,
    y: ArrayLike,
    *,
    validation: tuple[ArrayLike, ...],
    sample_weight: ArrayLike | None = None,
    epochs: int = EPOCHS,
    callbacks: Callbacks = (),
    progress: bool = False,
    threads: int | None = None,
    seed: int | None = None,
) -> tuple[MLP, History]:
    """Train a `network`; return that of the best epoch, the input scale folded in, and the history.

    By `fit` with `settings`. The best epoch is the last of those with the most right answers on the
    validation samples, or with the least loss if these have weights, or the network is no
    classifier. Targets of a regression should be standardised; see `rescaled` for the way back.

    Parameters
    ----------
    net
        As `network` makes it; its parameters change.
    X
        Encoded inputs [n, inputs], see `TabularEncoder`.
    y, validation, sample_weight, epochs, callbacks, progress, threads, seed
        As of `fit`; `validation` is (X, y) or (X, y, sample_weight).

    Raises
    ------
    TypeError, ValueError
        As `fit`.
    DivergenceError
        If a loss or the parameters are not finite any more.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 2))
    >>> y = (X[:, 0] * X[:, 1] > 0).astype(int)
    >>> net = network(2, 2)
    >>> net, history = train(net, X[:80], y[:80], validation=(X[80:], y[80:]), epochs=40)
    >>> len(history), history.best_epoch > 0, net.evaluate(X, y).accuracy > 0.8
    (40, True, True)
    """
    if not isinstance(validation, tuple):
        raise TypeError(f"validation must be a tuple of arrays, got a {type(validation).__name__}")
    check_network(net)
    watchers = checked_callbacks(callbacks)
    if watchers:
        from .checkpoints import Checkpoint

        if any(isinstance(watcher, Checkpoint) for watcher in watchers):
            raise TypeError(
                "callbacks must not hold a Checkpoint: it would not know the best epoch"
            )
    best = _BestEpoch(counts=net.is_classifier and len(validation) == 2)
    history = fit(
        net,
        X,
        y,
        **settings(net, max((1, *array_of(y, "y").shape[:1]))) | {"epochs": epochs},
        sample_weight=sample_weight,
        validation=validation,
        callbacks=[best, *watchers],
        progress=progress,
        threads=threads,
        seed=seed,
    )
    best.restore(net, history)
    return net.fold_input_scale(), history


def rescaled(net: MLP, mean: NDArray[Any], spread: NDArray[Any]) -> MLP:
    """Return a network whose outputs are spread z + mean, from one that gives standardised z.

    Examples
    --------
    >>> net = MLP([2, 1], loss="squared_error")
    >>> float(rescaled(net, np.array([5.0]), np.array([2.0])).predict([[0.0, 0.0]])[0, 0])
    5.0
    """
    other = net.clone()
    other.weights[-1][...] *= spread
    other.biases[-1][...] = spread * other.biases[-1] + mean
    return other


class _BestEpoch:
    """Keeps the parameters of the best epoch, of equals the last; `counts`: by right answers."""

    def __init__(self, counts: bool) -> None:
        self._counts = counts
        self._value, self._epoch = math.inf, 0
        self._theta: NDArray[Any] | None = None

    def __call__(self, training: Training) -> None:
        net, history = training.net, training.history
        value = -history.val_accuracy[-1] if self._counts else history.val_loss[-1]
        if value <= self._value:
            self._value, self._epoch, self._theta = value, len(history), net.theta.copy()

    def restore(self, net: MLP, history: History) -> None:
        """Give the network what it had then."""
        if self._theta is not None:
            net.theta[...] = self._theta
            history.best_epoch = self._epoch
