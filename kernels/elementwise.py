"""exp, expm1, log1p, the logistic function and the normal tail on vectors, both dtypes.

Polynomials alone, no library calls. Argument reduction after W. J. Cody and W. Waite, *Software
Manual for the Elementary Functions* (1980): x = n ln 2 + r with |r| <= ln(2)/2, ln 2 in two parts
so that n * high is exact. The coefficients of exp, log1p and 1 / (1 + u) come from
`tools/minimax.py`; log1p uses the series of 2 atanh(f / (2 + f)).

Where a result is rounded but used further, what the rounding cut off is kept beside it as its
`rest`: names in `_parts` return such pairs.

The normal tail Phi(-t) is e**(-t**2/2) / (t + 4) times a function that varies little, approximated
as M. M. Shepherd and J. G. Laframboise do in *Chebyshev Approximation of (1 + 2x) exp(x**2) erfc x
in 0 <= x < infinity*, Mathematics of Computation 36 (1981): by a Chebyshev series in (t - 4) / (t +
4), here rearranged in powers. Its relative error is 3e-9 in float32 and 7e-17 in float64.
"""

from ._jit import inlined
from .simd import choose_less, fill, fma, is_double, power_of_two, scale

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
def _exp_series(r):
    """(e**r - 1 - r) / r**2."""
    if is_double(r):
        p = fill(r, 2.087545113329376e-09)
        p = fma(p, r, fill(r, 2.5108961726211282e-08))
        p = fma(p, r, fill(r, 2.755740218719431e-07))
        p = fma(p, r, fill(r, 2.7557244419881547e-06))
        p = fma(p, r, fill(r, 2.4801587173118004e-05))
        p = fma(p, r, fill(r, 0.000198412698859243))
        p = fma(p, r, fill(r, 0.001388888888896208))
        p = fma(p, r, fill(r, 0.008333333333321707))
        p = fma(p, r, fill(r, 0.04166666666666651))
        p = fma(p, r, fill(r, 0.16666666666666677))
    else:
        p = fill(r, 0.0001984583522)
        p = fma(p, r, fill(r, 0.001394061544))
        p = fma(p, r, fill(r, 0.008333389434))
        p = fma(p, r, fill(r, 0.04166636106))
        p = fma(p, r, fill(r, 0.1666666637))
    return fma(p, r, fill(r, 0.5))


@inlined
def _expm1_reduced(high, low):
    """exp(r) - 1 for r = high + low, |r| <= ln(2)/2: high + (low + r**2 (1/2! + r/3! + ...))."""
    r = high + low
    return high + fma(r * r, _exp_series(r), low)


@inlined
def exp_parts(x):
    """n, p and rest with e**x = 2**n (p + rest); the rest is below an ULP of p."""
    n, high, _ = _reduce(x)
    r = fma(n, fill(x, -LN2_LOW_DOUBLE if is_double(x) else -LN2_LOW_SINGLE), high)
    q = fma(r * r, _exp_series(r), r)
    one = fill(x, 1.0)
    p = one + q
    return n, p, (one - p) + q


@inlined
def _inverse(u):
    """1 / (1 + u) for 0 <= u <= 1, to 14 bits (float64: 28), and not below 1/2."""
    p = fill(u, -0.1013599139)
    p = fma(p, u, fill(u, 0.4107107574))
    p = fma(p, u, fill(u, -0.7647636096))
    p = fma(p, u, fill(u, 0.9515294561))
    p = fma(p, u, fill(u, -0.9960618164))
    p = fma(p, u, fill(u, 0.9999452456))
    if is_double(u):
        one = fill(u, 1.0)
        p = fma(p, fma(-(u + one), p, one), p)
    return p


@inlined
def logistic_parts(x):
    """n, h, d and rest with 1 / (1 + e**-x) = 2**n (h + d rest) and d = 1 / (1 + e**x), x <= 0.

    The rest is that of h (1 + e) = p, for h = p d as it was rounded; p - h is exact, as 2 h >= p.
    """
    n, p, rest = exp_parts(x)
    e = scale(p, n)
    d = _inverse(e)
    h = p * d
    return n, h, d, fma(rest, d, fma(-e, h, p - h))


@inlined
def exp(x):
    """e**x; 0 and infinity where it underflows and overflows, NaN for NaN."""
    limit = fill(x, EXP_LIMIT_DOUBLE if is_double(x) else EXP_LIMIT_SINGLE)
    n, p, _ = exp_parts(choose_less(x, -limit, -limit, choose_less(limit, x, limit, x)))
    return scale(p, n)


@inlined
def exp_times(factor, x):
    """factor e**x for -160 <= x <= 0 (float64: -1400), also where e**x alone is subnormal or 0."""
    n, high, low = _reduce(x)
    return scale(fma(factor, _expm1_reduced(high, low), factor), n)


@inlined
def gaussian_times(factor, t):
    """factor e**(-t**2/2) for 0 <= t <= 15 (float64: 39): t**2 = head**2 + (t - head)(t + head)."""
    magic = fill(t, SPLIT_DOUBLE if is_double(t) else SPLIT_SINGLE)
    head = (t + magic) - magic
    half = fill(t, -0.5)
    n, high, low = _reduce(head * head * half)
    low = fma(head - t, fma(half, head - t, head), low)
    return scale(fma(factor, _expm1_reduced(high, low), factor), n)


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
def expm1_and_exp(x):
    """e**x - 1 for x <= 0, without cancellation near 0, and e**x, but at least e**-60."""
    limit = fill(x, -EXPM1_LIMIT)
    n, high, low = _reduce(choose_less(x, limit, limit, x))
    power = power_of_two(n)
    q = _expm1_reduced(high, low)
    return fma(power, q, power - fill(x, 1.0)), fma(power, q, power)


@inlined
def expm1(x):
    """e**x - 1 for x <= 0, without cancellation near 0."""
    result, _ = expm1_and_exp(x)
    return result


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
        p = fill(u, 0.15367227727589267)
        p = fma(p, z, fill(u, 0.15250320833077816))
        p = fma(p, z, fill(u, 0.18186348975174585))
        p = fma(p, z, fill(u, 0.22222138688568188))
        p = fma(p, z, fill(u, 0.28571429392801023))
        p = fma(p, z, fill(u, 0.39999999996176866))
        p = fma(p, z, fill(u, 0.6666666666667268))
        ln2_high, ln2_low = fill(u, LN2_HIGH_DOUBLE), fill(u, LN2_LOW_DOUBLE)
    else:
        p = fill(u, 0.3035906395)
        p = fma(p, z, fill(u, 0.3995790932))
        p = fma(p, z, fill(u, 0.6666694631))
        ln2_high, ln2_low = fill(u, LN2_HIGH_SINGLE), fill(u, LN2_LOW_SINGLE)
    # 0.957 - u / 2 is near enough to 1 / (1 + u), the derivative
    rest = rest * fma(u, -half, fill(u, 0.957))
    c = fma(s, fma(z, p, -f), choose_less(u, half, rest, rest + ln2_low))
    large, small = choose_less(u, half, u, ln2_high), choose_less(u, half, c, f + c)
    high = large + small
    return high, (large - high) + small


@inlined
def log1p(u):
    """ln(1 + u) for 0 <= u <= 1, without cancellation near 0."""
    high, _ = log1p_parts(u, fill(u, 0.0))
    return high
