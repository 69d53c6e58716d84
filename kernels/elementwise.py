"""exp, expm1, log1p, the logistic function and the normal tail on vectors, both dtypes.

Polynomials and tables, no library calls. Argument reduction after W. J. Cody and W. Waite,
*Software Manual for the Elementary Functions* (1980): x = n ln 2 + r with |r| <= ln(2)/2, ln 2 in
two parts so that n * high is exact. The coefficients of exp, log1p and 1 / (1 + u), and the tables,
come from `tools/minimax.py`; log1p uses the series of 2 atanh(f / (2 + f)).

Where AVX-512 permutes vectors, tables shorten the polynomials. For exp, n is then a multiple of
1/16 (float64: 1/8), r that much smaller, and the fraction of 2**n is looked up: P. T. P. Tang,
*Table-driven implementation of the exponential function in IEEE floating-point arithmetic*, ACM
Transactions on Mathematical Software 15 (1989). For tanh and GELU in float32 they hold polynomials
on 32 segments.

Where a result is rounded but used further, what the rounding cut off is kept beside it as its
`rest`: names in `_parts` return such pairs. Names in `_terms` return the last two terms of a sum
that has not been rounded yet, the large one first.

The normal tail Phi(-t) is e**(-t**2/2) / (t + 4) times a function that varies little, approximated
as M. M. Shepherd and J. G. Laframboise do in *Chebyshev Approximation of (1 + 2x) exp(x**2) erfc x
in 0 <= x < infinity*, Mathematics of Computation 36 (1981): by a Chebyshev series in (t - 4) / (t +
4), here rearranged in powers. Its relative error is 3e-9 in float32 and 7e-17 in float64.
"""

import numpy as np

from ._jit import inlined
from .machine import HAS_AVX512
from .simd import (
    add_shifted_bits,
    any_less,
    choose_less,
    fill,
    fma,
    guess_reciprocal,
    is_double,
    polynomial,
    power_of_two,
    scale,
    table,
)
from .tables import GELU, RESTS_DOUBLE, RESTS_SINGLE, ROOTS, TANH

LOG2_E = 1.4426950408889634
# ln 2 = high + low, high with enough trailing zeros for an exact product with any exponent
LN2_HIGH_SINGLE, LN2_LOW_SINGLE = 0.693359375, -2.1219444005469058e-4
LN2_HIGH_DOUBLE, LN2_LOW_DOUBLE = 6.93147180369123816490e-01, 1.90821492927058770002e-10
# adding and subtracting 1.5 * 2**mantissa bits rounds to the nearest integer
ROUND_SINGLE, ROUND_DOUBLE = 1.5 * 2.0**23, 1.5 * 2.0**52
# beyond these, exp has long become 0 or infinity
EXP_LIMIT_SINGLE, EXP_LIMIT_DOUBLE = 105.0, 750.0
# below these, exp may be subnormal, 2**EXP_LIFT_BITS times as large it is normal
EXP_NORMAL_SINGLE, EXP_NORMAL_DOUBLE = -87.0, -708.0
EXP_LIFT_BITS = 64.0
# beyond this, expm1(-x) is -1
EXPM1_LIMIT = 60.0
# adding and subtracting these rounds t to a multiple of 2**-8 or 2**-20, whose square is exact
SPLIT_SINGLE, SPLIT_DOUBLE = 1.5 * 2.0**15, 1.5 * 2.0**32
# where (t - a) / (t + a), the variable of the tail's polynomial, is 0
TAIL_CENTRE = 4.0
# of the exponent's fraction that is looked up
STEPS_SINGLE, STEPS_DOUBLE = (16, 8) if HAS_AVX512 else (1, 1)
# the segments are intervals of a u between 1 and 16: which one tell the last two bits of its
# exponent and the first three of its mantissa
SEGMENT_SHIFT = 20
# u = t + 17/16 for GELU, 13/8 t + 1 for tanh
GELU_OFFSET, TANH_SCALE = 1.0625, 1.625
# GELU's Gaussian is halved wherever t**2 grows by this; 12 bits of 2 ln 2, for exact multiples
HALVING = 1.38623046875
# a power of two that keeps normal what will be a subnormal number
LIFT = 2.0**26

