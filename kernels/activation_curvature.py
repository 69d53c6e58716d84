"""First and second derivatives of the activation functions, both from z, for second-order work.

The smooth second derivatives, but for that of mish, are odd or even in z, so they are written in
t = |z|, with e = e**-t or the like; see activation.py for h.
"""

from ._jit import inlined, kernel
from .activation import (
    DENSITY,
    ELU,
    EXP_LIMITS,
    GELU,
    GELU_TANH,
    IDENTITY,
    LEAKY_RELU,
    MISH,
    NORMAL_LIMITS,
    PRELU,
    SELU,
    SELU_LEFT,
    SELU_SCALE,
    SIGMOID,
    SILU,
    SOFTPLUS,
    TANH,
    TANH_CUBIC,
    TANH_LIMITS,
    TANH_LINEAR,
    elu_slope,
    gelu_slope,
    gelu_tanh_slope,
    magnitude,
    mish_parts,
    mish_slope,
    rectifier_slope,
    sigmoid,
    silu_slope,
    tanh,
    tanh_exponent,
)
from .elementwise import exp, exp_times, gaussian_times
from .simd import absolute, choose_less, fill, fma, is_double, lanes, load, store


@inlined
def _logistic(t):
    """d = 1 / (1 + e) and (1 - e) d for e = e**-t."""
    one = fill(t, 1.0)
    e = exp(-t)
    d = one / (e + one)
    return d, (one - e) * d


@inlined
def _sigmoid(x):
    """s' = e d**2, s'' = s' (1 - 2 s)."""
    d, odd = _logistic(absolute(x))
    first = exp(-absolute(x)) * d * d
    return first, first * choose_less(x, fill(x, 0.0), odd, -odd)


@inlined
def _tanh(x):
    """4 e d**2 with e = e**-2t, and -2 tanh(x) times that."""
    t = absolute(x) * fill(x, 2.0)
    d, _ = _logistic(t)
    first = exp(-t) * d * d * fill(x, 4.0)
    return first, first * tanh(x) * fill(x, -2.0)


@inlined
def _softplus(x):
    """s(x) = sigmoid(x), and s'."""
    first, _ = _sigmoid(x)
    return sigmoid(x), first


@inlined
def _gelu(x):
    """Second: phi(t) (2 - t**2)."""
    t = magnitude(x, fill(x, NORMAL_LIMITS[1] if is_double(x) else NORMAL_LIMITS[0]))
    factor = fma(-t, t, fill(x, 2.0)) * fill(x, DENSITY)
    return gelu_slope(x), gaussian_times(factor, t)


@inlined
def _gelu_tanh(x):
    """Second: e d**2 (2 s' + t s'' - t s'**2 (1 - e) d)."""
    t = magnitude(x, fill(x, TANH_LIMITS[1] if is_double(x) else TANH_LIMITS[0]))
    s = t * tanh_exponent(t)
    ds = fma(fill(x, 3 * TANH_CUBIC), t * t, fill(x, TANH_LINEAR))
    d, odd = _logistic(s)
    linear = fma(fill(x, 6 * TANH_CUBIC), t * t, ds + ds)
    return gelu_tanh_slope(x), exp_times(d * d * fma(-(t * ds), ds * odd, linear), -s)


@inlined
def _silu(x):
    """Second: e d**2 (2 - t (1 - e) d)."""
    t = magnitude(x, fill(x, EXP_LIMITS[1] if is_double(x) else EXP_LIMITS[0]))
    d, odd = _logistic(t)
    return silu_slope(x), exp_times(d * d * fma(-t, odd, fill(x, 2.0)), -t)


@inlined
def _mish(x):
    """Second: 4 e (1 or e) (2 (1 + e) D + t p) / D**3, p a cubic polynomial of e."""
    zero, one, two, three = fill(x, 0.0), fill(x, 1.0), fill(x, 2.0), fill(x, 3.0)
    t = magnitude(x, fill(x, EXP_LIMITS[1] if is_double(x) else EXP_LIMITS[0]))
    e = exp_times(one, -t)
    _, bottom = mish_parts(x, e)
    left = fma(fma(fma(two, e, three), e, -two), e, -two)
    right = fma(fma(fma(two, e, two), e, -three), e, -two)
    top = fma(t, choose_less(x, zero, left, right), two * (e + one) * bottom)
    factor = choose_less(x, zero, one, e) * fill(x, 4.0) * top / (bottom * bottom * bottom)
    return mish_slope(x), exp_times(factor, -t)


def _loop(derivatives):
    @kernel
    def loop(first, second, z):
        for i in range(z.shape[0]):
            for j in range(0, z.shape[1], lanes(z)):
                d1, d2 = derivatives(load(z, i, j))
                store(first, i, j, d1)
                store(second, i, j, d2)

    return loop


_sigmoid_loop, _tanh_loop, _softplus_loop = _loop(_sigmoid), _loop(_tanh), _loop(_softplus)
_gelu_loop, _gelu_tanh_loop = _loop(_gelu), _loop(_gelu_tanh)
_silu_loop, _mish_loop = _loop(_silu), _loop(_mish)


@kernel
def _rectifier_loop(first, second, z, parameter, slopes, per_unit):
    for i in range(z.shape[0]):
        for j in range(0, z.shape[1], lanes(z)):
            x = load(z, i, j)
            slope = load(slopes, 0, j) if per_unit else fill(x, parameter)
            store(first, i, j, rectifier_slope(x, slope))
            store(second, i, j, fill(x, 0.0))


@kernel
def _elu_loop(first, second, z, right, left):
    for i in range(z.shape[0]):
        for j in range(0, z.shape[1], lanes(z)):
            x = load(z, i, j)
            slope = elu_slope(x, fill(x, right), fill(x, left))
            zero = fill(x, 0.0)
            store(first, i, j, slope)
            store(second, i, j, choose_less(zero, x, zero, slope))


@kernel
def activation_derivatives(first, second, z, code, parameter, slopes):
    """first <- f'(z), second <- f''(z); all [B, O], the rest as in `activation_forward`.

    At a kink both are those on the left.
    """
    if code == SIGMOID:
        _sigmoid_loop(first, second, z)
    elif code == TANH:
        _tanh_loop(first, second, z)
    elif code == SOFTPLUS:
        _softplus_loop(first, second, z)
    elif code == GELU:
        _gelu_loop(first, second, z)
    elif code == GELU_TANH:
        _gelu_tanh_loop(first, second, z)
    elif code == SILU:
        _silu_loop(first, second, z)
    elif code == MISH:
        _mish_loop(first, second, z)
    elif code == ELU or code == SELU:
        right = SELU_SCALE if code == SELU else 1.0
        left = SELU_LEFT if code == SELU else parameter
        _elu_loop(first, second, z, right, left)
    else:
        slope = 0.0  # relu
        if code == IDENTITY:
            slope = 1.0
        elif code == LEAKY_RELU:
            slope = parameter
        _rectifier_loop(first, second, z, slope, slopes, code == PRELU)
