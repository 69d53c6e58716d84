"""exp, expm1, log1p and the normal tail on vectors: polynomials, no library calls, both dtypes.

Argument reduction after W. J. Cody and W. Waite, *Software Manual for the Elementary Functions*
(1980): x = n ln 2 + r with |r| <= ln(2)/2, ln 2 in two parts so that n * high is exact. The
polynomials are Taylor series, long enough that the first term left out is below a quarter of an
ULP; log1p uses the series of 2 atanh(f / (2 + f)).

The normal tail Phi(-t) is e**(-t**2/2) / (t + 4) times a function that varies little, approximated
as M. M. Shepherd and J. G. Laframboise do in *Chebyshev Approximation of (1 + 2x) exp(x**2) erfc x
in 0 <= x < infinity*, Mathematics of Computation 36 (1981): by a Chebyshev series in (t - 4) / (t +
4), here rearranged in powers. Its relative error is 3e-9 in float32 and 7e-17 in float64.
"""

from ._jit import inlined
from .simd import choose_less, fill, fma, is_double, power_of_two

LOG2_E = 1.4426950408889634
# ln 2 = high + low, high with enough trailing zeros for an exact product with any exponent
LN2_HIGH_SINGLE, LN2_LOW_SINGLE = 0.693359375, -2.1219444005469058e-4
LN2_HIGH_DOUBLE, LN2_LOW_DOUBLE = 6.93147180369123816490e-01, 1.90821492927058770002e-10
# adding and subtracting 1.5 * 2**mantissa bits rounds to the nearest integer
ROUND_SINGLE, ROUND_DOUBLE = 1.5 * 2.0**23, 1.5 * 2.0**52
# beyond these, exp has long become 0 or infinity
EXP_LIMIT_SINGLE, EXP_LIMIT_DOUBLE = 105.0, 750.0
# beyond this, expm1(-x) is -1
EXPM1_LIMIT = 60.0
# adding and subtracting these rounds t to a multiple of 2**-8 or 2**-20, whose square is exact
SPLIT_SINGLE, SPLIT_DOUBLE = 1.5 * 2.0**15, 1.5 * 2.0**32
# where (t - a) / (t + a), the variable of the tail's polynomial, is 0
TAIL_CENTRE = 4.0


@inlined
def _reduce(x):
    """n, high and low with x = n ln 2 + high + low; high is exact."""
    if is_double(x):
        magic = fill(x, ROUND_DOUBLE)
        n = fma(x, fill(x, LOG2_E), magic) - magic
        high = fma(n, fill(x, -LN2_HIGH_DOUBLE), x)
        low = n * fill(x, -LN2_LOW_DOUBLE)
    else:
        magic = fill(x, ROUND_SINGLE)
        n = fma(x, fill(x, LOG2_E), magic) - magic
        high = fma(n, fill(x, -LN2_HIGH_SINGLE), x)
        low = n * fill(x, -LN2_LOW_SINGLE)
    return n, high, low


@inlined
def _expm1_reduced(high, low):
    """exp(r) - 1 for r = high + low, |r| <= ln(2)/2: high + (low + r**2 (1/2! + r/3! + ...))."""
    r = high + low
    if is_double(r):
        p = fill(r, 1 / 6227020800)
        p = fma(p, r, fill(r, 1 / 479001600))
        p = fma(p, r, fill(r, 1 / 39916800))
        p = fma(p, r, fill(r, 1 / 3628800))
        p = fma(p, r, fill(r, 1 / 362880))
        p = fma(p, r, fill(r, 1 / 40320))
        p = fma(p, r, fill(r, 1 / 5040))
    else:
        p = fill(r, 1 / 5040)
    p = fma(p, r, fill(r, 1 / 720))
    p = fma(p, r, fill(r, 1 / 120))
    p = fma(p, r, fill(r, 1 / 24))
    p = fma(p, r, fill(r, 1 / 6))
    p = fma(p, r, fill(r, 0.5))
    return high + fma(r * r, p, low)


@inlined
def _scaled(factor, n, high, low):
    """factor e**(n ln 2 + high + low), rounded once where it is a subnormal number."""
    magic = fill(n, ROUND_DOUBLE if is_double(n) else ROUND_SINGLE)
    half = fma(n, fill(n, 0.5), magic) - magic
    # two powers, since 2**n alone may lie outside the normal numbers where the result does not
    power = fma(factor, _expm1_reduced(high, low), factor)
    return power * power_of_two(half) * power_of_two(n - half)


@inlined
def exp(x):
    """e**x; 0 and infinity where it underflows and overflows, NaN for NaN."""
    limit = fill(x, EXP_LIMIT_DOUBLE if is_double(x) else EXP_LIMIT_SINGLE)
    x = choose_less(x, -limit, -limit, choose_less(limit, x, limit, x))
    n, high, low = _reduce(x)
    return _scaled(fill(x, 1.0), n, high, low)


@inlined
def exp_times(factor, x):
    """factor e**x for -160 <= x <= 0 (float64: -1400), also where e**x alone is subnormal or 0."""
    n, high, low = _reduce(x)
    return _scaled(factor, n, high, low)


