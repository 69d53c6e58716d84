"""What becomes of a gradient: it is kept, added up, or turned into an update at once.

Every function here works on matrices of one shape, a block of the flat vectors that share one
layout: parameters theta, gradient g, first moment m, second moment v. `g` may be a strip that has
just been computed and lies in L1, or a block of the whole gradient; the arithmetic is the same, so
both ways of training give the same bits.

What changes from step to step, learning rate and bias corrections, is computed by Python ahead of
the run, one row of numbers for each step: a rule here knows no schedule and no step number.
"""

from typing import Any, NamedTuple

from . import machine
from ._jit import inlined, kernel
from .simd import (
    choose_less,
    choose_normal,
    fill,
    fma,
    guess_inverse_root,
    is_double,
    lanes,
    load,
    matrix,
    square_root,
    store,
)

KEEP, ADD, SGD, MOMENTUM, SCALED, ADAM = range(6)
CODES = {"keep": KEEP, "add": ADD, "sgd": SGD, "momentum": MOMENTUM, "scaled": SCALED, "adam": ADAM}
# entries of the vector of constants, and the columns of the table with a row for each step
DECAY_1, DECAY_2, GAIN_2, EPSILON_INSIDE, EPSILON_OUTSIDE, CLIP, AVERAGE_DECAY = range(7)
RATE, GRADIENT_RATE, ROOT, SHRINK = range(4)
CONSTANTS, COLUMNS = AVERAGE_DECAY + 1, SHRINK + 1
# a step is so many times too large until it is applied, so that it is seldom subnormal before
UP = 2.0**32
# Newton's steps from a guess, before a last one to float32
ROOT_STEPS = 0 if machine.HAS_AVX512 else 2


class Parameters(NamedTuple):
    """Flat vectors of one layout; those that are not used may be empty.

    `average` holds the exponentially averaged parameters.
    """

    theta: Any
    gradient: Any
    first: Any
    second: Any
    average: Any


class Rule(NamedTuple):
    """One step's rule: its code and its numbers. clip and average_decay 0: neither is done."""

    code: int
    rate: float
    gradient_rate: float
    root: float
    shrink: float
    decay_1: float
    decay_2: float
    gain_2: float
    epsilon_inside: float
    epsilon_outside: float
    clip: float
    average_decay: float


@kernel
def make_rule(code, hyper, row):
    """The rule of a step from the constants `hyper` and the step's row of the table."""
    return Rule(
        code,
        row[RATE],
        row[GRADIENT_RATE],
        row[ROOT],
        row[SHRINK],
        hyper[DECAY_1],
        hyper[DECAY_2],
        hyper[GAIN_2],
        hyper[EPSILON_INSIDE],
        hyper[EPSILON_OUTSIDE],
        hyper[CLIP],
        hyper[AVERAGE_DECAY],
    )


@kernel
def with_rate(rule, factor):
    """The rule with `factor` times the learning rate, which shrinking is in proportion to."""
    return Rule(
        rule.code,
        factor * rule.rate,
        factor * rule.gradient_rate,
        rule.root,
        rule.shrink + (1.0 - factor) * (1.0 - rule.shrink),  # the same bits with a factor of 1
        rule.decay_1,
        rule.decay_2,
        rule.gain_2,
        rule.epsilon_inside,
        rule.epsilon_outside,
        rule.clip,
        rule.average_decay,
    )


@kernel
def is_plain_descent(rule):
    """Whether the update is theta <- theta - rate g, which leaves alone what has no gradient."""
    is_plain = rule.clip == 0.0 and rule.shrink == 1.0 and rule.average_decay == 0.0
    return is_plain and rule.code == SGD


@kernel
def fill_rows(g, value):
    """g <- value."""
    for i in range(g.shape[0]):
        for j in range(0, g.shape[1], lanes(g)):
            store(g, i, j, fill(load(g, i, j), value))


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
def scale(scaled, g, factor):
    """scaled <- factor g; it may be g."""
    for i in range(g.shape[0]):
        for j in range(0, g.shape[1], lanes(g)):
            x = load(g, i, j)
            store(scaled, i, j, fill(x, factor) * x)