# of (e**r - 1 - r) / r**2 = 1/2 + ... for |r| <= ln(2)/2 the odd powers and the even ones, in r**2;
# and all of it for the 16th part of that (float64: the 8th)
_exp_even = polynomial(
    single=(0.04166636106, 0.001394061544),
    double=(
        0.04166666666666651,
        0.001388888888896208,
        2.4801587173118004e-05,
        2.755740218719431e-07,
        2.087545113329376e-09,
    ),
)
_exp_odd = polynomial(
    single=(0.1666666637, 0.008333389434, 0.0001984583522),
    double=(
        0.16666666666666677,
        0.008333333333321707,
        0.000198412698859243,
        2.7557244419881547e-06,
        2.5108961726211282e-08,
    ),
)
_short_exp_series = polynomial(
    single=(0.5000161924, 0.1666703119),
    double=(
        0.5000000000000301,
        0.16666666666667296,
        0.041666666569448584,
        0.008333333318060555,
        0.0013889782804521885,
        0.00019842421326500675,
    ),
)
_root, _root_rest = table(ROOTS, ROOTS[::2]), table(RESTS_SINGLE, RESTS_DOUBLE)


@inlined
def rounded_sum(large, small):
    """The sum and its rest, exactly (T. J. Dekker, Numerische Mathematik 18, 1971)."""
    total = large + small
    return total, (large - total) + small


@inlined
def _reduce(x, rounding):
    """n, high and bits with x = n ln 2 + high + n `_ln2_rest`; high is exact.

    Adding and subtracting `rounding` makes n of x log2(e); bits is the sum.
    """
    bits = fma(x, fill(x, LOG2_E), rounding)
    n = bits - rounding
    ln2_high = fill(x, LN2_HIGH_DOUBLE if is_double(x) else LN2_HIGH_SINGLE)
    return n, fma(-n, ln2_high, x), bits


@inlined
def _ln2_rest(x):
    """Of -ln 2."""
    return fill(x, -LN2_LOW_DOUBLE if is_double(x) else -LN2_LOW_SINGLE)


@inlined
def _reduce_whole(x):
    """n, high and low with x = n ln 2 + high + low and whole n."""
    n, high, _ = _reduce(x, fill(x, ROUND_DOUBLE if is_double(x) else ROUND_SINGLE))
    return n, high, n * _ln2_rest(x)


@inlined
def _reduce_to_steps(x):
    """n, high and bits, n being a multiple of a step."""
    steps = fill(x, ROUND_DOUBLE / STEPS_DOUBLE if is_double(x) else ROUND_SINGLE / STEPS_SINGLE)
    return _reduce(x, steps)


@inlined
def _exp_series(r, start):
    """e**r - 1 - r + start for |r| <= ln(2)/2; two short chains are done before a long one is."""
    square = r * r
    p = fma(fma(_exp_even(square), r, _exp_odd(square)), r, fill(r, 0.5))
    return fma(square, p, start)


@inlined
def _expm1_reduced(high, low):
    """e**r - 1 for r = high + low, |r| <= ln(2)/2."""
    return high + _exp_series(high + low, low)


@inlined
def _growth_of_series(r, bits):
    return fill(r, 1.0), _exp_series(r, r)


@inlined
def _growth_of_table(r, bits):
    return _root(bits), fma(r, fma(r, _short_exp_series(r), fill(r, 1.0)), _root_rest(bits))


# factor and q with 2**(n - floor(n)) e**r = factor (1 + q)
_growth = _growth_of_table if HAS_AVX512 else _growth_of_series


@inlined
def _exp_factors(x):
    """n, factor and q with e**x = 2**floor(n) factor (1 + q)."""
    n, high, bits = _reduce_to_steps(x)
    factor, q = _growth(fma(n, _ln2_rest(x), high), bits)
    return n, factor, q


@inlined
def exp_parts(x):
    """n, p and rest with e**x = 2**floor(n) (p + rest); the rest is below an ULP of p."""
    n, factor, q = _exp_factors(x)
    p, rest = rounded_sum(factor, factor * q)
    return n, p, rest


@inlined
def exp_terms_of_sum(x, y):
    """n, large and small with e**(x + y) = 2**floor(n) (large + small), for a y that is small."""
    n, high, bits = _reduce_to_steps(x)
    factor, q = _growth(high + fma(n, _ln2_rest(x), y), bits)
    return n, factor, factor * q


@inlined
def exp(x):
    """e**x; 0 and infinity where it underflows and overflows, NaN for NaN.

    A subnormal result is rounded twice: what that cut off is computed 2**EXP_LIFT_BITS times as
    large, where it is normal, and added.
    """
    limit = fill(x, EXP_LIMIT_DOUBLE if is_double(x) else EXP_LIMIT_SINGLE)
    normal = fill(x, EXP_NORMAL_DOUBLE if is_double(x) else EXP_NORMAL_SINGLE)
    x = choose_less(limit, x, limit, x)
    n, factor, q = _exp_factors(x)
    result = scale(fma(factor, q, factor), n)
    if any_less(x, normal):
        n, factor, q = _exp_factors(choose_less(x, -limit, -limit, x))
        small = scale(fma(factor, q, factor), n)
        large = scale(factor, n + fill(x, EXP_LIFT_BITS))
        rest = fma(large, q, fma(small, fill(x, -(2.0**EXP_LIFT_BITS)), large))
        small = fma(rest, fill(x, 2.0**-EXP_LIFT_BITS), small)
        result = choose_less(x, normal, small, result)
    return result


