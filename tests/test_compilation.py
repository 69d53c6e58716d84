"""One compiled program for every network: nothing compiles twice, nothing compiles on import."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import njit
from numba.core import event

import fastmlp as fm
from fastmlp.kernels.program import run

ACTIVATIONS = list(fm.activations.NAMES)
LOSSES = list(fm.losses.NAMES)
OPTIMIZERS = [
    *(fm.SGD(0.1), fm.SGD(0.1, momentum=0.5), fm.SGD(0.1, momentum=0.5, nesterov=True)),
    *(fm.Adagrad(), fm.RMSProp(), fm.Adam(), fm.AdamW(), fm.NAdam(), fm.GradientDescent()),
    *(fm.Adam(np.float32(0.01)), fm.Adam(fm.schedules.Cosine(0.1)), fm.SGD(lambda step: 0.1)),
]


WORK = {"float32": np.empty(10_000, np.float32), "float64": np.empty(10_000)}


@njit
def jitted_predict(out: Any, x: Any, network: Any, work: Any) -> Any:
    return fm.kernels.predict(out, x, network, work)


@pytest.fixture
def compiled() -> Iterator[list[str]]:
    """Names of the functions that compile during the test, with the entries compiled before."""
    fm.kernels.warmup("float32")
    fm.kernels.warmup("float64")
    fm.gradient_check(fm.MLP([1, 2]), [[1.0]], [0])
    fm.hessian_vector_product(fm.MLP([1, 2]), [[1.0]], [0], np.ones(32, np.float32))
    fm.hessian_vector_product(fm.MLP([1, 2], dtype="float64"), [[1.0]], [0], np.ones(16))
    for dtype, work in WORK.items():
        x = np.zeros((1, 1), dtype)
        jitted_predict(x.copy(), x, fm.MLP([1, 1], loss="huber", dtype=dtype).jitted(), work)
    names: list[str] = []

    class Listener(event.Listener):  # type: ignore[misc]
        def on_start(self, event: event.Event) -> None:
            names.append(event.data["dispatcher"].py_func.__name__)

        def on_end(self, event: event.Event) -> None:
            pass

    with event.install_listener("numba:compile", Listener()):
        yield names


def use(net: fm.MLP, samples: int = 20, **settings: object) -> None:
    """Call everything that reaches a kernel."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(samples, net.layer_sizes[0]))
    y = rng.random((samples, net.layer_sizes[-1]))
    if net.loss.name == "softmax_cross_entropy":
        y = rng.integers(0, net.layer_sizes[-1], samples)
    if net.is_classifier:
        net.predict_proba(X)
    fm.fit(net, X, y, **{"epochs": 1, **settings})  # type: ignore[arg-type]
    net.predict(X)
    net.decision_function(X)
    net.evaluate(X, y)
    net.loss_and_gradient(X, y)
    net.loss_and_gradient(X, y, sample_weight=np.ones(samples), training=False)
    net.input_gradient(X, y)
    net.activations(X)
    jitted_predict(
        net.decision_function(X), X.astype(net.dtype), net.jitted(), WORK[net.dtype.name]
    )


@pytest.mark.jit
def test_compilations_are_counted(compiled: list[str]) -> None:
    @njit
    def something_new(x: float) -> float:
        return x + 1.0

    something_new(1.0)
    assert compiled == ["something_new"]


