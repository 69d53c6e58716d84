"""The command line: what each command reads, prints and writes, and how it fails."""

import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import INSECTS, SMALL, error_of, insect_rows, read_csv, run, write_csv

import fastmlp as fm
from fastmlp import cli
from fastmlp.datasets import Samples


@pytest.fixture(autouse=True)
def _in_own_folder_without_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def insects(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "insects.csv", insect_rows())


@pytest.fixture
def model(insects: Path) -> Path:
    """Return a model that has learnt the insects."""
    path = insects.with_name("model.safetensors")
    run(
        *("train", insects, "--target", "insect", "--save", path, "--quiet", "--hidden", "6"),
        *("--epochs", "30", "--batch-size", "4", "--learning-rate", "0.02"),
    )
    return path


@pytest.fixture
def line(tmp_path: Path) -> Path:
    """Return a CSV file with a number to predict."""
    x = np.linspace(-1, 1, 40)
    rows = [[repr(float(v)), repr(float(2 * v + 0.5))] for v in x]
    return write_csv(tmp_path / "line.csv", [["x", "y"], *rows])


def write_npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def digits(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Return two features and integer classes 10 and 20."""
    X = np.random.default_rng(3).normal(size=(n, 2))
    return X, np.where(X[:, 0] > 0, 20, 10)


# Training


@pytest.mark.jit
def test_train_on_the_bundled_digits(tmp_path: Path) -> None:
    result = run("train", "mnist157", "--epochs", "2")
    assert "18,428 training samples, 3,055 test samples, 784 features" in result.stdout
    assert "3 classes: 1, 5, 7" in result.stdout
    assert "784-128-3, softplus, softmax_cross_entropy, float32: 100,867 param" in result.stdout
    assert re.search(r"kernels compiled or loaded in \d+\.\d\d s\n", result.stdout)
    assert re.search(r"trained 2 epochs in \d+\.\d\d s, [\d,]+ samples/s\n", result.stdout)
    accuracy = re.search(r"test accuracy (\d+\.\d+) % on 3,055 samples", result.stdout)
    assert accuracy is not None
    assert float(accuracy[1]) > 97.0
    assert "saved mnist157.safetensors" in result.stdout
    assert "epoch 2/2  loss" in result.stderr
    net = fm.MLP.load(tmp_path / "mnist157.safetensors")
    assert json.loads(net.metadata["class_names"]) == ["1", "5", "7"]
    data = fm.datasets.load_mnist157()
    measured = net.evaluate(data.X_test, data.y_test).accuracy
    assert measured == pytest.approx(float(accuracy[1]) / 100, abs=6e-5)


def test_train_on_csv_with_classes(insects: Path) -> None:
    result = run("train", insects, "--target", "insect", *SMALL)
    assert "insects: 48 training samples, 12 test samples (held out), 2 features" in result.stdout
    assert f"3 classes: {', '.join(sorted(INSECTS))}" in result.stdout
    net = fm.MLP.load("insects.safetensors")
    assert net.layer_sizes == (2, 6, 3)
    assert net.loss.name == "softmax_cross_entropy"
    assert net.metadata["target"] == "insect"
    assert json.loads(net.metadata["columns"]) == ["length", "width"]
    assert json.loads(net.metadata["class_names"]) == sorted(INSECTS)


def test_train_on_csv_with_numbers(line: Path) -> None:
    result = run("train", line, "--target", "y", *SMALL)
    assert "1 features\n" in result.stdout
    assert re.search(r"test loss \d\.\d{4} \(squared_error\) on 8 samples", result.stdout)
    assert "accuracy" not in result.output
    assert fm.MLP.load("line.safetensors").loss.name == "squared_error"


@pytest.mark.parametrize(
    ("cells", "loss", "expected"),
    [
        (["1", "2"], None, "softmax_cross_entropy"),
        (["1.0", "2.5"], None, "squared_error"),
        (["1", "2.5"], None, "squared_error"),
        (["1", "two"], None, "softmax_cross_entropy"),
        (["1", "2"], "squared_error", "squared_error"),
        (["1", "2"], "half_squared_error", "half_squared_error"),
        (["1.0", "2.5"], "softmax_cross_entropy", "softmax_cross_entropy"),
    ],
)
def test_target_chooses_the_loss(
    tmp_path: Path, cells: list[str], loss: str | None, expected: str
) -> None:
    rows = [[str(i / 10), cells[i % 2]] for i in range(20)]
    data = write_csv(tmp_path / "d.csv", [["x", "y"], *rows])
    run("train", data, "--target", "y", *SMALL, *(["--loss", loss] if loss else []))
    assert fm.MLP.load("d.safetensors").loss.name == expected


@pytest.mark.jit
@pytest.mark.parametrize("activation", fm.activations.NAMES)
def test_every_activation(insects: Path, activation: str) -> None:
    result = run("train", insects, "--target", "insect", *SMALL, "--activation", activation)
    assert f"network 2-6-3, {fm.activations.Activation(activation)}, softmax" in result.stdout
    assert fm.MLP.load("insects.safetensors").activation[0].name == activation


@pytest.mark.parametrize("loss", ["huber", "absolute_error", "pinball", "poisson"])
def test_losses_of_numbers(tmp_path: Path, loss: str) -> None:
    rows = [[str(i / 10), str(i / 7)] for i in range(20)]
    data = write_csv(tmp_path / "d.csv", [["x", "y"], *rows])
    result = run("train", data, "--target", "y", *SMALL, "--loss", loss)
    assert f"({loss}) on 4 samples" in result.stdout


def test_two_classes_with_one_output(tmp_path: Path) -> None:
    X, _ = digits()
    rows = [[*map(repr, x.tolist()), "up" if x[0] > 0 else "down"] for x in X]
    data = write_csv(tmp_path / "d.csv", [["a", "b", "way"], *rows])
    loss = ("--loss", "binary_cross_entropy", "--epochs", "60", "--learning-rate", "0.05")
    result = run("train", data, "--target", "way", "--hidden", "6", *loss)
    assert "2 classes: down, up" in result.stdout
    assert fm.MLP.load("d.safetensors").layer_sizes == (2, 6, 1)
    stdout = run("evaluate", "d.safetensors", data).stdout
    accuracy = float(re.search(r"accuracy (\d+\.\d+) %", stdout)[1])
    run("predict", "d.safetensors", data, "--output", "out.csv")
    run("predict", "d.safetensors", data, "--output", "proba.csv", "--proba")
    predicted = [row[0] for row in read_csv(Path("out.csv"))[1:]]
    right = [name == row[2] for name, row in zip(predicted, rows, strict=True)]
    assert 100 * np.mean(right) == pytest.approx(accuracy)
    assert accuracy > 90
    header, *probabilities = read_csv(Path("proba.csv"))
    assert header == ["down", "up"]
    assert predicted == [header[float(up) > 0.5] for _, up in probabilities]


def test_one_output_is_not_enough_for_three_classes(insects: Path) -> None:
    message = error_of("train", insects, "--target", "insect", "--loss", "binary_cross_entropy")
    assert message == (
        f"--loss binary_cross_entropy is for two classes, got 3: {', '.join(sorted(INSECTS))}"
    )


def test_integer_classes_are_in_numeric_order(tmp_path: Path) -> None:
    rows = [[str(i), str((9, 10, 100)[i % 3])] for i in range(30)]
    run("train", write_csv(tmp_path / "d.csv", [["x", "y"], *rows]), "--target", "y", *SMALL)
    assert json.loads(fm.MLP.load("d.safetensors").metadata["class_names"]) == ["9", "10", "100"]


def test_train_on_npz_with_parts() -> None:
    X, y = digits()
    data = write_npz(
        Path("d.npz"),
        X_train=X[:30].astype(np.float32),
        y_train=y[:30],
        X_test=X[30:],
        y_test=y[30:],
        another=np.array([{}], dtype=object),
    )
    result = run("train", data, *SMALL)
    assert "d: 30 training samples, 10 test samples, 2 features, 2 classes: 10, 20" in result.stdout


@pytest.mark.parametrize(
    ("y", "sizes"),
    [
        (np.linspace(0, 1, 40), (2, 6, 1)),
        (np.linspace(0, 1, 80).reshape(40, 2), (2, 6, 2)),
        (np.arange(40) % 2 == 0, (2, 6, 2)),
        (np.array(["a", "b"] * 20), (2, 6, 2)),
        (np.array([b"a", b"b"] * 20), (2, 6, 2)),
    ],
)
def test_train_on_npz_without_parts(y: np.ndarray, sizes: tuple[int, ...]) -> None:
    result = run("train", write_npz(Path("d.npz"), X=digits()[0], y=y), *SMALL)
    assert "32 training samples, 8 test samples (held out)" in result.stdout
    assert fm.MLP.load("d.safetensors").layer_sizes == sizes


def test_train_on_mnist_folder(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    folder = tmp_path / "digits"
    folder.mkdir()
    for part, n in (("train", 20), ("t10k", 10)):
        images = rng.integers(256, size=(n, 28, 28), dtype=np.uint8)
        header = np.array([0x803, n, 28, 28], dtype=">i4").tobytes()
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = (np.arange(n) % 10).astype(np.uint8)
        header = np.array([0x801, n], dtype=">i4").tobytes()
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    result = run("train", folder, "--hidden", "3", "--epochs", "1", "--validation", "0")
    assert "digits: 20 training samples, 10 test samples, 784 features, 10 classes" in result.stdout
    assert fm.MLP.load("digits.safetensors").layer_sizes == (784, 3, 10)


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        (["--hidden", "5,4"], (2, 5, 4, 3)),
        (["--hidden", "5", "--hidden", "4,3"], (2, 5, 4, 3, 3)),
        (["--hidden", "4", "--optimizer", "sgd", "--batch-size", "full"], (2, 4, 3)),
        (["--hidden", "4", "--optimizer", "momentum", "--batch-size", "0"], (2, 4, 3)),
        (["--hidden", "4", "--activation", "tanh", "--threads", "1"], (2, 4, 3)),
        (["--hidden", "4", "--dtype", "float64", "--batch-size", "1"], (2, 4, 3)),
    ],
)
def test_options(insects: Path, options: list[str], sizes: tuple[int, ...]) -> None:
    run("train", insects, "--target", "insect", "--epochs", "1", *options)
    net = fm.MLP.load("insects.safetensors")
    assert net.layer_sizes == sizes
    assert net.dtype == ("float64" if "float64" in options else "float32")
    assert net.activation[0].name == ("tanh" if "tanh" in options else "softplus")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], fm.Adam()),
        (["--optimizer", "adam", "--learning-rate", "0.5"], fm.Adam(0.5)),
        (["--optimizer", "sgd"], fm.SGD()),
        (["--optimizer", "momentum", "--learning-rate", "0.5"], fm.SGD(0.5, momentum=0.9)),
    ],
)
def test_arguments_of_fit(
    insects: Path,
    options: list[str],
    expected: fm.SGD | fm.Adam,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[str, Any] = {}

    def fit(net: fm.MLP, X: Any, y: Any, **options: Any) -> fm.History:
        seen.update(options)
        return fm.History(loss=[1.0], seconds=1.0)

    monkeypatch.setattr(fm, "fit", fit)
    run("train", insects, "--target", "insect", "--seed", "4", "--validation", "0", *options)
    assert seen == {
        "optimizer": expected,
        "batch_size": 32,
        "epochs": 15,
        "validation": None,
        "progress": True,
        "threads": None,
        "seed": 4,
        "shuffle": True,
        "early_stopping": None,
        "accumulate": 1,
        "clip_value": None,
        "clip_norm": None,
        "clip_global_norm": None,
        "average": None,
        "learning_rate_factors": None,
        "checkpoint_every": 1,
        "callbacks": [],
    }


def test_same_seed_gives_the_same_file(insects: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run("train", insects, "--target", "insect", *SMALL, "--seed", seed, "--save", name)
    assert Path("a").read_bytes() == Path("b").read_bytes()
    assert Path("a").read_bytes() != Path("c").read_bytes()


def test_quiet_prints_nothing(insects: Path) -> None:
    assert run("train", insects, "--target", "insect", *SMALL, "--quiet").output == ""


def test_plot(insects: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    result = run("train", insects, "--target", "insect", *SMALL, "--plot", "loss.png")
    assert Path("loss.png").read_bytes().startswith(b"\x89PNG")
    assert "plotted loss.png" in result.stdout


def test_plot_without_matplotlib(insects: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    message = error_of("train", insects, "--target", "insect", *SMALL, "--plot", "loss.png")
    assert message == 'plots need matplotlib: pip install "fastmlp[plot]"'
    assert not Path("insects.safetensors").exists()


def interrupt(monkeypatch: pytest.MonkeyPatch, stop: Callable[..., fm.History]) -> None:
    """Let fit return what it does after Ctrl-C."""
    monkeypatch.setattr(fm, "fit", stop)


def test_interrupted_training_keeps_the_model(
    insects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = fm.fit
    interrupt(monkeypatch, lambda *a, **k: replace(fit(*a, **k), interrupted=True))
    result = run("train", insects, "--target", "insect", *SMALL, exit_code=130)
    assert "interrupted after 2 epochs\nepoch    loss  accuracy" in result.stdout
    assert "saved insects.safetensors" in result.stdout
    assert fm.MLP.load("insects.safetensors").layer_sizes == (2, 6, 3)


def test_interrupted_compilation_saves_nothing(
    insects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, lambda *a, **k: fm.History(interrupted=True))
    result = run("train", insects, "--target", "insect", *SMALL, exit_code=130)
    assert "nothing is saved" in result.stderr
    assert not Path("insects.safetensors").exists()


@pytest.mark.jit
@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
def test_ctrl_c() -> None:
    command = [sys.executable, "-m", "fastmlp.cli", "train", "mnist157", "--epochs", "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as it:
        assert it.stderr is not None
        while not it.stderr.readline().startswith("epoch 1/100000"):
            assert it.poll() is None
        it.send_signal(signal.SIGINT)
        output, errors = it.communicate(timeout=60)
    assert it.returncode == 130
    assert "Traceback" not in errors
    assert "interrupted after " in output
    assert fm.MLP.load("mnist157.safetensors").layer_sizes == (784, 128, 3)


# Evaluating and predicting


def test_evaluate(insects: Path, model: Path) -> None:
    result = run("evaluate", model, insects)
    assert result.stdout.startswith("accuracy 100.00 % on 60 samples, loss 0.0")
    assert result.stderr == ""


def test_evaluate_other_column(model: Path, tmp_path: Path) -> None:
    rows = insect_rows()[1:]
    other = write_csv(tmp_path / "other.csv", [["length", "width", "kind"], *rows])
    assert "100.00 %" in run("evaluate", model, other, "--target", "kind").stdout
    assert "has no column 'insect'; its columns: length, width, kind" in error_of(
        "evaluate", model, other
    )


def test_evaluate_numbers(line: Path) -> None:
    run("train", line, "--target", "y", *SMALL, "--quiet")
    assert run("evaluate", "line.safetensors", line).stdout.startswith("loss ")


def identity_net(n: int, path: str, names: tuple[str, ...] = ()) -> str:
    """Save a network that predicts the class of the largest feature."""
    net = fm.MLP([n, n])
    net.weights[0][...] = np.eye(n)
    net.biases[0][...] = 0.0
    if names:
        net.metadata["class_names"] = json.dumps(names)
    net.save(path)
    return path


def test_confusion_matrix_counts() -> None:
    net = identity_net(2, "m", ("no", "yes"))
    X = np.eye(2)[[0, 0, 0, 1, 1, 0, 1]]
    y = np.array(["no", "no", "no", "no", "yes", "yes", "yes"])
    stdout = run("evaluate", net, write_npz(Path("d.npz"), X=X, y=y)).stdout
    cells = [line.split() for line in stdout.splitlines()]
    assert ["no", "yes", "correct"] in cells
    assert ["no", "3", "1", "75.0", "%"] in cells
    assert ["yes", "1", "2", "66.7", "%"] in cells


@pytest.mark.parametrize("n", [20, 21])
def test_confusion_matrix_is_whole_or_not_there(n: int) -> None:
    names = tuple(f"class-{k}" for k in range(n))
    net = identity_net(n, "m", names)
    stdout = run("evaluate", net, write_npz(Path("d.npz"), X=np.eye(n), y=np.array(names))).stdout
    assert "…" not in stdout
    assert all((name in stdout) == (n == 20) for name in names)


def test_evaluate_model_without_class_names() -> None:
    net = identity_net(3, "m")
    X = np.eye(3)
    for y in ([0, 1, 2], [1, 5, 7], ["a", "b", "c"]):
        assert "100.00 %" in run("evaluate", net, write_npz(Path("d.npz"), X=X, y=y)).stdout
    some = write_npz(Path("d.npz"), X=X[[1, 2]], y=[1, 2])
    assert "100.00 %" in run("evaluate", net, some).stdout
    unknown = write_npz(Path("d.npz"), X=X[[1, 2]], y=[1, 5])
    assert error_of("evaluate", net, unknown) == "class '5' is unknown; the classes are 0, 1, 2"


def test_predict_class_names(insects: Path, model: Path) -> None:
    result = run("predict", model, insects, "--output", "out.csv")
    assert result.stdout == "wrote 60 predictions to out.csv\n"
    assert read_csv(Path("out.csv")) == [["prediction"], *([row[2]] for row in insect_rows()[1:])]


def test_predict_labels(insects: Path, model: Path) -> None:
    run("predict", model, insects, "--output", "out.npy")
    names = sorted(INSECTS)
    labels = np.load("out.npy")
    assert labels.dtype == np.int64
    assert labels.tolist() == [names.index(row[2]) for row in insect_rows()[1:]]


def test_predict_probabilities(insects: Path, model: Path) -> None:
    run("predict", model, insects, "--output", "out.npy", "--proba")
    run("predict", model, insects, "--output", "out.csv", "--proba")
    probabilities = np.load("out.npy")
    header, *rows = read_csv(Path("out.csv"))
    assert header == sorted(INSECTS)
    assert np.array_equal(np.array(rows, dtype=np.float32), probabilities)
    assert np.allclose(probabilities.sum(axis=1), 1.0, atol=1e-6)


def test_predict_finds_its_columns(model: Path, tmp_path: Path) -> None:
    shuffled = [[row[1], "7", row[0]] for row in insect_rows()[1:]]
    data = write_csv(tmp_path / "new.csv", [["width", "age", "length"], *shuffled])
    run("predict", model, data, "--output", "out.csv")
    assert read_csv(Path("out.csv"))[1:] == [[row[2]] for row in insect_rows()[1:]]


def test_predict_numbers(line: Path) -> None:
    run("train", line, "--target", "y", *SMALL, "--quiet")
    run("predict", "line.safetensors", line, "--output", "out.csv")
    run("predict", "line.safetensors", line, "--output", "out.npy")
    header, *rows = read_csv(Path("out.csv"))
    assert header == ["prediction"]
    assert np.array_equal(np.array(rows, dtype=np.float32), np.load("out.npy"))
    assert "classifier" in error_of(
        "predict", "line.safetensors", line, "--output", "p.csv", "--proba"
    )
    assert not Path("p.csv").exists()


def test_predict_several_numbers() -> None:
    fm.MLP([2, 2], loss="squared_error").save("m")
    np.save("d.npy", np.eye(2))
    run("predict", "m", "d.npy", "--output", "out.csv")
    assert read_csv(Path("out.csv"))[0] == ["prediction_0", "prediction_1"]


@pytest.mark.parametrize("parts", [["X"], ["X_train", "X_test"], ["X", "y"]])
def test_predict_arrays(parts: list[str]) -> None:
    net = identity_net(2, "m")
    arrays = {name: np.eye(2) if name in ("X", "X_test") else np.zeros((5, 2)) for name in parts}
    run("predict", net, write_npz(Path("d.npz"), **arrays), "--output", "out.csv")
    assert read_csv(Path("out.csv")) == [["prediction"], ["0"], ["1"]]


@pytest.mark.jit
def test_predict_bundled_digits() -> None:
    fm.MLP([784, 3]).save("m")
    run("predict", "m", "mnist157", "--output", "out.npy")
    assert np.load("out.npy").shape == (3055,)


# Checking and informing


def test_gradcheck() -> None:
    for options in (
        ["--layers", "3,4,2"],
        ["--layers", "3,4,2", "--activation", "tanh", "--loss", "squared_error", "--batch", "4"],
    ):
        stdout = run("gradcheck", *options, "--seed", "3").stdout
        assert "passed" in stdout
        assert "layers.1.bias" in stdout


def test_gradcheck_of_a_model(model: Path) -> None:
    assert "layers.0.weight" in run("gradcheck", model).stdout
    message = error_of("gradcheck", model, "--layers", "3,2")
    assert message == "--layers, --activation and --loss are for a new network, not for MODEL"


def test_gradcheck_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fm, "gradient_check", partial(fm.gradient_check, tolerance=1e-300))
    assert "FAILED" in run("gradcheck", "--layers", "3,4,2", exit_code=1).stdout


def test_info() -> None:
    stdout = run("info").stdout
    facts = dict(re.split(r" {2,}", line.rstrip(), maxsplit=1) for line in stdout.splitlines())
    assert facts["fastmlp"] == fm.__version__
    assert facts["numpy"] == np.__version__
    assert facts["threads"] == str(fm.threads.resolve(None))
    assert {name.replace("_", " ") for name in fm.kernels.info()} <= facts.keys()


def test_warmup() -> None:
    assert re.fullmatch(
        r"(float\d\d kernels are ready after \d+\.\d\d s\n){2}",
        run("warmup", "--dtype", "all").stdout,
    )
    assert "float32 kernels are ready" in run("warmup").stdout
    assert "float16" in error_of("warmup", "--dtype", "float16")


@pytest.mark.parametrize(
    "command", ["train", "evaluate", "predict", "gradcheck", "info", "warmup", None]
)
def test_help(command: str | None) -> None:
    assert "Usage: " in run(*([command] if command else []), "--help").stdout


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--optimizer", "adamax"],
            "optimizer must be one of sgd, momentum, gradient_descent, adag",
        ),
        (["--learning-rate", "-1"], "learning_rate must be"),
        (["--batch-size", "many"], "--batch-size must be an integer or full, got 'many'"),
        (["--batch-size", "-2"], "batch_size must be"),
        (["--hidden", "8,x"], "--hidden must be integers such as 128,64, got '8,x'"),
        (["--hidden", "0"], "hidden[0] must be"),
        (["--activation", "swoosh"], "activation must be one of"),
        (["--loss", "hinge"], "loss must be one of"),
        (["--dtype", "float16"], "dtype must be one of"),
        (["--epochs", "0"], "epochs must be"),
        (["--validation", "1.5"], "validation must be"),
        (["--threads", "0"], "threads must be"),
        (["--seed", "-1"], "seed must be"),
        (["--save", "."], "cannot write to .: it is a folder"),
        (["--save", "no/m"], "cannot write to no/m: there is no folder no"),
        (["--plot", "no/p.png"], "cannot write to no/p.png: there is no folder no"),
        (["--plot", "p.txt"], "an image must end in .eps, "),
        (["--save", "insects.csv"], "cannot write to insects.csv: it would replace an input"),
        (["--loss", "squared_error"], "insects.csv, row 2, column 'insect': 'ant' is not a fini"),
        (["--target", "kind"], "has no column 'kind'; its columns: length, width, insect"),
    ],
)
def test_bad_options(insects: Path, options: list[str], message: str) -> None:
    if "--plot" in options:
        pytest.importorskip("matplotlib", reason="needs the extra plot")
    before = sorted(Path().iterdir())
    content = insects.read_bytes()
    # The option that comes last counts.
    args = ["train", "insects.csv", "--target", "insect", "--quiet", *options]
    assert message in error_of(*args)
    assert sorted(Path().iterdir()) == before
    assert insects.read_bytes() == content


@pytest.mark.parametrize(
    "options",
    [
        ["--epochs", "0"],
        ["--batch-size", "-2"],
        ["--threads", "0"],
        ["--validation", "1"],
        ["--hidden", "-1"],
        ["--initializer", "he"],
        ["--dtype", "float16"],
        ["--dropout", "1"],
        ["--l2", "nan"],
        ["--set", "average=2"],
        ["--set", "early_stopping.patience=0"],
        ["--set", "l1=[0.1]"],
    ],
)
def test_options_are_looked_at_before_the_data(options: list[str]) -> None:
    """There is no such file, and nobody got so far as to see it."""
    name = options[-1].split("=")[0].split(".")[-1] if options[0] == "--set" else options[0][2:]
    assert name.replace("-", "_") in error_of("train", "nothing.csv", *options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "d.csv is empty: it must start with a row of column names"),
        ("\n\n", "d.csv is empty: it must start with a row of column names"),
        ("x,y\n", "d.csv has a header, but no rows"),
        ("y\n1\n", "d.csv has a header, but no features"),
        ("x,x,y\n1,2,3\n", "d.csv has 2 columns 'x'"),
        ("x,y\n1,a\n2\n", "d.csv, row 3 has 1 cells, but the header has 2"),
        ("x,y\n1,a\n\n2,a,7\n", "d.csv, row 4 has 3 cells, but the header has 2"),
        ("x,y\n1,a\nfoo,a\n", "d.csv, row 3, column 'x': 'foo' is not a finite number"),
        ("x,y\n1,a\n,a\n", "d.csv, row 3, column 'x': '' is not a finite number"),
        ("x,y\nnan,a\n", "d.csv, row 2, column 'x': 'nan' is not a finite number"),
        ("x,y\n1e999,a\n", "d.csv, row 2, column 'x': '1e999' is not a finite number"),
        ("x,y\n1,a\n2, \n", "d.csv, row 3, column 'y' is empty"),
        ("x,y\n1,a\n2,a\n", "the target is 'a' in all samples, there is nothing to learn"),
        ("x,y\n1,1.5\n", "1 samples are too few to hold out a part for testing"),
        ("x,z\n1,1.5\n", "d.csv has no column 'y'; its columns: x, z"),
        (
            "x,y\n" + "".join(f"{i},{i}\n" for i in range(50)),
            "the target has 50 distinct values in 50 samples, too many for classes; "
            "if it is a number to predict, give --loss squared_error",
        ),
    ],
)
def test_bad_csv(text: str, message: str) -> None:
    Path("d.csv").write_text(text)
    assert error_of("train", "d.csv", "--target", "y") == message
    assert sorted(Path().iterdir()) == [Path("d.csv")]


def test_csv_from_a_spreadsheet_program() -> None:
    lines = ["x , y", *(f"{i},{'ab'[i % 2]} " for i in range(20))]
    Path("d.csv").write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    assert "2 classes: a, b" in run("train", "d.csv", "--target", "y", *SMALL).stdout


def test_csv_in_another_encoding() -> None:
    Path("d.csv").write_bytes("größe,y\n1,a\n".encode("latin-1"))
    assert error_of("train", "d.csv", "--target", "y").startswith(
        "d.csv is not a CSV file in UTF-8"
    )


def test_csv_needs_a_target(insects: Path) -> None:
    message = error_of("train", "insects.csv")
    assert message == (
        "target must name the column to predict; the columns of insects.csv: length, width, insect"
    )


X8, Y8 = np.zeros((8, 2)), np.arange(8) % 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "d.npz must hold the arrays X_train and y_train, or X and y; it holds: nothing"),
        ({"x": X8}, "must hold the arrays X_train and y_train, or X and y; it holds: x"),
        ({"X": X8}, "d.npz has an array X, but no y"),
        ({"X": X8, "y": Y8[:7]}, "equally many rows, got the shapes (8, 2) and (7,)"),
        ({"X": X8, "y": np.array(1)}, "equally many rows, got the shapes (8, 2) and ()"),
        ({"X": X8[0], "y": Y8}, "X must hold numbers in the shape (n, features), got float64 in"),
        ({"X": X8[:0], "y": Y8[:0]}, "X must hold numbers in the shape (n, features), got float6"),
        ({"X": X8.astype(str), "y": Y8}, "X must hold numbers in the shape (n, features), got <U"),
        ({"X": X8.astype(complex), "y": Y8}, "X must hold numbers in the shape (n, features), go"),
        ({"X": X8, "y": X8.astype(int)}, "y must hold integers or text in the shape (n,)"),
        ({"X": X8, "y": np.zeros((8, 2, 2))}, "y must hold numbers in the shape (n,) or (n, ou"),
        ({"X": X8 * np.nan, "y": Y8}, "X must be finite"),
        ({"X": X8, "y": Y8 * np.nan}, "y must be finite"),
        ({"X_train": X8, "y_train": Y8, "X_test": X8}, "d.npz has an array X_test, but no y_test"),
        (
            {"X_train": X8, "y_train": Y8, "X_test": X8[:, :1], "y_test": Y8},
            "X_test must be as wide as the X to train on, got the shapes (8, 1) and (8, 2)",
        ),
        (
            {"X_train": X8, "y_train": Y8, "X_test": X8, "y_test": Y8 + 1},
            "class '2' is unknown; the classes are 0, 1",
        ),
        ({"X": X8, "y": np.array([{}] * 8, dtype=object)}, "d.npz cannot be read as a NumPy fi"),
    ],
)
def test_bad_npz(arrays: dict[str, Any], message: str) -> None:
    write_npz(Path("d.npz"), **arrays)
    assert message in error_of("train", "d.npz", *SMALL, "--quiet")
    assert sorted(Path().iterdir()) == [Path("d.npz")]


def test_float_labels_are_classes_if_the_loss_says_so() -> None:
    X, y = digits()
    write_npz(Path("d.npz"), X=X, y=y.astype(float))
    stdout = run("train", "d.npz", *SMALL, "--loss", "softmax_cross_entropy").stdout
    assert "2 classes: 10, 20" in stdout
    write_npz(Path("d.npz"), X=X, y=y + 0.5)
    message = error_of("train", "d.npz", *SMALL, "--loss", "softmax_cross_entropy")
    assert "y must hold integers or text in the shape (n,) to name classes, got float64" in message


def test_damaged_numpy_files() -> None:
    X, y = digits()
    whole = write_npz(Path("whole.npz"), X=X, y=y).read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 3] ^= 0xFF
    net = identity_net(2, "m")
    for content in (b"", b"hello", whole[:50], whole[: len(whole) // 2], bytes(damaged)):
        for name in ("d.npz", "d.npy"):
            Path(name).write_bytes(content)
            message = error_of("predict", net, name, "--output", "out.csv")
            assert message.startswith(f"{name} cannot be read as a NumPy file: ")
    with zipfile.ZipFile("d.npz", "w") as file:
        file.writestr("X.npy", b"no array")
    assert "cannot be read as a NumPy file" in error_of("train", "d.npz")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "nothing"], "there is no nothing: give mnist157, mnist, a folder, or an .npz, "),
        (["train", "nothing.csv"], "there is no nothing.csv: give mnist157"),
        (["train", "notes.txt"], "cannot tell what notes.txt holds: its name must end in .npz, "),
        (["train", "d.npy"], "d.npy holds no targets: target must be the .npy file with them"),
        (["train", "d.npy", "--target", "y.npy"], "y.npy: No such file or directory"),
        (["train", "mnist157", "--target", "y"], "target names a column of a table, and mnist157"),
        (["train", "empty"], "train-images-idx3-ubyte"),
        (["train", "mnist157", "--loss", "squared_error"], "mnist157 holds classes: the loss must"),
        (["evaluate", "nothing", "mnist157"], "nothing: No such file or directory"),
        (
            ["evaluate", "notes.txt", "mnist157"],
            "'notes.txt' as a network: it is no safetensors file",
        ),
        (["evaluate", "m", "mnist157"], "class '5' is unknown; the classes are 0, 1"),
        (["predict", "m", "mnist157", "--output", "o.csv"], "X must have shape (n, 2) to match"),
        (
            ["predict", "m", "d.npy", "--output", "o.txt"],
            "--output must end in .csv, .jsonl or .npy",
        ),
        (["predict", "m", "d.npy", "--output", "no/o.csv"], "there is no folder no"),
        (["predict", "m", "d.npy", "--output", "d.npy"], "it would replace an input"),
        (["gradcheck", "--layers", "3;2"], "--layers must be integers such as 128,64, got '3;2'"),
        (["gradcheck", "--layers", "3"], "layer_sizes must"),
        (["gradcheck", "--seed", "-1"], "'--seed'"),
    ],
)
def test_bad_arguments(args: list[str], message: str) -> None:
    identity_net(2, "m")
    np.save("d.npy", np.eye(2))
    Path("notes.txt").write_text("hello")
    Path("empty").mkdir()
    before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    assert message in error_of(*args)
    assert {path: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before


@pytest.mark.parametrize("names", ['["a"]', "7"])
def test_model_with_wrong_class_names(names: str) -> None:
    net = fm.MLP([2, 2])
    net.metadata["class_names"] = names
    net.save("m")
    np.save("d.npy", np.eye(2))
    assert "class" in error_of("predict", "m", "d.npy", "--output", "o.csv")
    assert not Path("o.csv").exists()


def test_failed_write_leaves_the_output_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(*args: object) -> None:
        raise OSError(28, "No space left on device")

    net = identity_net(2, "m")
    np.save("d.npy", np.eye(2))
    Path("out.csv").write_text("precious")
    before = sorted(Path().iterdir())
    monkeypatch.setattr(os, "replace", replace)
    message = error_of("predict", net, "d.npy", "--output", "out.csv")
    assert message == "out.csv: No space left on device"
    assert Path("out.csv").read_text() == "precious"
    assert sorted(Path().iterdir()) == before


def test_programming_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise KeyError("bug")

    monkeypatch.setattr(fm.kernels, "info", fail)
    with pytest.raises(KeyError):
        run("info")


def test_ctrl_c_outside_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fm.kernels, "info", stop)
    run("info", exit_code=130)


@pytest.mark.parametrize("module", ["typer", "rich"])
def test_without_the_extra(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("fastmlp._cli")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit) as error:
        cli.main()
    assert error.value.code == 2
    message = 'error: the fastmlp command needs typer and rich: pip install "fastmlp[cli]"\n'
    assert capsys.readouterr().err == message


def test_entry_point() -> None:
    command = [sys.executable, "-m", "fastmlp.cli", "evaluate", "nothing", "nothing"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == "error: nothing: No such file or directory\n"


# Preparing data


@pytest.mark.parametrize(
    ("share", "seed", "error", "message"),
    [
        (1.0, 0, ValueError, r"share must be in \(0, 1\), got 1.0"),
        (float("nan"), 0, ValueError, r"share must be in \(0, 1\), got nan"),
        (0.2, -1, ValueError, "seed must be at least 0"),
        (0.2, None, TypeError, "seed must be a whole number, got None"),
    ],
)
def test_parts_that_cannot_be(
    share: float, seed: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fm.datasets.Samples(np.eye(4), np.arange(4)).hold_out(share, seed)


def test_hold_out_keeps_proportions_and_order() -> None:
    y = np.array(["a"] * 50 + ["b"] * 10 + ["c"])
    samples = Samples(np.arange(61)[:, np.newaxis], y)
    kept, held = samples.hold_out(0.2, seed=1)
    assert (np.unique_counts(held.y).counts.tolist(), len(kept)) == ([10, 2], 49)
    assert sorted([*kept.X[:, 0], *held.X[:, 0]]) == list(range(61))
    assert (np.diff(kept.X[:, 0]) > 0).all()
    assert (y[held.X[:, 0]] == held.y).all()
    again, other = (samples.hold_out(0.2, seed)[1].X for seed in (1, 2))
    assert np.array_equal(held.X, again)
    assert not np.array_equal(held.X, other)


def test_encode() -> None:
    labels = Samples(np.eye(3), np.array(["b", "a", "b"])).encode(["a", "c", "b"])
    assert labels.tolist() == [2, 0, 2]
    assert labels.dtype == np.int64