@inlined
def exp_times(factor, x):
    """factor e**x for -160 <= x <= 0 (float64: -1400), also where e**x alone is subnormal or 0."""
    n, high, low = _reduce_whole(x)
    return scale(fma(factor, _expm1_reduced(high, low), factor), n)


# 1 / (1 + u)
_inverse_series = polynomial(
    *2 * [(0.9999452456, -0.9960618164, 0.9515294561, -0.7647636096, 0.4107107574, -0.1013599139)]
)


@inlined
def _inverse_of_series(v):
    return _inverse_series(v - fill(v, 1.0))


_guess_inverse = guess_reciprocal if HAS_AVX512 else _inverse_of_series


@inlined
def inverse(v):
    """1 / v for 1 <= v <= 2, to 14 bits (float64: 28)."""
    p = _guess_inverse(v)
    if is_double(v):
        p = fma(p, fma(-v, p, fill(v, 1.0)), p)
    return p


@inlined
def logistic_parts(n, p, rest):
    """h, d and low with e / (1 + e) = 2**floor(n) (h + d low) for e = 2**floor(n) (p + rest) <= 1.

    d is about 1 / (1 + e). Low is what h (1 + e) = p + rest lacks for h = p d as it was rounded;
    p - h is nearly exact, as 2 h is hardly less than p.
    """
    e = scale(p, n)
    d = inverse(e + fill(p, 1.0))
    h = p * d
    return h, d, fma(rest, d, fma(-e, h, p - h))


@inlined
def gaussian_times(factor, t):
    """factor e**(-t**2/2) for 0 <= t <= 15 (float64: 39): t**2 = head**2 + (t - head)(t + head)."""
    magic = fill(t, SPLIT_DOUBLE if is_double(t) else SPLIT_SINGLE)
    head = (t + magic) - magic
    half = fill(t, -0.5)
    n, high, low = _reduce_whole(head * head * half)
    low = fma(head - t, fma(half, head - t, head), low)
    return scale(fma(factor, _expm1_reduced(high, low), factor), n)


_tail_series = polynomial(
    single=(
        0.7552851308,
        -0.6078966577,
        0.3871373514,
        -0.1865213272,
        0.06039774295,
        -0.007544809488,
        -0.003490089865,
        0.001643380756,
        0.0001715175442,
        -0.0002292788296,
        -5.034439572e-05,
    ),
    double=(
        0.7552851304157515,
        -0.6078966419718921,
        0.3871374007422147,
        -0.186521857959659,
        0.060396574890927764,
        -0.007540188966673124,
        -0.0034796923671979656,
        0.0016308184568438854,
        0.0001333443101408164,
        -0.00023109492958876522,
        -1.9082429161357464e-06,
        3.514466162725137e-05,
        7.165990534208174e-07,
        -5.920109799721969e-06,
        -6.29508343694983e-07,
        1.0214618696615973e-06,
        2.714643213193074e-07,
        -1.549133718099133e-07,
        -8.502508176663362e-08,
        1.3320772310367773e-08,
        1.9374886380522798e-08,
        1.8447535232485742e-09,
        -2.4545235044259033e-09,
        -6.956493025352831e-10,
    ),
)


@inlined
def tail_ratio(t):
    """Phi(-t) e**(t**2/2) for 0 <= t <= 15 (float64: 39), Phi the normal distribution function."""
    one = fill(t, 1.0)
    w = one / (t + fill(t, TAIL_CENTRE))
    return _tail_series(fma(t + t, w, -one)) * w


@inlined
def expm1_parts(x):
    """e**x - 1 for x <= 0 and its rest, without cancellation near 0."""
    limit = fill(x, -EXPM1_LIMIT)
    n, high, low = _reduce_whole(choose_less(x, limit, limit, x))
    q, q_rest = rounded_sum(high, _exp_series(high + low, low))
    power, one = power_of_two(n), fill(x, 1.0)
    start = power - one
    result = fma(power, q, start)
    rest = fma(power, q, start - result) + (power - (start + one))
    return result, fma(power, q_rest, rest)


@inlined
def expm1(x):
    """e**x - 1 for x <= 0, without cancellation near 0."""
    result, _ = expm1_parts(x)
    return result


def _on_segments(rows):
    """The centres c and coefficients c[0], c[1], ... of segments, each looked up by u."""
    turned = [rows[(n + 8) % 32] for n in range(32)]  # 1.0's exponent ends in 11
    return [table(column, shift=SEGMENT_SHIFT) for column in zip(*turned, strict=True)]