@pytest.mark.jit
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nothing_compiles_again(compiled: list[str], dtype: str) -> None:
    for layer_sizes in ([1, 2], [3, 4], [5, 70], [8, 200, 3], [4, 5, 6, 7, 8], [2, *[9] * 12, 130]):
        use(fm.MLP(layer_sizes, dtype=dtype))
    for activation in ACTIVATIONS:
        use(fm.MLP([4, 6, 3], activation=activation, dtype=dtype))
    use(fm.MLP([4, *[6] * len(ACTIVATIONS), 3], activation=ACTIVATIONS, dtype=dtype))
    for norm in ("batch", "layer", [fm.BatchNorm(momentum=0.0), None, fm.LayerNorm(0.1)]):
        use(fm.MLP([4, 6, 7, 8, 3], norm=norm, dropout=[0.1, 0, 0.2, 0], l2=1, l1=1, dtype=dtype))
    use(fm.MLP([4, 6, 3], loss=fm.Loss("softmax_cross_entropy", class_weight=[1, 2, 3])))
    for loss in LOSSES:
        use(fm.MLP([4, 6, 3], loss=loss, dtype=dtype))
    for optimizer in OPTIMIZERS:
        for batch_size in (7, np.int32(32), 300, None):
            use(fm.MLP([4, 6, 3], dtype=dtype), 600, optimizer=optimizer, batch_size=batch_size)
    for settings in (
        {"clip_value": 0.1},
        {"clip_norm": 0.1},
        {"clip_global_norm": 0.1},
        {"average": 0.9, "accumulate": 3, "checkpoint_every": 2},
        {"sample_weight": np.ones(20), "early_stopping": fm.EarlyStopping("loss")},
    ):
        use(fm.MLP([4, 6, 5, 6, 3], dtype=dtype), **settings)
    for threads in (1, 2, 3, 5):
        use(fm.MLP([4, 6, 3], dtype=dtype), threads=threads)
    for validation in (None, 0.3, (np.ones((2, 4)), np.array([0, 1]))):
        for shuffle in (False, True):
            net = fm.MLP([4, 6, 3], dtype=dtype)
            use(net, validation=validation, shuffle=shuffle, seed=2**62, epochs=3)
    net = fm.MLP([4, 6, 3], dtype=dtype)
    use(net.clone())
    use(net.astype("float32"))
    use(net.astype("float64"))
    fm.gradient_check(net, np.ones((2, 4)), [0, 1])
    fm.hessian_vector_product(net, np.ones((2, 4)), [0, 1], net.theta)
    assert compiled == []
    assert len(run.signatures) == 2  # one for each dtype


@pytest.mark.jit
def test_inputs_of_any_kind_do_not_compile(compiled: list[str]) -> None:
    net = fm.MLP([3, 5, 2], seed=0)
    X = np.arange(24.0, dtype=np.float32).reshape(8, 3) / 24
    y = np.arange(8) % 2
    read_only_X, read_only_y = X.copy(), y.copy()
    read_only_X.flags.writeable = read_only_y.flags.writeable = False
    unaligned = np.zeros(X.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(X.shape)
    kinds = [
        *(X.astype(dtype) for dtype in ("f2", "f8", ">f4", "i1", "u8", "?", "longdouble")),
        *(np.asfortranarray(X), np.repeat(X, 2, 0)[::2], X[::-1], unaligned, read_only_X),
        *(X.tolist(), np.broadcast_to(X[0], X.shape)),
    ]
    for inputs in kinds:
        fm.fit(net, inputs, y, epochs=1)
        net.predict(inputs)
    for labels in (y.astype("u1"), y.astype(">i8"), y.tolist(), y > 0, read_only_y, y[::-1]):
        fm.fit(net, X, labels, epochs=1)
        net.loss_and_gradient(X, labels)
    assert compiled == []
    assert len(run.signatures) == 2


SCRIPT_OF_IMPORT = """
import json, sys
from numba.core import event

before = set(sys.modules)
with event.install_recorder("numba:compile") as recorder:
    import fastmlp
    fastmlp.MLP([4, 5, 3])
    fastmlp.kernels.info()
print(json.dumps({
    "compiled": len(recorder.buffer),
    "modules": sorted(set(sys.modules) - before),
    "warm": fastmlp.kernels.compiled("float32"),
}))
"""
EXTRAS = {
    *("torch", "jax", "sklearn", "matplotlib", "typer", "click", "rich", "pooch", "requests"),
    *("scipy", "pandas", "pyarrow", "hypothesis", "pytest", "PIL"),
}


@pytest.mark.jit
def test_import_compiles_nothing_and_needs_no_extra() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT_OF_IMPORT],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["compiled"] == 0
    assert not result["warm"]
    imported = {name.partition(".")[0] for name in result["modules"]}
    assert "fastmlp" in imported
    assert not imported & EXTRAS
    assert "kernels" not in imported  # that name belongs to another project


