"""What the kernels compute, in plain NumPy: the page to read first, and the oracle of the tests.

A function here has the name and the arguments of its kernel (exceptions say so) and writes to the
same places; only the last bits differ, as it computes in float64 wherever that is no trouble.
`loss_and_gradient` at the end is what the compiled step does, in two dozen lines.

Letters: B samples, I inputs and O outputs of a layer, L layers, K classes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# --- products, see gemm.py, whose functions also take matrices cut into panels of columns


def multiply(c: Array, a: Array, b: Array, start: Array, chosen: Array | None = None) -> None:
    """c [M, N] <- start + a [M, K] b [chosen, N]; start [M, N], or [1, N] for all rows."""
    rows = slice(None) if chosen is None else chosen
    c[...] = start + np.matmul(a, b[rows], dtype=np.float64)


def multiply_transposed(
    c: Array, a: Array, b: Array, start: Array, chosen: Array | None = None
) -> None:
    """c[chosen] <- start + a^T b for a [K, M], b [K, N]; start [1, N], or as many rows as c."""
    rows = slice(None) if chosen is None else chosen
    first = start if len(start) == 1 else start[rows]
    c[rows] = first + np.matmul(a.T, b, dtype=np.float64)


def descend(c: Array, a: Array, b: Array, rate: float, l2: float, chosen: Array) -> None:
    """c[chosen] <- c[chosen] - rate (l2 c[chosen] + a^T b) for a [K, M], b [K, N]."""
    c[chosen] -= rate * (l2 * c[chosen] + np.matmul(a.T, b, dtype=np.float64))


def transpose(dst: Array, src: Array) -> None:
    """dst [N, M'] <- src [M, N]^T, columns M to M' zero."""
    rows = src.shape[0]
    dst[:, :rows] = src.T
    dst[:, rows:] = 0


# --- activations a = f(z), see activation.py. f, f' and f'' also take complex z, so that f(z + ih)
# tells f'(z): they branch on the real part, and on each branch they are analytic.


def positive(z: Array) -> Array:
    """max(z, 0)."""
    return np.where(z.real < 0, 0, z)


def negative(z: Array) -> Array:
    """min(z, 0)."""
    return np.where(z.real > 0, 0, z)


def exp_decay(z: Array) -> Array:
    """e**-|z|, which does not overflow."""
    e: Array = np.exp(np.where(z.real < 0, z, -z))
    return e


def sigmoid(z: Array) -> Array:
    """1 / (1 + e**-z)."""
    e = exp_decay(z)
    p: Array = np.where(z.real < 0, e, 1) / (1 + e)
    return p


def sigmoid_slope(z: Array) -> Array:
    """sigmoid(z) (1 - sigmoid(z)), as 1 - sigmoid(z) = sigmoid(-z)."""
    return sigmoid(z) * sigmoid(-z)


def softplus(z: Array) -> Array:
    """ln(1 + e**z) = max(z, 0) + ln(1 + e**-|z|)."""
    return positive(z) + np.log1p(exp_decay(z))


def erfc(x: Array) -> Array:
    """1 - erf x; near the real axis, erfc(x + ih) = erfc(x) - ih 2/sqrt(pi) e**-x**2."""
    value = np.array([math.erfc(t) for t in x.real.flat]).reshape(x.shape)
    if np.iscomplexobj(x):
        value = value - 1j * x.imag * (2 / math.sqrt(math.pi) * np.exp(-(x.real**2)))
    return value


def normal_cdf(z: Array) -> Array:
    """Phi(z), the normal distribution function."""
    return erfc(-z / math.sqrt(2)) / 2


def normal_density(z: Array) -> Array:
    """phi(z) = e**(-z**2/2) / sqrt(2 pi)."""
    density: Array = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return density


def tanh_exponent(z: Array) -> Array:
    """The s in gelu_tanh = z (1 + tanh(s/2)) / 2 = z sigmoid(s)."""
    return math.sqrt(8 / math.pi) * (z + 0.044715 * z**3)


def gelu_tanh_derivatives(z: Array) -> tuple[Array, Array]:
    """First and second derivative of z sigmoid(s)."""
    s = tanh_exponent(z)
    ds = math.sqrt(8 / math.pi) * (1 + 3 * 0.044715 * z**2)
    dds = math.sqrt(8 / math.pi) * 6 * 0.044715 * z
    gate, slope = sigmoid(s), sigmoid_slope(s)
    curvature = slope * (dds + ds**2 * (sigmoid(-s) - gate))
    return gate + z * slope * ds, 2 * slope * ds + z * curvature


def silu_derivatives(z: Array) -> tuple[Array, Array]:
    """First and second derivative of z sigmoid(z)."""
    gate, slope = sigmoid(z), sigmoid_slope(z)
    return gate + z * slope, slope * (2 + z * (sigmoid(-z) - gate))


def mish_derivatives(z: Array) -> tuple[Array, Array]:
    """First and second derivative of z g for the gate g = tanh(softplus(z))."""
    gate = np.tanh(softplus(z))
    rest = (1 - gate) * (1 + gate)
    slope = rest * sigmoid(z)
    curvature = rest * sigmoid_slope(z) - 2 * gate * slope * sigmoid(z)
    return gate + z * slope, 2 * slope + z * curvature


SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772

Function = Callable[[Array, Any], Array]
# name -> f, f' and f'' of (z, parameter); the parameter is the slope of leaky_relu and of prelu
# (there one for each column, or one for all) and the alpha of elu
ACTIVATIONS: dict[str, tuple[Function, Function, Function]] = {
    "identity": (
        lambda z, _: z,
        lambda z, _: np.ones_like(z),
        lambda z, _: np.zeros_like(z),
    ),
    "relu": (
        lambda z, _: positive(z),
        lambda z, _: np.where(z.real > 0, 1.0, 0.0),
        lambda z, _: np.zeros_like(z),
    ),
    "sigmoid": (
        lambda z, _: sigmoid(z),
        lambda z, _: sigmoid_slope(z),
        lambda z, _: sigmoid_slope(z) * (sigmoid(-z) - sigmoid(z)),
    ),
    "tanh": (
        lambda z, _: np.tanh(z),
        lambda z, _: 4 * sigmoid_slope(2 * z),
        lambda z, _: -8 * np.tanh(z) * sigmoid_slope(2 * z),
    ),
    "softplus": (
        lambda z, _: softplus(z),
        lambda z, _: sigmoid(z),
        lambda z, _: sigmoid_slope(z),
    ),
    "leaky_relu": (
        lambda z, slope: np.where(z.real > 0, z, slope * z),
        lambda z, slope: np.where(z.real > 0, 1.0, slope),
        lambda z, _: np.zeros_like(z),
    ),
    "prelu": (
        lambda z, slope: np.where(z.real > 0, z, slope * z),
        lambda z, slope: np.where(z.real > 0, 1.0, slope),
        lambda z, _: np.zeros_like(z),
    ),
    "elu": (
        lambda z, alpha: np.where(z.real > 0, z, alpha * np.expm1(negative(z))),
        lambda z, alpha: np.where(z.real > 0, 1.0, alpha * np.exp(negative(z))),
        lambda z, alpha: np.where(z.real > 0, 0.0, alpha * np.exp(negative(z))),
    ),
    "selu": (
        lambda z, _: SELU_SCALE * np.where(z.real > 0, z, SELU_ALPHA * np.expm1(negative(z))),
        lambda z, _: SELU_SCALE * np.where(z.real > 0, 1.0, SELU_ALPHA * np.exp(negative(z))),
        lambda z, _: SELU_SCALE * np.where(z.real > 0, 0.0, SELU_ALPHA * np.exp(negative(z))),
    ),
    "gelu": (
        lambda z, _: z * normal_cdf(z),
        lambda z, _: normal_cdf(z) + z * normal_density(z),
        lambda z, _: normal_density(z) * (2 - z**2),
    ),
    "gelu_tanh": (
        lambda z, _: z * sigmoid(tanh_exponent(z)),
        lambda z, _: gelu_tanh_derivatives(z)[0],
        lambda z, _: gelu_tanh_derivatives(z)[1],
    ),
    "silu": (
        lambda z, _: z * sigmoid(z),
        lambda z, _: silu_derivatives(z)[0],
        lambda z, _: silu_derivatives(z)[1],
    ),
    "mish": (
        lambda z, _: z * np.tanh(softplus(z)),
        lambda z, _: mish_derivatives(z)[0],
        lambda z, _: mish_derivatives(z)[1],
    ),
}


def activation_forward(a: Array, z: Array, name: str, parameter: float, slopes: Array) -> None:
    """a [B, O] <- f(z). For the name, the kernel takes the activation's code."""
    f = ACTIVATIONS[name][0]
    a[...] = f(z.astype(np.float64), slopes if name == "prelu" else parameter)


def activation_backward(da: Array, z: Array, name: str, parameter: float, slopes: Array) -> None:
    """da [B, O] <- da f'(z). The kernel takes the code, and for most codes f(z) instead of z."""
    derivative = ACTIVATIONS[name][1]
    da[...] = da * derivative(z.astype(np.float64), slopes if name == "prelu" else parameter)


def activation_derivatives(
    first: Array, second: Array, z: Array, name: str, parameter: float, slopes: Array
) -> None:
    """first <- f'(z), second <- f''(z), see activation_curvature.py."""
    for matrix, function in zip((first, second), ACTIVATIONS[name][1:], strict=True):
        matrix[...] = function(z.astype(np.float64), slopes if name == "prelu" else parameter)


def slope_backward(sums: Array, da: Array, z: Array) -> None:
    """sums [1, O] <- the sums of da min(z, 0) over the rows: dL/d(slopes) of prelu."""
    sums[0] = (da * negative(z.astype(np.float64))).sum(axis=0)


# --- losses, see loss.py: of outputs z [B, O] against y, labels [B] or targets [B, O]. A complex z
# --- gives a complex loss: the imaginary part of loss_of(z + ih dz) / h is the slope along dz


@dataclass(frozen=True)
class Loss:
    """A loss and its numbers; class_weights [K], or [2] for negatives and positives."""

    name: str
    smoothing: float = 0.0
    delta: float = 1.0
    quantiles: Any = 0.5
    class_weights: Any = None


def magnitude(z: Array) -> Array:
    """|z|, which for a complex z is z with the sign that makes its real part positive."""
    return np.where(z.real < 0, -z, z)


def class_targets(loss: Loss, y: Array, classes: int) -> Array:
    """t_k = c_k ((1 - s) q_k + s / K) [B, K], where q is y, or onehot(y) of labels."""
    q = np.eye(classes)[y] if y.ndim == 1 else y
    weights = np.ones(classes) if loss.class_weights is None else np.asarray(loss.class_weights)
    t: Array = weights * ((1 - loss.smoothing) * q + loss.smoothing / classes)
    return t


def softmax_cross_entropy(loss: Loss, z: Array, y: Array) -> tuple[Array, Array]:
    """Each row's sum_k t_k (ln sum_j e**z_j - z_k) and its gradient p sum(t) - t."""
    t = class_targets(loss, y, z.shape[1])
    best = z.real.argmax(axis=1)[:, None]
    below = np.take_along_axis(z, best, axis=1) - z  # top - z
    e = np.exp(-below)
    np.put_along_axis(e, best, 0, axis=1)
    rest = e.sum(axis=1, keepdims=True)
    total = t.sum(axis=1, keepdims=True)
    gradient = e * total / (1 + rest) - t
    # p total - t of the largest, but accurate where p is almost 1
    largest = np.take_along_axis(t, best, axis=1)
    np.put_along_axis(t, best, 0, axis=1)
    others = t.sum(axis=1, keepdims=True)
    np.put_along_axis(gradient, best, (others - largest * rest) / (1 + rest), axis=1)
    return (total * np.log1p(rest) + (t * below).sum(axis=1, keepdims=True))[:, 0], gradient


def output_loss(loss: Loss, z: Array, y: Array) -> tuple[Array, Array]:
    """Each output's loss [B, O] and its derivative by the output."""
    d = z - y
    above = d.real > 0
    if loss.name == "squared_error":
        return d * d, 2 * d
    if loss.name == "half_squared_error":
        return d * d / 2, d
    if loss.name == "huber":
        c = np.where(magnitude(d).real > loss.delta, loss.delta, magnitude(d))
        return c * (magnitude(d) - c / 2), np.where(above, c, -c)
    if loss.name == "absolute_error":
        return magnitude(d), np.sign(d.real)
    if loss.name == "pinball":
        slope = np.where(above, 1, 0) - np.asarray(loss.quantiles)
        return d * slope, np.where(d == 0, 0, slope)
    if loss.name == "poisson":
        return np.exp(z) - y * z, np.exp(z) - y
    # binary_cross_entropy: ln(1 + e**z) - t z, with no positive exponent and no cancellation
    t = (1 - loss.smoothing) * y + loss.smoothing / 2
    negative, positive = (1, 1) if loss.class_weights is None else loss.class_weights
    weight = y * positive + (1 - y) * negative
    m = magnitude(z)
    far = np.where(z.real < 0, t, 1 - t)
    slope = np.exp(-m) / (1 + np.exp(-m)) - far
    return weight * (np.log1p(np.exp(-m)) + m * far), weight * np.where(z.real < 0, slope, -slope)


def sample_losses(loss: Loss, z: Array, y: Array) -> tuple[Array, Array]:
    """Each sample's loss [B], a sum over its outputs, and its gradient [B, O] by the outputs."""
    if loss.name == "softmax_cross_entropy":
        return softmax_cross_entropy(loss, z, y)
    losses, gradient = output_loss(loss, z, y)
    return losses.sum(axis=1), gradient


def answers(loss: Loss, z: Array, y: Array) -> Array:
    """Whether each sample's answer is right [B]: its class, or all its signs; False if neither."""
    if loss.name == "softmax_cross_entropy":
        return np.asarray(z.argmax(axis=1) == (y if y.ndim == 1 else y.argmax(axis=1)))
    if loss.name == "binary_cross_entropy":
        return np.asarray(((z > 0) == (y > 0.5)).all(axis=1))
    return np.zeros(len(z), bool)


def row_weights(loss: Loss, y: Array, weights: Array | None = None) -> Array:
    """Each sample's share of the mean: its weight times that of its label's class."""
    w = np.ones(len(y)) if weights is None else weights
    if y.ndim == 1 and loss.class_weights is not None:
        w = w * np.asarray(loss.class_weights)[y]
    return w


def loss_of(loss: Loss, z: Array, y: Array, weights: Array | None = None) -> Any:
    """Weighted mean of the samples' losses: sum_i w_i L_i / sum_i w_i."""
    w = np.ones(len(y)) if weights is None else weights
    return (w * sample_losses(loss, z, y)[0]).sum() / row_weights(loss, y, weights).sum()


def loss_gradient(loss: Loss, z: Array, y: Array, weights: Array | None = None) -> Array:
    """Gradient [B, O] of `loss_of` by the outputs z."""
    w = np.ones(len(y)) if weights is None else weights
    share: Array = w / row_weights(loss, y, weights).sum()
    return share[:, None] * sample_losses(loss, z, y)[1]


# --- optimizers, see optimizer.py: one step on matrices of one shape


def scale(g: Array, factor: float) -> None:
    """g <- factor g."""
    g *= factor


def clamp(g: Array, limit: float) -> None:
    """g <- min(max(g, -limit), limit)."""
    np.clip(g, -limit, limit, out=g)


def penalize(g: Array, theta: Array, l2: float, l1: float) -> None:
    """g <- g + l2 theta + l1 sign(theta): the gradient of l2 ||theta||**2 / 2 + l1 sum |theta|."""
    g += l2 * theta.astype(np.float64) + l1 * np.sign(theta)


def sum_of_squares(g: Array) -> float:
    """Sum of g**2."""
    return float((g.astype(np.float64) ** 2).sum())


def average(mean: Array, theta: Array, decay: float) -> None:
    """mean <- decay mean + (1 - decay) theta."""
    mean[...] = decay * mean.astype(np.float64) + (1 - decay) * theta


def sgd(theta: Array, g: Array, rule: Any) -> None:
    """theta <- shrink theta - rate g."""
    theta[...] = rule.shrink * theta.astype(np.float64) - rule.rate * g


def without_subnormal(x: Array, like: Array) -> Array:
    """x, or 0 where it is smaller than every normal number of `like`'s dtype."""
    return np.where(np.abs(x) < np.finfo(like.dtype).tiny, 0, x)


def momentum(theta: Array, m: Array, g: Array, rule: Any) -> None:
    """m <- decay m + g; theta <- shrink theta - (rate m + gradient_rate g).

    Polyak: rate is the learning rate, gradient_rate 0; Nesterov: decay times it, and it.
    """
    m[...] = without_subnormal(rule.decay_1 * m.astype(np.float64) + g, m)
    step = rule.rate * m.astype(np.float64) + rule.gradient_rate * g
    theta[...] = rule.shrink * theta.astype(np.float64) - step


def denominator(v: Array, rule: Any) -> Array:
    """sqrt(v root**2 + epsilon_inside) + epsilon_outside; one epsilon is 0."""
    inside = v.astype(np.float64) * rule.root**2 + rule.epsilon_inside
    return np.asarray(np.sqrt(inside) + rule.epsilon_outside)


def scaled(theta: Array, v: Array, g: Array, rule: Any) -> None:
    """v <- decay v + gain g**2; theta <- shrink theta - rate g / denominator(v).

    Adagrad: decay = gain = 1; RMSProp: gain = 1 - decay.
    """
    g = g.astype(np.float64)
    v[...] = without_subnormal(rule.decay_2 * v.astype(np.float64) + rule.gain_2 * g**2, v)
    theta[...] = rule.shrink * theta.astype(np.float64) - rule.rate * g / denominator(v, rule)


def adam(theta: Array, m: Array, v: Array, g: Array, rule: Any) -> None:
    """m <- beta1 m + (1 - beta1) g; v <- v + gain (g**2 - v), then
    theta <- shrink theta - (rate m + gradient_rate g) / denominator(v).

    Adam, at step t: rate alpha / (1 - beta1**t), root 1 / sqrt(1 - beta2**t), gain 1 - beta2, so
    that m and v are freed of their start at zero. AdamW shrinks too; NAdam has a gradient_rate.
    """
    g = g.astype(np.float64)
    m[...] = without_subnormal(rule.decay_1 * m.astype(np.float64) + (1 - rule.decay_1) * g, m)
    v[...] = without_subnormal((1 - rule.gain_2) * v.astype(np.float64) + rule.gain_2 * g**2, v)
    step = (rule.rate * m.astype(np.float64) + rule.gradient_rate * g) / denominator(v, rule)
    theta[...] = rule.shrink * theta.astype(np.float64) - step


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


# --- the whole step, see network.py, norm.py, dropout.py and program.py. Arrays of parameters may
# --- have axes in front, for as many networks at once, and be complex, for complex steps


@dataclass(frozen=True)
class Layer:
    """U = A' W + b; Z = gain xhat + shift if there is a norm, else U; H = f(Z); A = H mask.

    With an input_scale [..., I], U = A' diag(input_scale) W + b; the first layer may have one.
    weight [..., I, O]; bias, slope (of prelu), gain, shift [..., O]. `norm` is "batch", "layer" or
    "", `parameter` is of the activation. Batch norm takes the mean and variance [O] that are given,
    else those of the rows. `mask` [B, O] is that of dropout. The output layer has neither norm nor
    mask, and the identity as its activation.
    """

    weight: Array
    bias: Array
    activation: str = "identity"
    parameter: float = 0.0
    slope: Any = None
    norm: str = ""
    epsilon: float = 0.0
    gain: Any = None
    shift: Any = None
    mean: Any = None
    variance: Any = None
    mask: Any = 1.0
    l2: float = 0.0
    l1: float = 0.0
    input_scale: Any = None


@dataclass(frozen=True)
class Values:
    """What a layer computes: Z and A [..., B, O], and for the norm's sake xhat and 1 / sigma."""

    z: Array
    a: Array
    xhat: Any = None
    spread: Any = None


def row(p: Any) -> Any:
    """Parameters [..., O] as rows [..., 1, O]."""
    return np.asarray(p)[..., None, :]


def draw_mask(p: float, seed: int, step: int, layer: int, rows: int, units: int) -> Array:
    """Mask [B, O] of dropout: 0 with probability p, else 1 / (1 - p)."""
    words = [
        [
            philox(unit, group, step & MASK, layer + 1, seed & MASK, seed >> 32)
            for unit in range(units)
        ]
        for group in range((rows + 3) // 4)
    ]
    draws = np.array(words, np.uint64).transpose(0, 2, 1).reshape(-1, units)[:rows]
    return np.where(draws >= int(p * 2.0**32), 1 / (1 - p), 0.0)


def layer_forward(layer: Layer, a: Array) -> Values:
    """Z and A of a layer from the A [..., B, I] of the one below."""
    if layer.input_scale is not None:
        a = a * row(layer.input_scale)
    z, xhat, spread = a @ layer.weight + row(layer.bias), None, None
    if layer.norm:
        axis = -2 if layer.norm == "batch" else -1
        if layer.mean is None:
            mean = z.mean(axis, keepdims=True)
            variance = ((z - mean) ** 2).mean(axis, keepdims=True)
        else:
            mean, variance = layer.mean, layer.variance
        spread = 1 / np.sqrt(variance + layer.epsilon)
        xhat = (z - mean) * spread
        z = row(layer.gain) * xhat + row(layer.shift)
    parameter = row(layer.slope) if layer.activation == "prelu" else layer.parameter
    h = ACTIVATIONS[layer.activation][0](z, parameter)
    return Values(z, h * layer.mask, xhat, spread)


def forward(layers: Sequence[Layer], X: Array) -> list[Values]:
    """What each layer computes for the inputs X [B, I]; dropout of the inputs is done already."""
    values: list[Values] = []
    for layer in layers:
        values.append(layer_forward(layer, values[-1].a if values else X))
    return values


def penalty(layers: Sequence[Layer]) -> Any:
    """sum over the layers of l2/2 sum W**2 + l1 sum |W|."""
    return sum(
        (layer.l2 / 2 * layer.weight**2 + layer.l1 * magnitude(layer.weight)).sum((-2, -1))
        for layer in layers
    )


def mean_loss(loss: Loss, z: Array, y: Array, weights: Array | None = None) -> Any:
    """`loss_of` the outputs z [..., B, O] of one or of many networks."""
    targets = np.tile(y, (z[..., 0].size // len(y), *[1] * (y.ndim - 1)))
    losses = sample_losses(loss, z.reshape(-1, z.shape[-1]), targets)[0].reshape(z.shape[:-1])
    w = np.ones(len(y)) if weights is None else weights
    return (w * losses).sum(-1) / row_weights(loss, y, weights).sum()


def norm_backward(layer: Layer, values: Values, dxhat: Array) -> Array:
    """dU from dL/dxhat; where mean and sigma are those of the rows or units, they change too."""
    if layer.mean is None:
        axis = -2 if layer.norm == "batch" else -1
        along = values.xhat * (dxhat * values.xhat).mean(axis, keepdims=True)
        dxhat = dxhat - dxhat.mean(axis, keepdims=True) - along
    du: Array = dxhat * values.spread
    return du


def loss_and_gradient(
    layers: Sequence[Layer], loss: Loss, X: Array, y: Array, weights: Array | None = None
) -> tuple[Any, list[dict[str, Array]]]:
    """Mean loss plus penalty, and its gradient: for each layer, by the names of `Layer`.

    The parameters have no axes in front here. Their complex steps give products with the Hessian.
    """
    values = forward(layers, X)
    gradients: list[dict[str, Array]] = []
    dz = loss_gradient(loss, values[-1].z, y, weights)
    for number in reversed(range(len(layers))):
        layer, mine, gradient = layers[number], values[number], {}
        if number < len(layers) - 1:
            da = (dz @ layers[number + 1].weight.T) * layer.mask
            parameter = layer.slope if layer.activation == "prelu" else layer.parameter
            dz = da * ACTIVATIONS[layer.activation][1](mine.z, parameter)
            if layer.activation == "prelu":
                sums = (da * negative(mine.z)).sum(0)
                gradient["slope"] = sums if len(layer.slope) > 1 else sums.sum(keepdims=True)
        if layer.norm:
            gradient["gain"], gradient["shift"] = (dz * mine.xhat).sum(0), dz.sum(0)
            dz = norm_backward(layer, mine, dz * layer.gain)
        a = values[number - 1].a if number > 0 else X
        if layer.input_scale is not None:
            gradient["input_scale"] = (a * (dz @ layer.weight.T)).sum(0)
            a = a * layer.input_scale
        gradient["weight"] = (
            a.T @ dz + layer.l2 * layer.weight + layer.l1 * np.sign(layer.weight.real)
        )
        gradient["bias"] = dz.sum(0)
        gradients.insert(0, gradient)
    mean = mean_loss(loss, values[-1].z, y, weights) + penalty(layers)
    return mean, gradients
