"""The activation functions: each forward, beside its derivative.

A layer keeps what the derivative is a function of: the output a = f(z), or, for the codes in
`NEEDS_INPUT`, z itself.

The self-gated functions (gelu, gelu_tanh, silu, mish) are written as max(z, 0) - h: h vanishes
at both ends, so nothing overflows, and the tail at negative z keeps its relative accuracy. In all
but mish, h is a function of |z|, so that f'(z) is h'(|z|) or 1 - h'(|z|).
"""

import numpy as np

from ._jit import inlined, kernel
from .elementwise import (
    LIFT,
    exp_parts,
    exp_terms_of_sum,
    exp_times,
    expm1,
    expm1_parts,
    gaussian_times,
    gelu_terms,
    inverse,
    log1p_parts,
    logistic_parts,
    rounded_sum,
    tail_ratio,
    tanh_of_segments,
)
from .machine import HAS_AVX512, WRITE_AHEAD
from .simd import (
    absolute,
    ask_to_write,
    by_dtype,
    choose_less,
    copy_sign,
    fill,
    fma,
    is_double,
    lanes,
    load,
    scale,
    smaller_magnitude,
    store,
)

(
    IDENTITY,
    RELU,
    SIGMOID,
    TANH,
    SOFTPLUS,
    LEAKY_RELU,
    PRELU,
    ELU,
    SELU,
    GELU,
    GELU_TANH,
    SILU,
    MISH,
) = range(13)
CODES = {
    "identity": IDENTITY,
    "relu": RELU,
    "sigmoid": SIGMOID,
    "tanh": TANH,
    "softplus": SOFTPLUS,
    "leaky_relu": LEAKY_RELU,
    "prelu": PRELU,
    "elu": ELU,
    "selu": SELU,
    "gelu": GELU,
    "gelu_tanh": GELU_TANH,
    "silu": SILU,
    "mish": MISH,
}
# the derivative is computed from z: the output does not tell it, or a slope below 0 hides z's sign
NEEDS_INPUT = frozenset({LEAKY_RELU, PRELU, ELU, GELU, GELU_TANH, SILU, MISH})
# the derivative jumps at 0 (that of elu unless alpha is 1)
KINKED = frozenset({RELU, LEAKY_RELU, PRELU, ELU, SELU})

SELU_SCALE = 1.0507009873554804934193349852946
# the scale times alpha = 1.6732632423543772848170429916717
SELU_LEFT = 1.7580993408473768599402175208123
# what float64 cuts off of both
SELU_RESTS = 3.98748476671541454e-17, 1.41535193800844783e-17
# 1 / sqrt(2 pi)
DENSITY = 0.39894228040143267794
# gelu_tanh is z / (1 + e**-s) with s = 2 sqrt(2 / pi) (z + 0.044715 z**3)
TANH_LINEAR, TANH_CUBIC = 1.5957691216057307118, 0.0713548162726002487763
# what float32 and float64 cut off there
LINEAR_RESTS = TANH_LINEAR - float(np.float32(TANH_LINEAR)), -9.96930880911092e-17
CUBIC_RESTS = TANH_CUBIC - float(np.float32(TANH_CUBIC)), -6.175149918155315e-19
# beyond these |z|, h is 0 in float32 and float64
EXP_LIMITS = 120.0, 760.0
NORMAL_LIMITS = 15.0, 39.0
TANH_LIMITS = 12.0, 22.0
# within the last segments of the tables for float32, where tanh is 1 and h is 0
TANH_END, GELU_END = 9.2, 14.36


@inlined
def magnitude(x, limit):
    """|x|, but at most the limit."""
    t = absolute(x)
    return choose_less(limit, t, limit, t)


@inlined
def below_zero(x):
    """-|x|, but not below where e**-|x| and |x| e**-|x| have long become 0."""
    limit = fill(x, -EXP_LIMITS[1] if is_double(x) else -EXP_LIMITS[0])
    x = -absolute(x)
    return choose_less(x, limit, limit, x)


@inlined
def relu(x):
    """max(x, 0)."""
    zero = fill(x, 0.0)
    return choose_less(x, zero, zero, x)


