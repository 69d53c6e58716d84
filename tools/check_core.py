"""Check an installation without extras: it trains and predicts, and says which extra is missing.

Usage: python -I tools/check_core.py

Run it by the Python of an environment that has fastmlp and nothing but its core dependencies.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np

import fastmlp as fm

CORE = {"fastmlp", "llvmlite", "numba", "numpy", "safetensors"}
INSTALLERS = {"pip", "setuptools", "wheel"}
FOR_DEVELOPERS = {"all", "dev", "docs", "peers", "test"}

data = fm.datasets.load_mnist157()
X, y = data.X_train[:2000], data.y_train[:2000]
net = fm.MLP([784, 16, 3], activation="softplus", dropout=0.1, norm="batch", seed=0)
drawn = np.zeros(2, np.int64)


def read_parquet() -> object:
    """Read a table whose name is that of a Parquet file."""
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        return fm.datasets.read(file.name, target="y")


# Every way to what needs an extra, by the extra. The functions must fail before they do anything.
NEEDS: dict[str, list[Callable[[], object]]] = {
    "data": [fm.datasets.load_mnist],
    "onnx": [lambda: net.to_onnx("net.onnx"), lambda: fm.MLP.from_onnx("net.onnx")],
    "parquet": [read_parquet],
    "plot": [
        lambda: fm.plot_activations(["relu"]),
        lambda: fm.plot_confusion_matrix(drawn, drawn, ("one", "five")),
        lambda: fm.plot_curvature([0, 1], [1.0, 2.0], 0.1),
        lambda: fm.plot_first_layer(net, (28, 28)),
        lambda: fm.plot_gradient_flow(fm.gradient_flow(net, X, y)),
        lambda: fm.plot_history(fm.fit(net, X, y, epochs=1)),
        lambda: fm.plot_samples(X[:2], (28, 28)),
    ],
    "scipy": [lambda: fm.fit(fm.MLP([784, 3]), X, y, optimizer=fm.LBFGS())],
    "sklearn": [
        lambda: fm.MLPClassifier,
        lambda: fm.MLPRegressor,
        lambda: fm.TabularEncoder,
    ],
    "tensorboard": [lambda: fm.TensorBoard("runs")],
}
OPTIONAL = {"notebook"}  # without it, something looks plainer


def check_environment() -> None:
    """Nothing is installed that only an extra asks for."""
    installed = {d.metadata["Name"].lower() for d in metadata.distributions()}
    assert installed >= CORE, f"not installed: {CORE - installed}"
    assert installed <= CORE | INSTALLERS, f"more than the core: {installed - CORE - INSTALLERS}"


def check_training() -> None:
    """It trains, predicts, saves, loads and checks a gradient."""
    history = fm.fit(net, X, y, epochs=5, validation=0.2, progress=True)
    assert history.val_accuracy[-1] > 0.95, history
    labels = net.predict(data.X_test)
    assert (labels == data.y_test).mean() > 0.95
    assert fm.gradient_check(fm.MLP([784, 4, 3], dtype="float64"), X[:8], y[:8]).ok
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net.safetensors")
        net.save(path)
        assert np.array_equal(fm.MLP.load(path).predict(data.X_test), labels)


def refusal(function: Callable[[], object]) -> str:
    """Return the message of the ImportError that the function raises, else what it returns."""
    try:
        return f"returned {function()!r}"
    except ImportError as error:
        return str(error)


def check_extras() -> None:
    """Each extra is asked for by its name where it is missing."""
    extras = set(metadata.metadata("fastmlp").get_all("Provides-Extra", [])) - FOR_DEVELOPERS
    unknown = extras ^ {*NEEDS, *OPTIONAL, "cli"}
    assert not unknown, f"extras that this file and pyproject.toml do not agree on: {unknown}"
    said = {extra: [refusal(function) for function in NEEDS[extra]] for extra in NEEDS}
    command = Path(sys.executable).with_name("fastmlp")
    result = subprocess.run([command, "info"], capture_output=True, text=True)
    assert result.returncode != 0
    said["cli"] = [result.stderr.strip()]
    for extra, messages in said.items():
        for message in messages:
            assert f'pip install "fastmlp[{extra}]"' in message, f"{extra}: {message}"
            print(f"{extra}: {message}")


if __name__ == "__main__":
    check_environment()
    check_training()
    check_extras()
    print(f"fastmlp {fm.__version__} works with {', '.join(sorted(CORE - {'fastmlp'}))} alone")