@kernel
def clamp(g, limit):
    """g <- min(max(g, -limit), limit); NaN stays NaN."""
    for i in range(g.shape[0]):
        for j in range(0, g.shape[1], lanes(g)):
            x = load(g, i, j)
            high = fill(x, limit)
            low = -high
            store(g, i, j, choose_less(x, low, low, choose_less(high, x, high, x)))


@kernel
def penalty(g, theta, l2, l1):
    """g <- l2 theta + l1 sign(theta), where sign(0) = 0."""
    scale(g, theta, l2)
    if l1 > 0.0:
        for i in range(g.shape[0]):
            for j in range(0, g.shape[1], lanes(g)):
                p = load(theta, i, j)
                zero, size = fill(p, 0.0), fill(p, l1)
                slope = choose_less(zero, p, size, choose_less(p, zero, -size, zero))
                store(g, i, j, load(g, i, j) + slope)


@kernel
def descend_by_penalty(panels, features, first, end, rule, l2):
    """theta <- theta - rate l2 theta in rows first to end - 1 that are not in the list, in panels.

    What `sgd` makes of rows whose only gradient is the penalty's.
    """
    number, count = 0, features.shape[0]
    for i in range(first, end):
        if number < count and features[number] == i:
            number += 1
            continue
        for x in range(panels.shape[0]):
            p = load(panels[x], i, 0)
            store(panels[x], i, 0, fma(fill(p, -rule.rate), fill(p, l2) * p, p))


@kernel
def average(mean, theta, decay):
    """mean <- decay mean + (1 - decay) theta."""
    for i in range(theta.shape[0]):
        for j in range(0, theta.shape[1], lanes(theta)):
            before = load(mean, i, j)
            store(mean, i, j, fma(fill(before, 1.0 - decay), load(theta, i, j) - before, before))


@kernel
def shrink(theta, rule):
    """theta <- shrink theta: only AdamW does, and a factor in a rule's loop would cost all."""
    if rule.shrink != 1.0:
        scale(theta, theta, rule.shrink)


@kernel
def sgd(theta, g, rule):
    """theta <- shrink theta - rate g."""
    shrink(theta, rule)
    for i in range(g.shape[0]):
        for j in range(0, g.shape[1], lanes(g)):
            p = load(theta, i, j)
            store(theta, i, j, fma(fill(p, -rule.rate), load(g, i, j), p))


@inlined
def without_subnormal(x):
    """x, or 0 where it is smaller than every normal number: arithmetic on those is slow.

    A moment that decays without a gradient, of an input that is seldom not zero, would get there
    and stay.
    """
    return choose_normal(x, x, fill(x, 0.0))


@inlined
def mean_square(v):
    """v as it is kept: at most half of the largest number, and never subnormal."""
    high = fill(v, 2.0**1023) if is_double(v) else fill(v, 2.0**127)
    return choose_normal(v, choose_less(high, v, high, v), fill(v, 0.0))


@kernel
def momentum(theta, m, g, rule):
    """m <- decay_1 m + g; theta <- shrink theta - (rate m + gradient_rate g).

    B. T. Polyak (1964) has no gradient_rate; I. Sutskever et al. (ICML 2013) have, for Nesterov's.
    """
    shrink(theta, rule)
    for i in range(g.shape[0]):
        for j in range(0, g.shape[1], lanes(g)):
            p, gradient = load(theta, i, j), load(g, i, j)
            velocity = fma(fill(p, rule.decay_1), load(m, i, j), gradient)
            velocity = without_subnormal(velocity)
            store(m, i, j, velocity)
            p = fma(fill(p, -rule.rate), velocity, p)
            store(theta, i, j, fma(fill(p, -rule.gradient_rate), gradient, p))


@inlined
def twice_root(x, more):
    """2 sqrt(x) + more for normal x > 0, without the divider.

    Newton's step from s = x y, where y is about 1 / sqrt(x), adds s (1 - s y) / 2.
    """
    y = guess_inverse_root(x)
    for _ in range(ROOT_STEPS):  # Newton: the error is 1.5 times its own square
        y = y * fma(-(fill(x, 0.5) * y), x * y, fill(x, 1.5))
    s = x * y
    return fma(s, fma(-s, y, fill(x, 1.0)), fma(fill(x, 2.0), s, more))


