"""The activation functions: each forward, beside its derivative written in terms of the output.

A layer computes a = f(z) in place of z, so the backward pass knows a alone: f'(z) = g(a).
"""

from ._jit import inlined, kernel
from .elementwise import exp, expm1, log1p
from .simd import absolute, choose_less, fill, lanes, load, store

IDENTITY, RELU, SIGMOID, TANH, SOFTPLUS = range(5)
CODES = {
    "identity": IDENTITY,
    "relu": RELU,
    "sigmoid": SIGMOID,
    "tanh": TANH,
    "softplus": SOFTPLUS,
}


@inlined
def relu(x):
    """max(x, 0)."""
    zero = fill(x, 0.0)
    return choose_less(x, zero, zero, x)


@inlined
def relu_backward(da, a):
    """da where a > 0, else 0; so the derivative at 0 is 0."""
    zero = fill(a, 0.0)
    return choose_less(zero, a, da, zero)


@inlined
def sigmoid(x):
    """1 / (1 + e**-x), from e**-|x|, which does not overflow."""
    e = exp(-absolute(x))
    one = fill(x, 1.0)
    return choose_less(x, fill(x, 0.0), e, one) / (e + one)


@inlined
def sigmoid_backward(da, a):
    """da a (1 - a)."""
    return da * (a * (fill(a, 1.0) - a))


@inlined
def tanh(x):
    """tanh |x| = -t / (t + 2) with t = e**(-2 |x|) - 1, and the sign of x."""
    t = expm1(absolute(x) * fill(x, -2.0))
    return choose_less(fill(x, 0.0), x, -t, t) / (t + fill(x, 2.0))


@inlined
def tanh_backward(da, a):
    """da (1 - a**2), as (1 - a)(1 + a), which does not cancel near |a| = 1."""
    one = fill(a, 1.0)
    return da * ((one - a) * (one + a))


@inlined
def softplus(x):
    """ln(1 + e**x) = max(x, 0) + ln(1 + e**-|x|); no threshold."""
    return relu(x) + log1p(exp(-absolute(x)))


@inlined
def softplus_backward(da, a):
    """da sigmoid(z), where sigmoid(z) = 1 - e**-a."""
    return da * -expm1(-a)


def _forward_loop(function):
    @kernel
    def loop(z):
        for i in range(z.shape[0]):
            for j in range(0, z.shape[1], lanes(z)):
                store(z, i, j, function(load(z, i, j)))

    return loop


def _backward_loop(function):
    @kernel
    def loop(da, a):
        for i in range(da.shape[0]):
            for j in range(0, da.shape[1], lanes(da)):
                store(da, i, j, function(load(da, i, j), load(a, i, j)))

    return loop


_relu_loop, _relu_backward_loop = _forward_loop(relu), _backward_loop(relu_backward)
_sigmoid_loop, _sigmoid_backward_loop = _forward_loop(sigmoid), _backward_loop(sigmoid_backward)
_tanh_loop, _tanh_backward_loop = _forward_loop(tanh), _backward_loop(tanh_backward)
_softplus_loop, _softplus_backward_loop = _forward_loop(softplus), _backward_loop(softplus_backward)


@kernel
def activation_forward(z, code):
    """z <- f(z) for the matrix z [B, O] whose width is a multiple of the vector's."""
    if code == RELU:
        _relu_loop(z)
    elif code == SIGMOID:
        _sigmoid_loop(z)
    elif code == TANH:
        _tanh_loop(z)
    elif code == SOFTPLUS:
        _softplus_loop(z)


@kernel
def activation_backward(da, a, code):
    """da <- da f'(z) where a = f(z); both [B, O], widths a multiple of the vector's."""
    if code == RELU:
        _relu_backward_loop(da, a)
    elif code == SIGMOID:
        _sigmoid_backward_loop(da, a)
    elif code == TANH:
        _tanh_backward_loop(da, a)
    elif code == SOFTPLUS:
        _softplus_backward_loop(da, a)