_tanh_c, _tanh_0, _tanh_1, _tanh_2, _tanh_3, _tanh_4, _tanh_5 = _on_segments(TANH)
_gelu_c, _gelu_0, _gelu_1, _gelu_2, _gelu_3, _gelu_4, _gelu_5 = _on_segments(GELU)


@inlined
def tanh_of_segments(t):
    """Tanh(t) = c[0] + c[1] (t - c) + ... for t >= 0.

    What the rounding of the first two terms cuts off is added to the others.
    """
    u = fma(t, fill(t, TANH_SCALE), fill(t, 1.0))
    d, slope, start = t - _tanh_c(u), _tanh_1(u), _tanh_0(u)
    p = fma(fma(fma(_tanh_5(u), d, _tanh_4(u)), d, _tanh_3(u)), d, _tanh_2(u))
    line = fma(slope, d, start)
    return line + fma(p * d, d, fma(slope, d, start - line))


def _lifted_roots():
    """LIFT 2**(j/16), less what bits of 2**n add to theirs for the n that ends in j/16."""
    bits = (np.array(ROOTS, np.float32) * np.float32(LIFT)).view(np.int32)
    return (bits - (np.arange(16, dtype=np.int32) << 19)).view(np.float32).tolist()


_lifted_root = table(_lifted_roots())
# (e**(-slope r) - 1) / r for |r| <= HALVING / 32, slope = ln 2 / HALVING
_gaussian_series = polynomial(single=(-0.500023045, 0.1250155722, -0.02083690542), double=())


@inlined
def gelu_terms(t):
    """c[0] and LIFT h of t's segment: h = t Phi(-t), or t (Phi(-t) - 1/2) where c[0] <= 0.

    h = e**(-slope t**2) (c[0] + c[1] (t - c) + ...), with slope = ln 2 / HALVING: the Gaussian is
    2**n e**(-slope r) with r = t**2 + n HALVING. Only the sum of the two terms is rounded to h.
    """
    rounding = ROUND_SINGLE / 16
    bits = fma(t * t, fill(t, -1 / HALVING), fill(t, rounding))
    r = fma(t, t, fma(bits, fill(t, HALVING), fill(t, -rounding * HALVING)))
    q = fma(r, _gaussian_series(r), _root_rest(bits))
    power = add_shifted_bits(_lifted_root(bits), bits, 19)
    u = t + fill(t, GELU_OFFSET)
    d = t - _gelu_c(u)
    p = fma(fma(fma(_gelu_5(u), d, _gelu_4(u)), d, _gelu_3(u)), d, _gelu_2(u))
    large, small = _gelu_0(u), fma(p, d, _gelu_1(u)) * d
    return large, fma(power, large, power * fma(q, large + small, small))


# (2 atanh(s) - 2 s) / s**3 in s**2
_atanh_series = polynomial(
    single=(0.6666694631, 0.3995790932, 0.3035906395),
    double=(
        0.6666666666667268,
        0.39999999996176866,
        0.28571429392801023,
        0.22222138688568188,
        0.18186348975174585,
        0.15250320833077816,
        0.15367227727589267,
    ),
)


@inlined
def log1p_parts(u, rest):
    """High and low with ln(1 + u + rest) = high + low, 0 <= u <= 1, for a rest below an ULP of u.

    From u = 1/2 on it is ln 2 + ln(1 + f) with f = (u - 1) / 2, which is exact there; ln(1 + f) is
    f - s (f - s**2 p(s**2)) with s = f / (2 + f), whose leading term f carries no rounding error.
    """
    half = fill(u, 0.5)
    f = choose_less(u, half, u, fma(u, half, -half))
    s = f / (f + fill(u, 2.0))
    z = s * s
    if is_double(u):
        ln2_high, ln2_low = fill(u, LN2_HIGH_DOUBLE), fill(u, LN2_LOW_DOUBLE)
    else:
        ln2_high, ln2_low = fill(u, LN2_HIGH_SINGLE), fill(u, LN2_LOW_SINGLE)
    # 0.957 - u / 2 is near enough to 1 / (1 + u), the derivative
    rest = rest * fma(u, -half, fill(u, 0.957))
    c = fma(s, fma(z, _atanh_series(z), -f), choose_less(u, half, rest, rest + ln2_low))
    large, small = choose_less(u, half, u, ln2_high), choose_less(u, half, c, f + c)
    return rounded_sum(large, small)


@inlined
def log1p(u):
    """ln(1 + u) for 0 <= u <= 1, without cancellation near 0."""
    high, _ = log1p_parts(u, fill(u, 0.0))
    return high