@inlined
def relu_slope(a):
    """1 where a > 0, else 0."""
    zero = fill(a, 0.0)
    return choose_less(zero, a, fill(a, 1.0), zero)


@inlined
def sigmoid(x):
    """1 / (1 + e**-x), from e**-|x|, which does not overflow."""
    n, p, rest = exp_parts(below_zero(x))
    h, d, rest = logistic_parts(n, p, rest)
    h = scale(fma(d, rest, h), n)
    return choose_less(x, fill(x, 0.0), h, fill(x, 1.0) - h)


@inlined
def sigmoid_slope(a):
    """a (1 - a)."""
    return a * (fill(a, 1.0) - a)


@inlined
def _tanh_of_segments(x):
    return copy_sign(tanh_of_segments(magnitude(x, fill(x, TANH_END))), x)


@inlined
def _tanh_of_exp(x):
    """(1 - e) / (1 + e) with e = e**(-2 |x|), and the sign of x."""
    top, rest = expm1_parts(-absolute(x + x))
    d = inverse(top + fill(x, 2.0))
    a = top * d
    # what a (2 + top + rest) lacks for top + rest
    lack = fma(-a, top, fma(fill(x, -2.0), a, top)) + fma(-a, rest, rest)
    return copy_sign(fma(lack, d, a), x)


tanh = by_dtype(_tanh_of_segments, _tanh_of_exp) if HAS_AVX512 else _tanh_of_exp


@inlined
def tanh_slope(a):
    """1 - a**2, as (1 - a)(1 + a), which does not cancel near |a| = 1."""
    one = fill(a, 1.0)
    return (one - a) * (one + a)


@inlined
def softplus(x):
    """ln(1 + e**x) = max(x, 0) + ln(1 + e**-|x|); no threshold."""
    n, p, rest = exp_parts(below_zero(x))
    high, low = log1p_parts(scale(p, n), scale(rest, n))
    return high + (relu(x) + low)


@inlined
def softplus_slope(a):
    """sigmoid(z) = 1 - e**-a."""
    return -expm1(-a)


@inlined
def rectifier(x, slope):
    """x where x > 0, else slope x."""
    return choose_less(fill(x, 0.0), x, x, slope * x)


@inlined
def rectifier_slope(x, slope):
    """1 where x > 0, else the slope."""
    return choose_less(fill(x, 0.0), x, fill(x, 1.0), slope)


@inlined
def elu(x, right, left, right_rest, left_rest):
    """(right + its rest) x where x > 0, else (left + its rest) (e**x - 1)."""
    zero = fill(x, 0.0)
    y, rest = expm1_parts(choose_less(zero, x, zero, x))
    y = fma(left, y, fma(left, rest, left_rest * y))
    finite = choose_less(x, fill(x, 3e38), x, zero)
    return choose_less(zero, x, fma(right, x, right_rest * finite), y)


@inlined
def elu_slope(x, right, left):
    """Right where x > 0, else left e**x."""
    return choose_less(fill(x, 0.0), x, right, exp_times(left, below_zero(x)))


@inlined
def selu_slope(a):
    """The scale where a > 0, else a + scale alpha = scale alpha e**z."""
    scale, left = fill(a, SELU_SCALE), fill(a, SELU_LEFT)
    return choose_less(fill(a, 0.0), a, scale, a + left)


@inlined
def gate_slope(x, dh):
    """f'(x) from dh = h'(|x|), where h is the same for both signs."""
    return choose_less(x, fill(x, 0.0), dh, fill(x, 1.0) - dh)


@inlined
def _gelu_of_segments(x):
    """x Phi(x); near 0, where the terms are not positive, x/2 - t (Phi(-t) - 1/2)."""
    large, lifted = gelu_terms(smaller_magnitude(x, fill(x, GELU_END)))
    start = choose_less(fill(x, 0.0), large, relu(x), x * fill(x, 0.5))
    return fma(lifted, fill(x, -1 / LIFT), start)