@inlined
def move(p, step, v, rule):
    """p - step / UP / (sqrt(v root**2 + epsilon_inside) + epsilon_outside).

    In float32 epsilon_inside is at least the smallest normal number, as any v is that is not zero:
    then no root is of zero.
    """
    inside, outside = rule.epsilon_inside / rule.root**2, 2.0 * rule.epsilon_outside / rule.root
    if is_double(v):
        divisor = fma(fill(v, 2.0), square_root(v + fill(v, inside)), fill(v, outside))
    else:
        divisor = twice_root(v + fill(v, max(inside, 2.0**-126)), fill(v, outside))
    return fma(fill(p, -2.0 / (UP * rule.root)), step / divisor, p)


@kernel
def scaled(theta, v, g, rule):
    """v <- decay_2 v + gain_2 g**2; theta <- `move(shrink theta, rate g, v)`.

    Adagrad (J. Duchi et al., JMLR 2011) and RMSProp (T. Tieleman, G. Hinton, 2012).
    """
    shrink(theta, rule)
    for i in range(g.shape[0]):
        for j in range(0, g.shape[1], lanes(g)):
            p, gradient = load(theta, i, j), load(g, i, j)
            second = fill(p, rule.decay_2) * load(v, i, j)
            second = mean_square(fma(fill(p, rule.gain_2) * gradient, gradient, second))
            store(v, i, j, second)
            step = fill(p, UP * rule.rate) * gradient
            store(theta, i, j, move(p, step, second, rule))


@kernel
def adam(theta, m, v, g, rule):
    """m <- m + (1 - decay_1)(g - m), v <- v + gain_2 (g**2 - v), then
    theta <- `move(shrink theta, rate m + gradient_rate g, v)`.

    D. P. Kingma, J. Ba (ICLR 2015), algorithm 1: rate = alpha / (1 - beta1**t) and
    root = 1 / sqrt(1 - beta2**t). Shrink: I. Loshchilov, F. Hutter (ICLR 2019); gradient_rate:
    T. Dozat (ICLR workshop 2016).
    """
    shrink(theta, rule)
    for i in range(g.shape[0]):
        for j in range(0, g.shape[1], lanes(g)):
            p, gradient = load(theta, i, j), load(g, i, j)
            first, second = load(m, i, j), load(v, i, j)
            first = without_subnormal(fma(fill(p, 1.0 - rule.decay_1), gradient - first, first))
            change = fma(gradient, gradient, -second)
            second = mean_square(fma(fill(p, rule.gain_2), change, second))
            store(m, i, j, first)
            store(v, i, j, second)
            step = fill(p, UP * rule.rate) * first
            step = fma(fill(p, UP * rule.gradient_rate), gradient, step)
            store(theta, i, j, move(p, step, second, rule))


@kernel
def apply(rule, parameters, offset, stride, g):
    """Hand the gradient g [R, C] of the block at `offset` (rows `stride` apart) to the rule.

    An update clamps g in place first, and averages the parameters last, if the rule says so.
    """
    rows, columns = g.shape
    if rule.code == KEEP:
        keep(matrix(parameters.gradient, offset, rows, columns, stride), g)
    elif rule.code == ADD:
        add(matrix(parameters.gradient, offset, rows, columns, stride), g)
    else:
        if rule.clip > 0.0:
            clamp(g, rule.clip)
        theta = matrix(parameters.theta, offset, rows, columns, stride)
        if rule.code == SGD:
            sgd(theta, g, rule)
        elif rule.code == MOMENTUM:
            momentum(theta, matrix(parameters.first, offset, rows, columns, stride), g, rule)
        elif rule.code == SCALED:
            scaled(theta, matrix(parameters.second, offset, rows, columns, stride), g, rule)
        elif rule.code == ADAM:
            m = matrix(parameters.first, offset, rows, columns, stride)
            v = matrix(parameters.second, offset, rows, columns, stride)
            adam(theta, m, v, g, rule)
        if rule.average_decay > 0.0:
            mean = matrix(parameters.average, offset, rows, columns, stride)
            average(mean, theta, rule.average_decay)