SCRIPT_OF_LATE_IMPORTS = """
import gc, pickle, sys
import fastmlp

assert gc.isenabled()
names = set(dir(fastmlp))
assert {*fastmlp.__all__, "__version__", "curvature"} <= names
late = {"cost", "curvature", "datasets", "diagnostics", "gradcheck", "io", "plotting"}
late |= {"kernels.gradcheck", "kernels.hessian", "kernels.reference"}
assert not {f"fastmlp.{name}" for name in late} & set(sys.modules)
for name in names:
    value = getattr(fastmlp, name)
    assert vars(fastmlp)[name] is value
    if callable(value):
        assert pickle.loads(pickle.dumps(value)) is value
from fastmlp import *
assert gradient_check is fastmlp.gradcheck.gradient_check
assert not hasattr(fastmlp, "gradient_chek")
"""


def test_late_imports() -> None:
    """What is imported when it is asked for is there, under the same name each time."""
    command = [sys.executable, "-W", "error", "-c", SCRIPT_OF_LATE_IMPORTS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_type_checkers_see_all_names() -> None:
    """Each public name is imported in the source, also those that are imported late."""
    tree = ast.parse(Path(fm.__file__).read_text("utf-8"))
    seen = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    assert seen - {"paused"} == set(fm.__all__)


def test_no_module_named_kernels() -> None:
    assert "kernels" not in sys.modules


# All JIT options are in one place

COMPILERS = {
    "njit",
    "jit",
    "vectorize",
    "guvectorize",
    "generated_jit",
    "cfunc",
    "stencil",
    "jitclass",
}
OPTIONS = {"fastmath", "parallel", "nopython", "nogil", "error_model", "boundscheck"}


def jit_options(source: str) -> list[str]:
    """What compiles in a module, or says how to: names and keywords, not text or comments."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("numba"):
            found += [alias.name for alias in node.names if alias.name in {*COMPILERS, "prange"}]
        elif isinstance(node, ast.Attribute) and node.attr in {*COMPILERS, "prange"}:
            found.append(node.attr)
        elif isinstance(node, ast.keyword) and node.arg in OPTIONS:
            found.append(node.arg)
    return found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from numba import njit\n@njit\ndef f(): pass", ["njit"]),
        ("import numba as nb\n@nb.jit(nogil=True)\ndef f(): pass", ["jit", "nogil"]),
        ("import numba\nf = numba.njit(g, fastmath={'contract'})", ["njit", "fastmath"]),
        ("from numba import prange, types", ["prange"]),
        ("from numba.experimental import jitclass", ["jitclass"]),
        ("@kernel(parallel=True)\ndef f(): pass", ["parallel"]),
        ('"""Not @njit(fastmath=True)."""\nfrom numba import types  # njit', []),
        ("from ._jit import kernel\n@kernel\ndef f(): pass", []),
    ],
)
def test_jit_options_are_found(source: str, found: list[str]) -> None:
    assert sorted(jit_options(source)) == sorted(found)


def test_jit_options_are_in_one_place() -> None:
    folders = [Path(folder) for folder in (*fm.__path__, *fm.kernels.__path__)]
    sources = {path for folder in folders for path in folder.rglob("*.py")}
    assert len(sources) > 20
    (place,) = (path for path in sources if path.name == "_jit.py")
    assert jit_options(place.read_text("utf-8"))
    elsewhere = {
        str(path): jit_options(path.read_text("utf-8")) for path in sorted(sources - {place})
    }
    assert {path: found for path, found in elsewhere.items() if found} == {}
