"""What the kernels compute, in plain NumPy: the page to read first, and the oracle of the tests.

A function here has the name and the arguments of its kernel (exceptions say so) and writes to the
same places; only the last bits differ, as it computes in float64 wherever that is no trouble.
`loss_and_gradient` at the end is what the compiled step does, in a dozen lines.

Letters: B samples, I inputs and O outputs of a layer, L layers, K classes.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# --- products, see gemm.py, whose functions also take matrices cut into panels of columns


def multiply(c: Array, a: Array, b: Array, start: Array) -> None:
    """c [M, N] <- start + a [M, K] b [K, N]; start [M, N], or [1, N] for all rows."""
    c[...] = start + np.matmul(a, b, dtype=np.float64)


def multiply_transposed(c: Array, a: Array, b: Array, start: Array) -> None:
    """c [M, N] <- start + a^T b for a [K, M], b [K, N]; start [M, N], or [1, N] for all rows."""
    multiply(c, a.T, b, start)


def transpose(dst: Array, src: Array) -> None:
    """dst [N, M'] <- src [M, N]^T, columns M to M' zero."""
    rows = src.shape[0]
    dst[:, :rows] = src.T
    dst[:, rows:] = 0


# --- activations a = f(z), see activation.py; each derivative f'(z) in terms of the output a


def sigmoid(z: Array) -> Array:
    """1 / (1 + e**-z), with an exponent that is never positive, so that nothing overflows."""
    e = np.exp(-np.abs(z))
    p: Array = np.where(z < 0, e, 1) / (1 + e)
    return p


def softplus(z: Array) -> Array:
    """ln(1 + e**z) = max(z, 0) + ln(1 + e**-|z|)."""
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "identity": (lambda z: z, lambda a: np.ones_like(a)),
    "relu": (lambda z: np.maximum(z, 0), lambda a: np.where(a > 0, 1.0, 0.0)),
    "sigmoid": (sigmoid, lambda a: a * (1 - a)),
    "tanh": (np.tanh, lambda a: (1 - a) * (1 + a)),
    "softplus": (softplus, lambda a: -np.expm1(-a)),
}


def activation_forward(z: Array, name: str) -> None:
    """z [B, O] <- f(z). For the name, the kernel takes the activation's code."""
    f, _ = ACTIVATIONS[name]
    z[...] = f(z.astype(np.float64))


def activation_backward(da: Array, a: Array, name: str) -> None:
    """da [B, O] <- da f'(z), where a = f(z). For the name, the kernel takes the code."""
    _, derivative = ACTIVATIONS[name]
    da[...] = da * derivative(a.astype(np.float64))


# --- losses, see loss.py: the outputs z [B, K] become the loss's gradient with respect to them


def softmax_cross_entropy(
    z: Array,
    classes: int,
    labels: Array,
    rows: Array,
    low: int,
    high: int,
    scale: float,
    scores: Array,
) -> None:
    """z[b] <- scale (softmax(z[b]) - onehot(y)) for the rows low to high, y = labels[rows[b]].

    scores[0, b] is the loss ln(sum_k e**z_k) - z_y of the row, scores[1, b] is 1 if the first of
    the largest outputs is the label's, else 0. Columns beyond the classes become zero.
    """
    for b in range(low, high):
        y = labels[rows[b]]
        logits = z[b, :classes].astype(np.float64)
        best = int(np.argmax(logits))
        e = np.exp(logits - logits[best])
        rest = np.delete(e, best).sum()
        p = e / (1 + rest)
        p[y] = -np.delete(p, y).sum()  # p[y] - 1, but accurate where p[y] is almost 1
        scores[0, b] = math.log1p(rest) + (logits[best] - logits[y])
        scores[1, b] = best == y
        z[b, :classes] = scale * p
        z[b, classes:] = 0


def squared_error(
    z: Array,
    outputs: int,
    targets: Array,
    rows: Array,
    low: int,
    high: int,
    scale: float,
    weight: float,
    scores: Array,
) -> None:
    """z[b] <- scale 2 weight (z[b] - t) for the rows low to high, t = targets[rows[b]].

    scores[0, b] is the loss weight ||z[b] - t||**2 of the row, scores[1, b] is 0. Columns beyond
    the outputs become zero.
    """
    for b in range(low, high):
        difference = z[b, :outputs].astype(np.float64) - targets[rows[b]]
        scores[0, b] = weight * (difference**2).sum()
        scores[1, b] = 0
        z[b, :outputs] = 2 * weight * scale * difference
        z[b, outputs:] = 0


# --- optimizers, see optimizer.py: one step on matrices of one shape


def sgd(theta: Array, g: Array, rate: float) -> None:
    """theta <- theta - rate g."""
    theta -= rate * g.astype(np.float64)


def momentum(theta: Array, m: Array, g: Array, rate: float, decay: float) -> None:
    """m <- decay m + g; theta <- theta - rate m."""
    m[...] = decay * m.astype(np.float64) + g
    theta -= rate * m.astype(np.float64)


def adam(theta: Array, m: Array, v: Array, g: Array, rule: Any) -> None:
    """m <- beta1 m + (1 - beta1) g; v <- beta2 v + (1 - beta2) g**2; theta <- theta - rate m / d.

    d = sqrt(v) / root_correction + epsilon. At step t, the rule's rate is alpha / (1 - beta1**t)
    and its root_correction sqrt(1 - beta2**t): so m and v are freed of their start at zero.
    """
    g = g.astype(np.float64)
    m[...] = rule.decay_1 * m.astype(np.float64) + (1 - rule.decay_1) * g
    v[...] = rule.decay_2 * v.astype(np.float64) + (1 - rule.decay_2) * g**2
    root = np.sqrt(v.astype(np.float64)) / rule.root_correction
    theta -= rule.rate * m / (root + rule.epsilon)


# --- random numbers, see random.py, in Python's integers, which have no limit

MASK = 2**32 - 1


def philox(c0: int, c1: int, c2: int, c3: int, k0: int, k1: int) -> tuple[int, int, int, int]:
    """Philox-4x32-10: four random 32-bit words from a counter of four and a key of two words."""
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & MASK, (p0 >> 32) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def below(limit: int, seed: int, stream: int, index: int) -> int:
    """Integer in [0, limit): 64 random bits, read as a fraction of 2**64, times the limit."""
    r0, r1, _, _ = philox(
        index & MASK, index >> 32, stream & MASK, stream >> 32, seed & MASK, seed >> 32
    )
    return (r1 << 32 | r0) * limit >> 64


def shuffle(order: Array, chosen: Array, seed: int, epoch: int) -> None:
    """order <- a permutation of `chosen`. The kernel also takes a flag that stops it early."""
    order[...] = chosen
    for i in range(len(order) - 1, 0, -1):
        j = below(i + 1, seed, epoch, i)
        order[i], order[j] = order[j], order[i]


# --- the whole step, see network.py and program.py


def output_gradient(loss: str, z: Array, y: Array) -> float:
    """Mean loss of the outputs z [B, O], which become its gradient; y as in `loss_and_gradient`."""
    batch, outputs = z.shape
    rows, scores = np.arange(batch), np.zeros((2, batch))
    if loss == "softmax_cross_entropy":
        softmax_cross_entropy(z, outputs, y, rows, 0, batch, 1 / batch, scores)
    else:
        weight = {"squared_error": 1.0, "half_squared_error": 0.5}[loss]
        squared_error(z, outputs, y, rows, 0, batch, 1 / batch, weight, scores)
    return float(scores[0].mean())


def loss_and_gradient(
    weights: Sequence[Array],
    biases: Sequence[Array],
    activations: Sequence[str],
    loss: str,
    X: Array,
    y: Array,
) -> tuple[float, list[Array], list[Array]]:
    """Mean loss over the samples, and its gradients by each W [I, O] and each b [O].

    X [B, I]; y labels [B], or targets [B, O] of a squared error; one activation for each layer but
    the last, which is linear.
    """
    inputs = [X.astype(np.float64)]  # of each layer
    for w, b, name in zip(weights[:-1], biases[:-1], activations, strict=True):
        f, _ = ACTIVATIONS[name]
        inputs.append(f(inputs[-1] @ w + b))
    dz = inputs[-1] @ weights[-1] + biases[-1]
    mean = output_gradient(loss, dz, y)

    dweights: list[Array] = []
    dbiases: list[Array] = []
    for layer in reversed(range(len(weights))):
        a = inputs[layer]
        dweights.insert(0, a.T @ dz)
        dbiases.insert(0, dz.sum(axis=0))
        if layer > 0:
            _, derivative = ACTIVATIONS[activations[layer - 1]]
            dz = (dz @ weights[layer].T) * derivative(a)
    return mean, dweights, dbiases
