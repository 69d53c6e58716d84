"""The same numbers from every vector width, without fused multiply-add, and without the compiler.

What decides the machine code is read when the kernels are imported, so each variant is a process:
this file, run as a script, prints what `workload` computes. Two run at a time, since each compiles
everything for itself.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastmlp as fm
from fastmlp.kernels import machine

WIDTHS = {"16 bytes": "16", "32 bytes": "32", "64 bytes": "64"}
VARIANTS: dict[str, dict[str, str]] = {
    **{name: {"FASTMLP_VECTOR_BYTES": width} for name, width in WIDTHS.items()},
    "without fma": {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2"},
    "bounds checked": {"NUMBA_BOUNDSCHECK": "1"},
    "without compiler": {"NUMBA_DISABLE_JIT": "1"},
    "16 bytes without compiler": {"FASTMLP_VECTOR_BYTES": "16", "NUMBA_DISABLE_JIT": "1"},
}
only_x86 = pytest.mark.skipif(not machine.IS_X86, reason="names the features of an x86 CPU")
# Kernel tests that say something about widths; the training itself is in `workload`.
KERNEL_TESTS = [f"test_kernels_{name}.py" for name in ("features", "gemm", "simd")]


def workload() -> dict[str, Any]:
    """Train, predict and check gradients, with a narrow output layer and with a wide one.

    A gradient of three rows is of products with rows of W; of 41 units, the last block of units is
    padding alone where vectors are narrow.
    """
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 10))
    labels, targets = rng.integers(0, 3, 60), rng.normal(size=(60, 70))
    result: dict[str, Any] = {"info": fm.kernels.info(), "loss": [], "outputs": [], "same": True}
    for sizes, activations, loss, y in (
        ([10, 24, 20, 3], ["softplus", "tanh"], "softmax_cross_entropy", labels),
        ([10, 9, 70], ["sigmoid"], "squared_error", targets),
    ):
        thetas = []
        for threads in (1, 2, 3):
            net = fm.MLP(sizes, activation=activations, loss=loss, seed=1, dtype="float64")
            history = fm.fit(
                net, X, y, epochs=3, batch_size=16, validation=0.2, threads=threads, seed=2
            )
            thetas.append(net.theta)
        result["same"] &= all(np.array_equal(theta, thetas[0]) for theta in thetas)
        result["loss"] += history.loss + history.val_loss
        result["outputs"] += net.decision_function(X[:5]).ravel().tolist()
    net = fm.MLP([10, 41, 70], activation="tanh", loss="squared_error", seed=4, dtype="float64")
    result["gradient"] = net.loss_and_gradient(X[:3], targets[:3])[1].flat.tolist()
    net = fm.MLP([3, 5, 4, 3], activation=["relu", "softplus"], seed=3, dtype="float64")
    report = fm.gradient_check(net, X[:6, :3], labels[:6])
    return {**result, "gradient_error": report.relative_error}


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run Python in an empty folder, with these settings alone and a cache of the module's own."""
    folder = tmp_path_factory.mktemp("widths")

    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {
            k: v for k, v in os.environ.items() if k[:5] != "NUMBA" and k[:7] != "FASTMLP"
        }
        environment |= {"NUMBA_CACHE_DIR": str(folder / "cache"), **settings}
        return subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment,
            timeout=600,
        )

    return run


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    """Two workers; what nobody waits for any more is not begun."""
    executor = ThreadPoolExecutor(2)
    yield executor
    executor.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def workloads(run: Run, pool: ThreadPoolExecutor) -> dict[str, Future[Any]]:
    """The workload of each variant, under way."""
    names = [name for name in VARIANTS if machine.IS_X86 or name != "without fma"]
    return {name: pool.submit(run, __file__, **VARIANTS[name]) for name in names}


@pytest.fixture(scope="module")
def native() -> dict[str, Any]:
    return workload()


@pytest.mark.jit
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=only_x86) if n == "without fma" else n for n in VARIANTS]
)
def test_variants_agree(
    name: str, workloads: dict[str, Future[Any]], native: dict[str, Any]
) -> None:
    process = workloads[name].result()
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    if name in WIDTHS:
        assert result["info"]["vector_bytes"] == int(WIDTHS[name])
    if name == "without fma":
        assert not result["info"]["fused_multiply_add"]
    assert result["same"], "the number of threads changes the parameters"
    assert result["gradient_error"] < 1e-7
    for part in ("loss", "outputs", "gradient"):
        np.testing.assert_allclose(result[part], native[part], rtol=1e-11, atol=1e-12)


@pytest.mark.jit
@pytest.mark.parametrize("name", [*WIDTHS, "without compiler"])
def test_kernel_tests_pass(name: str, run: Run, pool: ThreadPoolExecutor) -> None:
    if name in WIDTHS and int(WIDTHS[name]) == machine.VECTOR_BYTES:
        pytest.skip("this is the width of the process that runs all tests")
    files = [str(Path(__file__).with_name(file)) for file in KERNEL_TESTS]
    process = run(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider"),
        *(["-m", "not jit"] if name == "without compiler" else []),
        *files,
        **VARIANTS[name],
    )
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.parametrize("value", ["8", "128", "wide", ""])
def test_unknown_width(value: str, run: Run) -> None:
    process = run("-c", "import fastmlp", FASTMLP_VECTOR_BYTES=value)
    assert process.returncode != 0
    expected = f"ValueError: FASTMLP_VECTOR_BYTES must be 16, 32 or 64, got {value!r}"
    assert expected in process.stderr


if __name__ == "__main__":
    print(json.dumps(workload()))
