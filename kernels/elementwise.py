"""exp, expm1 and log1p on vectors: polynomials, no library calls, one body for both dtypes.

Argument reduction after W. J. Cody and W. Waite, *Software Manual for the Elementary Functions*
(1980): x = n ln 2 + r with |r| <= ln(2)/2, ln 2 in two parts so that n * high is exact. The
polynomials are Taylor series, long enough that the first term left out is below a quarter of an
ULP; log1p uses the series of 2 atanh(f / (2 + f)).
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
def exp(x):
    """e**x; 0 and infinity where it underflows and overflows, NaN for NaN."""
    limit = fill(x, EXP_LIMIT_DOUBLE if is_double(x) else EXP_LIMIT_SINGLE)
    x = choose_less(x, -limit, -limit, choose_less(limit, x, limit, x))
    n, high, low = _reduce(x)
    magic = fill(x, ROUND_DOUBLE if is_double(x) else ROUND_SINGLE)
    half = fma(n, fill(x, 0.5), magic) - magic
    # two factors, since 2**n alone may lie outside the normal numbers where the result does not
    return (_expm1_reduced(high, low) + fill(x, 1.0)) * power_of_two(half) * power_of_two(n - half)


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