@inlined
def _gelu_of_series(x):
    """x Phi(x): h = t Phi(-t)."""
    t = magnitude(x, fill(x, NORMAL_LIMITS[1] if is_double(x) else NORMAL_LIMITS[0]))
    return relu(x) - gaussian_times(t * tail_ratio(t), t)


gelu = by_dtype(_gelu_of_segments, _gelu_of_series) if HAS_AVX512 else _gelu_of_series


@inlined
def gelu_slope(x):
    """Phi(x) + x phi(x): h' = Phi(-t) - t phi(t)."""
    t = magnitude(x, fill(x, NORMAL_LIMITS[1] if is_double(x) else NORMAL_LIMITS[0]))
    return gate_slope(x, gaussian_times(fma(fill(x, -DENSITY), t, tail_ratio(t)), t))


@inlined
def tanh_exponent(t):
    """s / t, see TANH_LINEAR and TANH_CUBIC."""
    return fma(fill(t, TANH_CUBIC), t * t, fill(t, TANH_LINEAR))


@inlined
def gelu_tanh(x):
    """x / (1 + e**-s): h = t e / (1 + e) with e = e**-s, s being a sum of two."""
    t = magnitude(x, fill(x, TANH_LIMITS[1] if is_double(x) else TANH_LIMITS[0]))
    linear, cubic = fill(x, -TANH_LINEAR), fill(x, -TANH_CUBIC)
    linear_rest = fill(x, -LINEAR_RESTS[1] if is_double(x) else -LINEAR_RESTS[0])
    cubic_rest = fill(x, -CUBIC_RESTS[1] if is_double(x) else -CUBIC_RESTS[0])
    square = t * t
    product = cubic * square
    factor = product + linear
    back = factor - product
    rest = ((product - (factor - back)) + (linear - back)) + linear_rest
    rest = fma(cubic_rest, square, rest) + fma(cubic, square, -product)
    rest = fma(cubic, fma(t, t, -square), rest)
    s = factor * t
    n, large, small = exp_terms_of_sum(s, fma(rest, t, fma(factor, t, -s)))
    p, rest = rounded_sum(large, small)
    h, d, rest = logistic_parts(n, p, rest)
    return relu(x) - scale(fma(t, h, t * d * rest), n)


@inlined
def gelu_tanh_slope(x):
    """h' = e / (1 + e) - t s' e / (1 + e)**2."""
    t = magnitude(x, fill(x, TANH_LIMITS[1] if is_double(x) else TANH_LIMITS[0]))
    one = fill(x, 1.0)
    s = t * tanh_exponent(t)
    ds = fma(fill(x, 3 * TANH_CUBIC), t * t, fill(x, TANH_LINEAR))
    d = one / (exp_times(one, -s) + one)
    return gate_slope(x, exp_times(d * fma(-(t * ds), d, one), -s))


@inlined
def silu(x):
    """x / (1 + e**-x): h = |x| / (1 + e**|x|); here t = -|x|, so -h is added."""
    t = below_zero(x)
    n, p, rest = exp_parts(t)
    h, d, rest = logistic_parts(n, p, rest)
    return relu(x) + scale(fma(t, h, t * d * rest), n)


@inlined
def silu_slope(x):
    """h' = s (1 + t (1 - s)) with s = 1 / (1 + e**-t), t = -|x|."""
    t = below_zero(x)
    n, p, rest = exp_parts(t)
    h, d, rest = logistic_parts(n, p, rest)
    one = fill(x, 1.0)
    h = fma(d, rest, h)
    return gate_slope(x, scale(h * fma(t, one - scale(h, n), one), n))


@inlined
def mish_parts(x, e):
    """n and D with tanh(softplus(x)) = n e / D for x < 0 and 1 - n e / D else; e = e**-|x|."""
    zero, one, two = fill(x, 0.0), fill(x, 1.0), fill(x, 2.0)
    n = choose_less(x, zero, e + two, e + e)
    return n, choose_less(x, zero, fma(e, n, two), fma(e + one, n, one))