@inlined
def gaussian_times(factor, t):
    """factor e**(-t**2/2) for 0 <= t <= 15 (float64: 39): t**2 = head**2 + (t - head)(t + head)."""
    magic = fill(t, SPLIT_DOUBLE if is_double(t) else SPLIT_SINGLE)
    head = (t + magic) - magic
    half = fill(t, -0.5)
    n, high, low = _reduce(head * head * half)
    return _scaled(factor, n, high, fma((t - head) * half, t + head, low))


@inlined
def tail_ratio(t):
    """Phi(-t) e**(t**2/2) for 0 <= t <= 15 (float64: 39), Phi the normal distribution function."""
    one = fill(t, 1.0)
    w = one / (t + fill(t, TAIL_CENTRE))
    q = fma(t + t, w, -one)
    if is_double(t):
        p = fill(q, -6.956493025352831e-10)
        p = fma(p, q, fill(q, -2.4545235044259033e-09))
        p = fma(p, q, fill(q, 1.8447535232485742e-09))
        p = fma(p, q, fill(q, 1.9374886380522798e-08))
        p = fma(p, q, fill(q, 1.3320772310367773e-08))
        p = fma(p, q, fill(q, -8.502508176663362e-08))
        p = fma(p, q, fill(q, -1.549133718099133e-07))
        p = fma(p, q, fill(q, 2.714643213193074e-07))
        p = fma(p, q, fill(q, 1.0214618696615973e-06))
        p = fma(p, q, fill(q, -6.29508343694983e-07))
        p = fma(p, q, fill(q, -5.920109799721969e-06))
        p = fma(p, q, fill(q, 7.165990534208174e-07))
        p = fma(p, q, fill(q, 3.514466162725137e-05))
        p = fma(p, q, fill(q, -1.9082429161357464e-06))
        p = fma(p, q, fill(q, -0.00023109492958876522))
        p = fma(p, q, fill(q, 0.0001333443101408164))
        p = fma(p, q, fill(q, 0.0016308184568438854))
        p = fma(p, q, fill(q, -0.0034796923671979656))
        p = fma(p, q, fill(q, -0.007540188966673124))
        p = fma(p, q, fill(q, 0.060396574890927764))
        p = fma(p, q, fill(q, -0.186521857959659))
        p = fma(p, q, fill(q, 0.3871374007422147))
        p = fma(p, q, fill(q, -0.6078966419718921))
        p = fma(p, q, fill(q, 0.7552851304157515))
    else:
        p = fill(q, -5.034439572e-05)
        p = fma(p, q, fill(q, -0.0002292788296))
        p = fma(p, q, fill(q, 0.0001715175442))
        p = fma(p, q, fill(q, 0.001643380756))
        p = fma(p, q, fill(q, -0.003490089865))
        p = fma(p, q, fill(q, -0.007544809488))
        p = fma(p, q, fill(q, 0.06039774295))
        p = fma(p, q, fill(q, -0.1865213272))
        p = fma(p, q, fill(q, 0.3871373514))
        p = fma(p, q, fill(q, -0.6078966577))
        p = fma(p, q, fill(q, 0.7552851308))
    return p * w


@inlined
def normal_tail(t):
    """Phi(-t) = erfc(t / sqrt(2)) / 2 for 0 <= t <= 15 (float64: 39)."""
    return gaussian_times(tail_ratio(t), t)


@inlined
def expm1(x):
    """e**x - 1 for x <= 0, without cancellation near 0."""
    limit = fill(x, -EXPM1_LIMIT)
    n, high, low = _reduce(choose_less(x, limit, limit, x))
    scale = power_of_two(n)
    return fma(scale, _expm1_reduced(high, low), scale - fill(x, 1.0))


@inlined
def log1p(u):
    """ln(1 + u) for 0 <= u <= 1, without cancellation near 0.

    From 1/2 on it is ln 2 + ln(1 + f) with f = (u - 1) / 2, which is exact there.
    """
    one = fill(u, 1.0)
    half = fill(u, 0.5)
    f = choose_less(u, half, u, (u - one) * half)
    s = f / (f + fill(u, 2.0))
    z = s * s
    if is_double(u):
        p = fill(u, 2 / 23)
        p = fma(p, z, fill(u, 2 / 21))
        p = fma(p, z, fill(u, 2 / 19))
        p = fma(p, z, fill(u, 2 / 17))
        p = fma(p, z, fill(u, 2 / 15))
        p = fma(p, z, fill(u, 2 / 13))
        p = fma(p, z, fill(u, 2 / 11))
    else:
        p = fill(u, 2 / 11)
    p = fma(p, z, fill(u, 2 / 9))
    p = fma(p, z, fill(u, 2 / 7))
    p = fma(p, z, fill(u, 2 / 5))
    p = fma(p, z, fill(u, 2 / 3))
    # ln(1 + f) = f - s (f - z p): the leading term f carries no rounding error
    zero = fill(u, 0.0)
    high = choose_less(u, half, zero, fill(u, LN2_HIGH_DOUBLE if is_double(u) else LN2_HIGH_SINGLE))
    low = choose_less(u, half, zero, fill(u, LN2_LOW_DOUBLE if is_double(u) else LN2_LOW_SINGLE))
    return high + (f - fma(s, fma(-z, p, f), -low))
