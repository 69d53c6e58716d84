"""Deliberately broken backward passes: the gradient check finds every one.

Each mutant is one change of the installed sources. All run in one process without the compiler, on
a copy of the package that is imported afresh each time.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fastmlp

# file of the kernels: texts that occur there once, and what takes their place
BROKEN = {
    "activation.py": [
        ("choose_less(zero, a, fill(a, 1.0), zero)", "choose_less(a, zero, fill(a, 1.0), zero)"),
        ("return a * (fill(a, 1.0) - a)", "return a * (fill(a, 1.0) + a)"),
        ("return (one - a) * (one + a)", "return (one - a) * (one - a)"),
        ("return -expm1(-a)", "return expm1(-a)"),
        (
            "return choose_less(fill(x, 0.0), x, fill(x, 1.0), slope)",
            "return choose_less(fill(x, 0.0), x, slope, fill(x, 1.0))",
        ),
        (
            "x, right, exp_times(left, below_zero(x))",
            "x, right, exp_times(left + left, below_zero(x))",
        ),
        ("scale, a + left)", "scale, a)"),
        ("fill(x, -DENSITY), t, tail_ratio(t)", "fill(x, DENSITY), t, tail_ratio(t)"),
        ("fill(x, 3 * TANH_CUBIC)", "fill(x, TANH_CUBIC)"),
        ("fma(t, one - scale(h, n), one)", "fma(-t, one - scale(h, n), one)"),
        ("(e + one) * fill(x, 4.0)", "(e + one) * fill(x, 2.0)"),
        (
            "x = choose_less(zero, x, zero, x)\n            store(sums",
            "x = choose_less(x, zero, zero, x)\n            store(sums",
        ),
    ],
    "loss.py": [
        ("z[b, y] = -(rest + (1 - right)) * factor", "z[b, y] = (rest + (1 - right)) * factor"),
        ("fill(zero, -scale * weight), inside", "fill(zero, -scale), inside"),
        (
            "z[b, best] = (others - largest * rest) * factor",
            "z[b, best] = (others - rest) * factor",
        ),
        ("factor = scale * weight / (1 + rest)", "factor = weight / (1 + rest)"),
        ("fill(y, scale) * weight / (one + rest)", "fill(y, scale) / (one + rest)"),
        ("- y), half, right, wrong)", "- y), half, wrong, wrong)"),
        ("weight if first + lane < end else 0.0", "weight"),
        ("weights[rows[b + lane]] if b + lane < end else 0.0", "weights[rows[b + lane]]"),
        ("slope = e / (one + e) - far", "slope = e / (one + e) + far"),
        (
            "value, slope = value * class_weight, slope * class_weight",
            "value, slope = value * class_weight, slope",
        ),
        ("slope = choose_less(difference, fill(difference, 0.0), -c, c)", "slope = c"),
        ("choose_less(zero, difference, one, slope)", "choose_less(zero, difference, -one, slope)"),
        ("value, slope = x * t, t", "value, slope = x * t, -t"),
        ("slope * fill(zero, scale * weight)", "slope * fill(zero, scale)"),
        ("value, slope = fma(-t, x, e), e - t", "value, slope = fma(-t, x, e), e + t"),
    ],
    "norm.py": [
        (
            "mean_gain = sum_gain * fill(sum_gain, -1.0 / rows)",
            "mean_gain = sum_gain * fill(sum_gain, 1.0 / rows)",
        ),
        ("centered = load(dz, b, j) - mean_shift", "centered = load(dz, b, j)"),
        ("factor = load(gain, 0, j) * load(spread, 0, j)", "factor = load(spread, 0, j)"),
        ("store(dz, b, j, load(dz, b, j) * load(gain, 0, j))", "pass"),
        ("centered = x - fill(x, total / units)", "centered = x"),
        ("fill(x, -products / units), centered", "fill(x, products / units), centered"),
        ("inside = centered * fill(x, spread[0, b])", "inside = centered"),
        ("store(dgain, 0, j, sum_gain)", "store(dgain, 0, j, sum_shift)"),
    ],
    "network.py": [
        ("multiply_by(da, da, own_part_of(plan, work, below, MASK, p, low, high))", "pass"),
        ("inputs * v), l2, l1)", "inputs * v), l1, l2)"),
        ("is_penalized = p.start == 0 and (l2 > 0 or l1 > 0)", "is_penalized = False"),
        (
            "slope_backward(slope_sums_of(plan, work, below, low, high), da, saved)",
            "slope_backward(slope_sums_of(plan, work, below, low, high), saved, da)",
        ),
        ("total = fill(total, lane_sum(total))", "total = fill(total, lane_sum(total) / 2)"),
        ("table[layer, GAIN] + low, width, dgain)", "table[layer, GAIN] + low, width, dshift)"),
        ("if top == 0 and bottom > 0:", "if False:"),
        ("fill(total, 0.0) if is_centered else total", "fill(total, 0.0)"),
        ("start = c\n", "pass\n"),
        ("places[n] = features[n] - first", "places[n] = n"),
        ("multiply_by(da, da, input_mask_of(plan, work, p, low, high))", "pass"),
        ("scale_columns(part, part, row_of(plan, theta, 0, GAIN, low, high))", "pass"),
    ],
    "turned.py": [
        ("activation_backward(da, saved, code, number, da)", "pass"),
        ("zeros, count, inputs, outputs)", "zeros, count, outputs, inputs)"),
        ("OUTPUT if layer == last_of(plan) else DELTA", "OUTPUT"),
        ("is_penalized = p.start == 0 and (l2 > 0 or l1 > 0)", "is_penalized = False"),
        ("add(g, more)", "pass"),
        ("c[m + i, n - low + j] = scratch[i, j]", "c[m + i, n - low + j] = scratch[j, i]"),
        ("four_vectors(a, 0, q * high + m * v)", "four_vectors(a, 0, m * v)"),
        ("add_rows(db, dz, low, high, size, count, scratch)", "pass"),
        ("p2 + w2, p3 + w3", "p2 + w3, p3 + w2"),
    ],
    "scale.py": [
        ("low + i] * da[b, i]", "low + i]"),
        ("load(da, b, j), total)", "load(da, b, j), load(da, b, j))"),
    ],
    "gemm.py": [
        ("first, n % v, count)", "first, n % v, count - 1)"),
    ],
    "program.py": [
        ("share_of_one = 1.0 / weight if weight > 0 else 0.0", "share_of_one = 1.0 / rows"),
        ("for group in range(1, groups):", "for group in range(2, groups):"),
    ],
    "optimizer.py": [
        ("choose_less(zero, p, size, choose_less(p, zero, -size, zero))", "size"),
    ],
}
MUTANTS = [(file, *change) for file, changes in BROKEN.items() for change in changes]


# In a process of its own; arguments: the folder of the copy, that of the tests, the mutants.
# Prints what fails, for the unchanged package and then for each mutant: by complex steps which of
# the small networks, and of these whether the first one does by differences.
PROGRAM = """
import json, sys
from pathlib import Path