@inlined
def mish(x):
    """x tanh(ln(1 + e**x)): h = t e n / D, a rational function of e = e**-t but for t e.

    As `mish_parts` has them, with n and D = m n + c in two parts each; here t = -|x|.
    """
    zero, one, two = fill(x, 0.0), fill(x, 1.0), fill(x, 2.0)
    t = below_zero(x)
    k, p, p_rest = exp_parts(t)
    e, e_rest = scale(p, k), scale(p_rest, k)
    n = choose_less(x, zero, e + two, e + e)
    n_rest = choose_less(x, zero, ((two - n) + e) + e_rest, e_rest + e_rest)
    m = choose_less(x, zero, e, e + one)
    m_rest = choose_less(x, zero, e_rest, ((one - m) + e) + e_rest)
    c = choose_less(x, zero, two, one)
    product = m * n
    bottom = product + c
    rest = fma(m, n, -product) + (product - (bottom - c))
    rest = fma(m, n_rest, fma(m_rest, n, rest))
    d = one / bottom
    f = n * d
    f_rest = (fma(-f, bottom, n) + fma(-f, rest, n_rest)) * d
    h = t * p
    h_rest = fma(t, p_rest, fma(t, p, -h))
    return relu(x) + scale(fma(h, f, fma(h, f_rest, h_rest * f)), k)


@inlined
def mish_slope(x):
    """h' = e (n D - 4 t (1 + e) (1 or e)) / D**2, 1 for x < 0."""
    t = magnitude(x, fill(x, EXP_LIMITS[1] if is_double(x) else EXP_LIMITS[0]))
    one = fill(x, 1.0)
    e = exp_times(one, -t)
    n, bottom = mish_parts(x, e)
    m = choose_less(x, fill(x, 0.0), one, e) * (e + one) * fill(x, 4.0)
    return gate_slope(x, exp_times((n - t * (m / bottom)) / bottom, -t))


def _forward_loop(function):
    @kernel
    def loop(a, z):
        for i in range(z.shape[0]):
            for j in range(0, z.shape[1], lanes(z)):
                ask_to_write(a, i, j + WRITE_AHEAD)
                store(a, i, j, function(load(z, i, j)))

    return loop


def _backward_loop(slope):
    @kernel
    def loop(da, saved):
        for i in range(da.shape[0]):
            for j in range(0, da.shape[1], lanes(da)):
                store(da, i, j, load(da, i, j) * slope(load(saved, i, j)))

    return loop


_relu_loop, _relu_backward_loop = _forward_loop(relu), _backward_loop(relu_slope)
_sigmoid_loop, _sigmoid_backward_loop = _forward_loop(sigmoid), _backward_loop(sigmoid_slope)
_tanh_loop, _tanh_backward_loop = _forward_loop(tanh), _backward_loop(tanh_slope)
_softplus_loop, _softplus_backward_loop = _forward_loop(softplus), _backward_loop(softplus_slope)
_selu_backward_loop = _backward_loop(selu_slope)


@kernel
def _gated_loop(a, z, code):
    for i in range(z.shape[0]):
        for j in range(0, z.shape[1], lanes(z)):
            ask_to_write(a, i, j + WRITE_AHEAD)
            x = load(z, i, j)
            if code == GELU:
                y = gelu(x)
            elif code == GELU_TANH:
                y = gelu_tanh(x)
            elif code == SILU:
                y = silu(x)
            else:
                y = mish(x)
            store(a, i, j, y)


@kernel
def _gated_backward_loop(da, z, code):
    for i in range(da.shape[0]):
        for j in range(0, da.shape[1], lanes(da)):
            x = load(z, i, j)
            if code == GELU:
                slope = gelu_slope(x)
            elif code == GELU_TANH:
                slope = gelu_tanh_slope(x)
            elif code == SILU:
                slope = silu_slope(x)
            else:
                slope = mish_slope(x)
            store(da, i, j, load(da, i, j) * slope)


@kernel
def _identity_loop(a, z):
    for i in range(z.shape[0]):
        for j in range(0, z.shape[1], lanes(z)):
            store(a, i, j, load(z, i, j))


