"""What becomes of a gradient: it is kept, added up, or turned into an update at once.

Every function here works on matrices of one shape, a block of the flat vectors that share one
layout: parameters theta, gradient g, first moment m, second moment v. `g` may be a strip that has
just been computed and lies in L1, or a block of the whole gradient; the arithmetic is the same, so
both ways of training give the same bits.
"""

import math
from typing import Any, NamedTuple

from ._jit import kernel
from .simd import fill, fma, lanes, load, matrix, square_root, store

KEEP, ADD, SGD, MOMENTUM, ADAM = range(5)
CODES = {"keep": KEEP, "sgd": SGD, "momentum": MOMENTUM, "adam": ADAM}
LEARNING_RATE, DECAY_1, DECAY_2, EPSILON = range(4)  # entries of the vector of hyperparameters


class Parameters(NamedTuple):
    """Flat vectors of one layout; those that an optimizer does not use may be empty."""

    theta: Any
    gradient: Any
    first: Any
    second: Any


class Rule(NamedTuple):
    """One step's rule: its code and its numbers, bias correction included."""

    code: int
    rate: float
    decay_1: float
    decay_2: float
    epsilon: float
    root_correction: float


@kernel
def make_rule(code, hyper, step):
    """The rule of step 1, 2, ... from the hyperparameters.

    Adam's corrections 1 - beta**step go into the rate and into the root once per step.
    """
    rate, correction = hyper[LEARNING_RATE], 1.0
    if code == ADAM:
        rate /= 1.0 - hyper[DECAY_1] ** step
        correction = math.sqrt(1.0 - hyper[DECAY_2] ** step)
    return Rule(code, rate, hyper[DECAY_1], hyper[DECAY_2], hyper[EPSILON], correction)


@kernel
def keep(gradient, g):
    """gradient <- g."""
    for i in range(g.shape[0]):
        for j in range(0, g.shape[1], lanes(g)):
            store(gradient, i, j, load(g, i, j))


@kernel
def add(gradient, g):
    """gradient <- gradient + g."""
    for i in range(g.shape[0]):
        for j in range(0, g.shape[1], lanes(g)):
            store(gradient, i, j, load(gradient, i, j) + load(g, i, j))


@kernel
def sgd(theta, g, rate):
    """theta <- theta - rate g."""
    for i in range(g.shape[0]):
        for j in range(0, g.shape[1], lanes(g)):
            p = load(theta, i, j)
            store(theta, i, j, fma(fill(p, -rate), load(g, i, j), p))


@kernel
def momentum(theta, m, g, rate, decay):
    """m <- decay m + g; theta <- theta - rate m (B. T. Polyak, 1964, in PyTorch's scaling)."""
    for i in range(g.shape[0]):
        for j in range(0, g.shape[1], lanes(g)):
            p = load(theta, i, j)
            velocity = fma(fill(p, decay), load(m, i, j), load(g, i, j))
            store(m, i, j, velocity)
            store(theta, i, j, fma(fill(p, -rate), velocity, p))


@kernel
def adam(theta, m, v, g, rule):
    """m <- m + (1 - beta1)(g - m), v <- v + (1 - beta2)(g**2 - v), theta <- theta - rate m / r.

    r = sqrt(v / (1 - beta2**t)) + epsilon, rate = alpha / (1 - beta1**t). D. P. Kingma, J. Ba,
    "Adam: a method for stochastic optimization" (ICLR 2015), algorithm 1.
    """
    for i in range(g.shape[0]):
        for j in range(0, g.shape[1], lanes(g)):
            p, gradient = load(theta, i, j), load(g, i, j)
            first, second = load(m, i, j), load(v, i, j)
            first = fma(fill(p, 1.0 - rule.decay_1), gradient - first, first)
            second = fma(fill(p, 1.0 - rule.decay_2), fma(gradient, gradient, -second), second)
            store(m, i, j, first)
            store(v, i, j, second)
            root = fma(
                square_root(second), fill(p, 1.0 / rule.root_correction), fill(p, rule.epsilon)
            )
            store(theta, i, j, fma(fill(p, -rule.rate), first / root, p))


@kernel
def apply(rule, parameters, offset, stride, g):
    """Hand the gradient g [R, C] of the block at `offset` (rows `stride` apart) to the rule."""
    rows, columns = g.shape
    if rule.code == KEEP:
        keep(matrix(parameters.gradient, offset, rows, columns, stride), g)
    elif rule.code == ADD:
        add(matrix(parameters.gradient, offset, rows, columns, stride), g)
    else:
        theta = matrix(parameters.theta, offset, rows, columns, stride)
        if rule.code == SGD:
            sgd(theta, g, rule.rate)
        elif rule.code == MOMENTUM:
            m = matrix(parameters.first, offset, rows, columns, stride)
            momentum(theta, m, g, rule.rate, rule.decay_1)
        elif rule.code == ADAM:
            m = matrix(parameters.first, offset, rows, columns, stride)
            v = matrix(parameters.second, offset, rows, columns, stride)
            adam(theta, m, v, g, rule)
