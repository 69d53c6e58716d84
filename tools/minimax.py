"""Find the polynomials of kernels/elementwise.py and kernels/tables.py, of the least largest error.

    python tools/minimax.py             # all of them, 100 s; needs mpmath and NumPy

Each is p(x) = c[0] + c[1] x + ..., for which the largest weight(x) |p(x) - f(x)| on an interval is
nearly as small as it can be, by C. L. Lawson's least squares: points are weighted anew by their
errors until these swing between equal extremes (*Contributions to the theory of linear least
maximum approximation*, thesis, UCLA 1961). Coefficients are then rounded to the dtype; those of
the tables one after the other, each time finding those after it anew.
"""

from collections.abc import Callable

import mpmath as mp
import numpy as np

mp.mp.dps = 50
POINTS, ROUNDS = 150, 200
SEGMENTS, SEGMENT_POINTS, SEGMENT_ROUNDS, DEGREE = 32, 40, 20, 5
# segments are intervals of TANH_SCALE t + 1; of t + GELU_OFFSET
TANH_SCALE, GELU_OFFSET = mp.mpf(13) / 8, mp.mpf(17) / 16
# GELU's Gaussian is e**(-slope t**2): it is halved wherever t**2 grows by this, 12 bits of 2 ln 2
HALVING = mp.mpf(2839) / 2048
SLOPE = mp.log(2) / HALVING
Function = Callable[[mp.mpf], mp.mpf]


def lawson(
    f: Function,
    weight: Function,
    low: mp.mpf,
    high: mp.mpf,
    degree: int,
    count: int = POINTS,
    rounds: int = ROUNDS,
) -> list[mp.mpf]:
    """Return the coefficients, lowest first."""
    middle, radius = (low + high) / 2, (high - low) / 2
    points = [middle - radius * mp.cos(mp.pi * (2 * k + 1) / (2 * count)) for k in range(count)]
    values = [f(x) for x in points]
    squares = [weight(x) ** 2 for x in points]
    powers = [[x**j for j in range(2 * degree + 1)] for x in points]
    shares = [mp.mpf(1) / count] * count
    for _ in range(rounds):
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


def _single(x: mp.mpf) -> mp.mpf:
    return mp.mpf(float(np.float32(float(x))))