@kernel
def _rectifier_loop(a, z, parameter, slopes, per_unit):
    for i in range(z.shape[0]):
        for j in range(0, z.shape[1], lanes(z)):
            x = load(z, i, j)
            slope = load(slopes, 0, j) if per_unit else fill(x, parameter)
            store(a, i, j, rectifier(x, slope))


@kernel
def _rectifier_backward_loop(da, z, parameter, slopes, per_unit):
    for i in range(da.shape[0]):
        for j in range(0, da.shape[1], lanes(da)):
            x = load(z, i, j)
            slope = load(slopes, 0, j) if per_unit else fill(x, parameter)
            store(da, i, j, load(da, i, j) * rectifier_slope(x, slope))


@kernel
def _elu_loop(a, z, right, left, right_rest, left_rest):
    """The rests are those of float64."""
    if not is_double(z):
        right_rest, left_rest = right - np.float32(right), left - np.float32(left)
    for i in range(z.shape[0]):
        for j in range(0, z.shape[1], lanes(z)):
            x = load(z, i, j)
            rests = fill(x, right_rest), fill(x, left_rest)
            store(a, i, j, elu(x, fill(x, right), fill(x, left), rests[0], rests[1]))


@kernel
def _elu_backward_loop(da, z, alpha):
    for i in range(da.shape[0]):
        for j in range(0, da.shape[1], lanes(da)):
            x = load(z, i, j)
            store(da, i, j, load(da, i, j) * elu_slope(x, fill(x, 1.0), fill(x, alpha)))


@kernel
def activation_forward(a, z, code, parameter, slopes):
    """a <- f(z) for matrices [B, O] whose width is a multiple of the vector's; a may be z.

    The parameter is the slope of leaky_relu and the alpha of elu; slopes [1, O] are those of prelu.
    """
    if code == IDENTITY:
        if a is not z:
            _identity_loop(a, z)
    elif code == RELU:
        _relu_loop(a, z)
    elif code == SIGMOID:
        _sigmoid_loop(a, z)
    elif code == TANH:
        _tanh_loop(a, z)
    elif code == SOFTPLUS:
        _softplus_loop(a, z)
    elif code == LEAKY_RELU or code == PRELU:
        _rectifier_loop(a, z, parameter, slopes, code == PRELU)
    elif code == ELU:
        _elu_loop(a, z, 1.0, parameter, 0.0, 0.0)
    elif code == SELU:
        _elu_loop(a, z, SELU_SCALE, SELU_LEFT, SELU_RESTS[0], SELU_RESTS[1])
    else:
        _gated_loop(a, z, code)


@kernel
def activation_backward(da, saved, code, parameter, slopes):
    """da <- da f'(z); saved is z for the codes in NEEDS_INPUT and a = f(z) for the others.

    Both [B, O], widths a multiple of the vector's. At a kink, f' is the slope on the left.
    """
    if code == RELU:
        _relu_backward_loop(da, saved)
    elif code == SIGMOID:
        _sigmoid_backward_loop(da, saved)
    elif code == TANH:
        _tanh_backward_loop(da, saved)
    elif code == SOFTPLUS:
        _softplus_backward_loop(da, saved)
    elif code == LEAKY_RELU or code == PRELU:
        _rectifier_backward_loop(da, saved, parameter, slopes, code == PRELU)
    elif code == ELU:
        _elu_backward_loop(da, saved, parameter)
    elif code == SELU:
        _selu_backward_loop(da, saved)
    elif code != IDENTITY:
        _gated_backward_loop(da, saved, code)


@kernel
def slope_backward(sums, da, z):
    """sums [1, O] <- the sums of da min(z, 0) over the rows: dL/d(slopes) of prelu, da = dL/da."""
    zero = fill(load(z, 0, 0), 0.0)
    for j in range(0, z.shape[1], lanes(z)):
        store(sums, 0, j, zero)
    for i in range(z.shape[0]):
        for j in range(0, z.shape[1], lanes(z)):
            x = load(z, i, j)
            x = choose_less(zero, x, zero, x)
            store(sums, 0, j, fma(load(da, i, j), x, load(sums, 0, j)))