folder, tests, mutants = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
sys.dont_write_bytecode = True
sys.path[:0] = [str(folder), tests]


def failures():
    for name in list(sys.modules):
        if name.partition(".")[0] in ("fastmlp", "networks"):
            del sys.modules[name]
    import fastmlp
    import networks

    assert Path(fastmlp.__file__).parent == folder / "fastmlp"
    cases = networks.small_cases()

    def fails(number, method):
        case = cases[number]
        return not fastmlp.gradient_check(case.net, **case.samples, method=method).ok

    found = [number for number in range(len(cases)) if fails(number, "complex")]
    return found, [fails(number, "central") for number in found[:1]]


def changed(file, old, new):
    path = folder / "fastmlp" / "kernels" / file
    source = path.read_text(encoding="utf-8")
    assert source.count(old) == 1, f"{old!r} is {source.count(old)} times in {file}"
    path.write_text(source.replace(old, new), encoding="utf-8")
    try:
        return failures()
    finally:
        path.write_text(source, encoding="utf-8")


print(json.dumps([failures(), *(changed(*mutant) for mutant in mutants)]))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What the program prints."""
    folder = tmp_path_factory.mktemp("mutants")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(fastmlp.__file__).parent, folder / "fastmlp", ignore=ignored)
    kernels = folder / "fastmlp" / "kernels"
    shutil.copytree(
        Path(fastmlp.kernels.__file__).parent, kernels, ignore=ignored, dirs_exist_ok=True
    )
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder, Path(__file__).parent, json.dumps(MUTANTS)],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    found: list[Any] = json.loads(finished.stdout)
    return found


def test_there_are_enough() -> None:
    assert len(set(MUTANTS)) == len(MUTANTS) >= 30


def test_unchanged_package_passes(results: list[Any]) -> None:
    assert results[0] == [[], []]


@pytest.mark.parametrize("number", range(len(MUTANTS)))
def test_mutant_is_found(results: list[Any], number: int) -> None:
    by_complex_steps, by_differences = results[number + 1]
    assert by_complex_steps, MUTANTS[number]
    assert by_differences == [True], MUTANTS[number]