def _edges(number: int, scale: mp.mpf, offset: mp.mpf) -> tuple[mp.mpf, mp.mpf]:
    """Return where a segment begins and ends: scale t + offset has eight in each octave."""

    def edge(n: int) -> mp.mpf:
        return ((1 + mp.mpf(n % 8) / 8) * 2 ** (n // 8) - offset) / scale

    return max(edge(number), mp.mpf(0)), edge(number + 1)


def _centre(
    f: Function,
    low: mp.mpf,
    high: mp.mpf,
    reach: int = 150,
    parts: int = 1000,
    slope: Function | None = None,
) -> mp.mpf:
    """Return the float32, `reach` of so many parts about the middle, where f is nearest to one.

    With a slope, f' as a function of f: where that is near to one as well.
    """
    places = [(parts / 2 + mp.mpf(n)) / parts for n in range(-reach, reach + 1)]

    def error(x: mp.mpf) -> mp.mpf:
        value = f(x)
        total = abs(_single(value) - value)
        if slope is not None:
            steepness = slope(value)
            total += max(x - low, high - x) * abs(_single(steepness) - steepness)
        return total

    return min((_single(low + (high - low) * place) for place in places), key=error)


def _segment(
    f: Function, size: Function, low: mp.mpf, high: mp.mpf, centre: mp.mpf, known: list[mp.mpf]
) -> list[mp.mpf]:
    """Return the centre and the coefficients, the first ones known, for errors in parts of size."""
    c = list(known)
    while len(c) <= DEGREE:
        k = len(c)

        def rest(d: mp.mpf, k: int = k) -> mp.mpf:
            inner = sum(a * d**j for j, a in enumerate(c) if j > 0)
            return (f(centre + d) - f(centre) - inner) / d**k

        def weight(d: mp.mpf, k: int = k) -> mp.mpf:
            return abs(d) ** k / size(centre + d)

        found = lawson(
            *(rest, weight, low - centre, high - centre),
            *(DEGREE - k, SEGMENT_POINTS, SEGMENT_ROUNDS),
        )
        c.append(_single(found[0]))
    return [centre, *c]


def _tanh_rows() -> list[list[mp.mpf]]:
    """The first row begins with t itself."""
    rows = []
    for n in range(SEGMENTS):
        low, high = _edges(n, TANH_SCALE, mp.mpf(1))
        centre, known = mp.mpf(0), [mp.mpf(0), mp.mpf(1)]
        if n > 0:
            # in the last one tanh hardly varies: anywhere
            reach = 1500 if n < SEGMENTS - 1 else 5000
            centre = _centre(mp.tanh, low, high, reach, 10_000, lambda value: 1 - value**2)
            known = [_single(mp.tanh(centre))]
        rows.append(_segment(mp.tanh, mp.tanh, low, high, centre, known))
    return rows


def _gelu_rows() -> list[list[mp.mpf]]:
    """For small t, where the error counts in parts of t Phi(-t) as well, less t/2."""

    def gaussian(t: mp.mpf) -> mp.mpf:
        return mp.exp(SLOPE * t * t)

    def tail(t: mp.mpf) -> mp.mpf:
        return t * mp.erfc(t / mp.sqrt(2)) / 2 * gaussian(t)

    def less_half(t: mp.mpf) -> mp.mpf:
        return -t * mp.erf(t / mp.sqrt(2)) / 2 * gaussian(t)

    edges = [_edges(n, mp.mpf(1), GELU_OFFSET) for n in range(SEGMENTS)]
    rows = [_segment(less_half, tail, *edges[0], mp.mpf(0), [mp.mpf(0), mp.mpf(0)])]
    for n in range(1, SEGMENTS):
        f = less_half if n < 3 else tail
        centre = _centre(f, *edges[n])
        rows.append(_segment(f, tail, *edges[n], centre, [_single(f(centre))]))
    return rows


def _show_rows(name: str, rows: list[list[mp.mpf]]) -> None:
    print(name)
    for row in rows:
        print(*(float(str(np.float32(float(x)))) + 0.0 for x in row))


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
    for dtype, degree, steps in ((np.float32, 1, 16), (np.float64, 5, 8)):
        c = lawson(_expm1_series, lambda r: r * r, -half / steps, half / steps, degree)
        _show(f"the same on {steps} times shorter intervals, for e**r", c, dtype)
    roots = [mp.mpf(2) ** (mp.mpf(n) / 16) for n in range(16)]
    _show("2**(n/16)", roots, np.float64)
    _show("2**(n/8) / that - 1", [x / float(x) - 1 for x in roots[::2]], np.float64)
    _show_rows("tanh(t)", _tanh_rows())
    _show_rows("t Phi(-t) e**(slope t**2)", _gelu_rows())
    radius = HALVING / 32
    c = lawson(lambda r: mp.expm1(-SLOPE * r) / r, abs, -radius, radius, 2)
    _show("(e**(-slope r) - 1) / r", c, np.float32)
    for dtype, degree in ((np.float32, 2), (np.float64, 6)):
        c = lawson(_atanh_series, _atanh_weight, mp.mpf(0), mp.mpf(1) / 25, degree)
        _show("(2 atanh(s) - 2 s) / s**3 in s**2", c, dtype)
    q = lawson(_inverse_factor, _inverse_weight, mp.mpf(0), mp.mpf(1), 4)
    c = [a - b for a, b in zip([*q, 0], [0, *q], strict=True)]
    c[0] += mp.mpf("0.5")
    _show("1 / (1 + u), to which 2**-23 is added", c, np.float32)


if __name__ == "__main__":
    main()
