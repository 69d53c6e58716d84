"""Find the polynomials of kernels/elementwise.py: those whose largest error is smallest.

    python tools/minimax.py             # all of them, 20 s; needs mpmath and NumPy

Each is p(x) = c[0] + c[1] x + ..., for which the largest weight(x) |p(x) - f(x)| on an interval is
nearly as small as it can be, by C. L. Lawson's least squares: points are weighted anew by their
errors until these swing between equal extremes (*Contributions to the theory of linear least
maximum approximation*, thesis, UCLA 1961). Coefficients are then rounded to the dtype.
"""

from collections.abc import Callable

import mpmath as mp
import numpy as np

mp.mp.dps = 50
POINTS, ROUNDS = 150, 200
Function = Callable[[mp.mpf], mp.mpf]


def lawson(f: Function, weight: Function, low: mp.mpf, high: mp.mpf, degree: int) -> list[mp.mpf]:
    """Return the coefficients, lowest first."""
    middle, radius = (low + high) / 2, (high - low) / 2
    points = [middle - radius * mp.cos(mp.pi * (2 * k + 1) / (2 * POINTS)) for k in range(POINTS)]
    values = [f(x) for x in points]
    squares = [weight(x) ** 2 for x in points]
    powers = [[x**j for j in range(2 * degree + 1)] for x in points]
    shares = [mp.mpf(1) / POINTS] * POINTS
    for _ in range(ROUNDS):
        w = [share * square for share, square in zip(shares, squares, strict=True)]
        moments = [mp.fdot(w, (row[j] for row in powers)) for j in range(2 * degree + 1)]
        products = [a * y for a, y in zip(w, values, strict=True)]
        right = [mp.fdot(products, (row[j] for row in powers)) for j in range(degree + 1)]
        system = mp.matrix([moments[i : i + degree + 1] for i in range(degree + 1)])
        c = list(mp.lu_solve(system, mp.matrix(right)))
        errors = [
            mp.sqrt(square) * abs(mp.polyval(c[::-1], x) - y)
            for x, y, square in zip(points, values, squares, strict=True)
        ]
        shares = [share * error for share, error in zip(shares, errors, strict=True)]
        total = sum(shares)
        shares = [share / total for share in shares]
    return c


def _expm1_series(r: mp.mpf) -> mp.mpf:
    return (mp.expm1(r) - r) / r**2


def _expm1_weight(r: mp.mpf) -> mp.mpf:
    return abs(r * r / mp.expm1(r))


def _atanh_series(z: mp.mpf) -> mp.mpf:
    s = mp.sqrt(z)
    return (2 * mp.atanh(s) - 2 * s) / (s * z)


def _atanh_weight(z: mp.mpf) -> mp.mpf:
    s = mp.sqrt(z)
    return s * z / (2 * mp.atanh(s))


def _inverse_factor(u: mp.mpf) -> mp.mpf:
    """The q of 1 / (1 + u) = 1/2 + (1 - u) q, an approximation that is exact at 1."""
    return 1 / (2 * (1 + u))


def _inverse_weight(u: mp.mpf) -> mp.mpf:
    return (1 + u) * (1 - u)


def _show(name: str, c: list[mp.mpf], dtype: type) -> None:
    print(name, dtype.__name__)
    for x in c:
        print("   ", f"{float(x):.10g}" if dtype is np.float32 else repr(float(x)))


def main() -> None:
    """Print all coefficients, lowest first."""
    half = mp.log(2) / 2
    for dtype, degree in ((np.float32, 5), (np.float64, 10)):
        c = lawson(_expm1_series, _expm1_weight, -half, half, degree)
        _show("(e**r - 1 - r) / r**2", c, dtype)
    for dtype, degree in ((np.float32, 2), (np.float64, 6)):
        c = lawson(_atanh_series, _atanh_weight, mp.mpf(0), mp.mpf(1) / 25, degree)
        _show("(2 atanh(s) - 2 s) / s**3 in s**2", c, dtype)
    q = lawson(_inverse_factor, _inverse_weight, mp.mpf(0), mp.mpf(1), 4)
    c = [a - b for a, b in zip([*q, 0], [0, *q], strict=True)]
    c[0] += mp.mpf("0.5")
    _show("1 / (1 + u), to which 2**-23 is added", c, np.float32)


if __name__ == "__main__":
    main()
