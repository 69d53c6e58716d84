"""The command line for machines and for shells (JSON, pipes, completion), and small commands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import INSECTS, SMALL, error_of, insect_rows, read_csv, run, write_csv
from typer.main import get_command

import fastmlp as fm
from fastmlp._cli import app, arguments, bench
from fastmlp._cli.logs import read_log
from fastmlp.datasets import _mnist
from fastmlp.datasets._read import LOADERS


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def insects(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "insects.csv", insect_rows())


@pytest.fixture
def model(insects: Path) -> str:
    """Return a model that has learnt the insects."""
    options = ("--hidden", "6", "--epochs", "30", "--batch-size", "4", "--learning-rate", "0.02")
    run("train", insects, "--target", "insect", *options, "--save", "m.safetensors", "--quiet")
    return "m.safetensors"


def image_model() -> str:
    fm.MLP([9, 3, 2]).save("images.safetensors")
    return "images.safetensors"


# JSON


def test_train_json(insects: Path) -> None:
    result = run("train", insects, "--target", "insect", *SMALL, "--log", "h.csv", "--json")
    facts = result.json
    assert "epoch 2/2" in result.stderr
    assert facts["data"] == "insects"
    assert (facts["training_samples"], facts["test"]["samples"], facts["features"]) == (48, 12, 2)
    assert facts["classes"] == sorted(INSECTS)
    assert facts["layer_sizes"] == [2, 6, 3]
    assert (facts["epochs"], facts["interrupted"], facts["best_epoch"]) == (2, False, None)
    assert [len(values) for values in facts["history"].values()] == [2, 2, 2, 2, 2]
    assert (facts["model"], facts["log"], facts["plot"]) == ("insects.safetensors", "h.csv", None)
    net = fm.MLP.load("insects.safetensors")
    assert facts["parameters"] == net.n_parameters
    quiet = run("train", insects, "--target", "insect", *SMALL, "--json", "--quiet")
    assert quiet.stderr == ""
    assert quiet.json["history"] == facts["history"]


def test_evaluate_json(insects: Path, model: str) -> None:
    facts = run("evaluate", model, insects, "--json").json
    assert facts["accuracy"] == 1.0
    assert facts["classes"] == sorted(INSECTS)
    assert facts["confusion_matrix"] == np.diag([20, 20, 20]).tolist()
    fm.MLP([2, 1], loss="squared_error").save("r")
    np.savez("d.npz", X=np.eye(2), y=[0.5, 1.0])
    assert run("evaluate", "r", "d.npz", "--json").json.keys() == {"samples", "loss"}


def test_numbers_that_json_does_not_have() -> None:
    fm.MLP([2, 1], loss="squared_error", initializer=np.full((2, 1), 1e30), dtype="float64").save(
        "r"
    )
    np.savez("d.npz", X=np.full((2, 2), 1e200), y=[0.5, 1.0])
    assert run("evaluate", "r", "d.npz", "--json").json["loss"] is None


def test_gradcheck_json(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = run("gradcheck", "--layers", "3,4,2", "--json").json
    assert facts["ok"]
    assert facts["relative_error"] < facts["tolerance"]
    assert [tensor["name"] for tensor in facts["tensors"]] == [
        *("layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias")
    ]
    check = fm.gradient_check
    monkeypatch.setattr(fm, "gradient_check", lambda *a: check(*a, tolerance=1e-300))
    assert not run("gradcheck", "--layers", "3,4,2", "--json", exit_code=1).json["ok"]


def test_facts_of_the_machine_json() -> None:
    facts = run("info", "--json").json
    assert facts["fastmlp"] == fm.__version__
    assert facts["vector_bytes"] == fm.kernels.info()["vector_bytes"]
    seconds = run("warmup", "--dtype", "all", "--json").json["seconds"]
    assert seconds.keys() == {"float32", "float64"}


def test_errors_leave_standard_output_empty(insects: Path) -> None:
    assert "did you mean" in error_of("train", insects, "--set", "epoch=3", "--json")


# Pipes


def test_predict_in_a_pipe(insects: Path, model: str) -> None:
    result = run("predict", model, "-", stdin=insects.read_bytes())
    assert result.stdout.splitlines() == ["prediction", *(row[2] for row in insect_rows()[1:])]
    assert result.stderr == ""
    rows = [dict(zip(("width", "length"), (row[1], row[0]), strict=True)) for row in insect_rows()]
    lines = "".join(json.dumps(row) + "\n" for row in rows[1:])
    assert run("predict", model, "-", stdin=lines.encode()).stdout == result.stdout


def test_predict_json_lines(insects: Path, model: str) -> None:
    run("predict", model, insects, "--output", "out.jsonl")
    run("predict", model, insects, "--output", "proba.jsonl", "--proba")
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert rows == [{"prediction": row[2]} for row in insect_rows()[1:]]
    first = json.loads(Path("proba.jsonl").read_text().splitlines()[0])
    assert list(first) == sorted(INSECTS)
    X = fm.datasets.read_features(insects, ["length", "width"])
    expected = fm.MLP.load(model).predict_proba(X)[0]
    assert np.array_equal(np.array(list(first.values()), np.float32), expected)
    stdout = run("predict", model, insects, "--format", "jsonl").stdout
    assert stdout == Path("out.jsonl").read_text()


def test_predict_json(insects: Path, model: str) -> None:
    facts = run("predict", model, insects, "--json").json
    assert facts["samples"] == len(facts["predictions"]) == 60
    assert facts["predictions"][0] == {"prediction": insect_rows()[1][2]}
    facts = run("predict", model, insects, "--output", "out.csv", "--json").json
    assert facts == {"samples": 60, "output": "out.csv"}
    assert len(read_csv(Path("out.csv"))) == 61


def test_predict_npy_to_standard_output(insects: Path, model: str) -> None:
    run("predict", model, insects, "--output", "out.npy")
    raw = run("predict", model, insects, "--format", "npy").raw
    assert raw == Path("out.npy").read_bytes()
    message = error_of("predict", model, insects, "--format", "xml")
    assert message == "--format must be one of csv, jsonl, npy, got 'xml'"


def test_train_and_evaluate_in_a_pipe(insects: Path) -> None:
    content = insects.read_bytes()
    run("train", "-", "--target", "insect", *SMALL, "--quiet", stdin=content)
    assert "on 60 samples" in run("evaluate", "stdin.safetensors", "-", stdin=content).stdout
    message = error_of("evaluate", "stdin.safetensors", "-", stdin=b"a,insect\n1,ant\n")
    assert message == "standard input has no column 'length'; its columns: a, insect"


@pytest.mark.jit
@pytest.mark.skipif(os.name == "nt", reason="needs a shell of Unix")
def test_closed_pipe() -> None:
    """Who has seen enough, such as head, gets no traceback."""
    net = fm.MLP([1, 2])
    net.save("m.safetensors")
    np.save("X.npy", np.zeros((100_000, 1)))
    command = f"{sys.executable} -m fastmlp.cli predict m.safetensors X.npy | head -n 1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert result.stdout == "prediction\n"
    assert "Traceback" not in result.stderr


# Failures


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(FileNotFoundError):
        get_command(app)(["--debug", "evaluate", "nothing", "mnist157"])


def test_divergence_has_its_own_exit_code(insects: Path) -> None:
    options = ("--learning-rate", "1e30", "--optimizer", "sgd", "--loss", "softmax_cross_entropy")
    message = error_of("train", insects, "--target", "insect", *options, "--quiet", exit_code=1)
    assert message.startswith("training diverged in epoch 1")
    assert not Path("insects.safetensors").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "--frob"], "No such option: --frob"),
        (["train", "--epochs", "x"], "--epochs"),
        (["evaluate", "m"], "Missing argument 'DATA'"),
        (["frobnicate"], "No such command 'frobnicate'"),
        (["datasets", "frobnicate"], "No such command 'frobnicate'"),
    ],
)
def test_usage_errors_take_one_line(args: list[str], message: str) -> None:
    text = error_of(*args)
    assert message in text
    assert text.endswith("--help')")


def test_version() -> None:
    assert run("--version").stdout == f"fastmlp {fm.__version__}\n"


def test_exit_codes_are_in_the_help() -> None:
    text = " ".join(run("--help").stdout.split())
    for code in ("0 done", "1 a check failed", "2 wrong options", "130 interrupted"):
        assert code in text


# Export, pictures, logs


def test_export_npz(model: str) -> None:
    assert run("export", model, "w.npz").stdout == "wrote w.npz\n"
    net = fm.MLP.load(model)
    with np.load("w.npz") as arrays:
        assert sorted(arrays) == sorted(tensor.name for tensor in net.layout.tensors)
        assert np.array_equal(arrays["layers.1.weight"], net.weights[1])
    fm.MLP([2, 3, 2], norm="batch").save("b")
    assert run("export", "b", "b.npz", "--json").json == {"model": "b", "output": "b.npz"}
    with np.load("b.npz") as arrays:
        assert arrays["layers.0.running_variance"].tolist() == [1, 1, 1]


def test_export_onnx(insects: Path, model: str) -> None:
    pytest.importorskip("onnx", reason="needs the extra onnx")
    runtime = pytest.importorskip("onnxruntime")
    assert run("export", model, "m.onnx", "--json").json == {"model": model, "output": "m.onnx"}
    X = fm.datasets.read_features(insects, ["length", "width"]).astype(np.float32)
    session = runtime.InferenceSession("m.onnx", providers=["CPUExecutionProvider"])
    labels, probabilities = session.run(["label", "probabilities"], {"X": X})
    net = fm.MLP.load(model)
    assert np.array_equal(labels, net.predict(X))
    assert np.allclose(probabilities, net.predict_proba(X), rtol=0, atol=1e-6)


def test_export_without_onnx(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert 'pip install "fastmlp[onnx]"' in error_of("export", model, "m.onnx")
    assert not Path("m.onnx").exists()


def test_summary(model: str) -> None:
    net = fm.MLP.load(model)
    stdout = run("summary", model).stdout
    assert stdout.startswith(str(net.summary()))
    assert f"classes: {', '.join(sorted(INSECTS))}\ntarget: insect\n" in stdout
    assert stdout.endswith("features: length, width\n")
    facts = run("summary", model, "--json").json
    assert facts["parameters"] == sum(layer["parameters"] for layer in facts["layers"]) == 39
    assert [layer["activation"] for layer in facts["layers"]] == ["softplus", "identity"]
    assert [layer["multiply_adds"] for layer in facts["layers"]] == [12, 18]
    assert (facts["classes"], facts["columns"]) == (sorted(INSECTS), ["length", "width"])
    assert facts["input_scale"] is False
    fm.MLP([2, 4, 4, 1], loss="huber", norm=["batch", None], input_scale=True).save("r")
    facts = run("summary", "r", "--json").json
    assert facts["parameters"] == sum(layer["parameters"] for layer in facts["layers"])
    assert facts["input_scale"] is True
    assert [layer["norm"] for layer in facts["layers"]] == ["batch", None, None]
    assert facts["classes"] is None


def test_export_refuses_other_endings(model: str) -> None:
    assert "OUTPUT must end in .onnx or .npz, got w.h5" in error_of("export", model, "w.h5")
    assert "it would replace an input" in error_of("export", "w.npz", copy_of(model, "w.npz"))


def copy_of(path: str, name: str) -> str:
    Path(name).write_bytes(Path(path).read_bytes())
    return name


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_log(insects: Path, ending: str) -> None:
    log = Path(f"h.{ending}")
    facts = run("train", insects, "--target", "insect", *SMALL, "--log", log, "--json").json
    history = read_log(log)
    for name, values in facts["history"].items():
        assert getattr(history, name) == values


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("h.txt", "", "a log's name must end in .csv or .jsonl, got h.txt"),
        ("h.csv", "", "h.csv is not a log of a training: it has no loss"),
        ("h.csv", "loss\nx\n", "h.csv is not a log of a training: ValueError"),
        ("h.jsonl", "[1]\n", "h.jsonl is not a log of a training: AttributeError"),
        ("h.jsonl", '{"loss": 1}\n{}\n', "h.jsonl is not a log of a training: KeyError"),
    ],
)
def test_bad_logs(name: str, text: str, message: str) -> None:
    Path(name).write_text(text)
    assert message in error_of("plot", "history", name, "--output", "p.png")


def test_columns_of_other_logs_are_left_alone() -> None:
    Path("h.csv").write_text("epoch,loss,seconds,accuracy\n1,0.5,0.1,\n2,0.25,0.1,\n")
    assert read_log(Path("h.csv")) == fm.History(loss=[0.5, 0.25])


def test_plots(insects: Path, model: str) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    Path("h.csv").write_text("epoch,loss\n1,1.0\n2,0.5\n")
    images = image_model()
    for kind, *args in (
        ["history", "h.csv"],
        ["confusion", model, insects],
        ["gradient-flow", model, insects],
        ["first-layer", images],
        ["first-layer", model, "--shape", "1,2"],
    ):
        result = run("plot", kind, *args, "--output", "p.png")
        assert result.stdout.endswith("plotted p.png\n")
        assert Path("p.png").read_bytes().startswith(b"\x89PNG")
        Path("p.png").unlink()
        facts = run("plot", kind, *args, "--output", "p.svg", "--json").json
        assert facts["plot"] == "p.svg"
        assert (facts.get("warnings") == []) == (kind == "gradient-flow")


def test_plots_that_cannot_be(insects: Path, model: str) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    fm.MLP([2, 1], loss="squared_error").save("r")
    output = ("--output", "p.png")
    message = error_of("plot", "confusion", "r", insects, *output)
    assert message == "confusion needs a classifier, r has the loss squared_error"
    message = error_of("plot", "first-layer", model, *output)
    assert message == "give the --shape of the images, 2 inputs are no square"
    assert "--shape must be like 28,28, got '2'" in error_of(
        *("plot", "first-layer", model, "--shape", "2", *output)
    )
    assert "no folder no" in error_of("plot", "first-layer", model, "--output", "no/p.png")
    assert not Path("p.png").exists()


# Data sets


def small_mnist(n: int = 20) -> fm.datasets.Dataset:
    rng = np.random.default_rng(0)
    X = rng.random((n, 784), np.float32)
    y = np.arange(n) % 10
    return fm.datasets.Dataset(X, y, X[:10], y[:10], tuple("0123456789"), "mnist")


def test_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("datasets", "list", "--json").json == {"datasets": list(LOADERS)}
    assert list(arguments.DATASETS) == list(LOADERS)
    assert "18,428" in run("datasets", "list").stdout
    facts = run("datasets", "info", "mnist157", "--json").json
    data = fm.datasets.load_mnist157()
    assert facts["training_samples"] == len(data.X_train)
    assert facts["test_samples"] == len(data.X_test)
    assert facts["classes"] == list(data.class_names)
    assert Path(facts["path"]).is_file()
    assert facts["downloaded"]
    assert "CC BY-SA" in run("datasets", "info", "mnist157").stdout
    assert run("datasets", "download", "mnist157").stdout == f"{facts['path']}\n"
    assert "NAME must be one of mnist157, mnist, got 'cifar'" in error_of(
        "datasets", "info", "cifar"
    )


def test_mnist_is_downloaded_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setitem(LOADERS, "mnist", lambda: asked.append(1) or small_mnist())
    monkeypatch.setattr(_mnist, "mnist_folder", lambda: tmp_path / "cache")
    (tmp_path / "cache").mkdir()  # as an attempt without a network leaves it
    facts = run("datasets", "info", "mnist", "--json").json
    assert (facts["path"], facts["downloaded"]) == (str(tmp_path / "cache"), False)
    assert not asked
    facts = run("datasets", "download", "mnist", "--json").json
    assert facts == {"name": "mnist", "path": str(tmp_path / "cache")}
    run("train", "mnist", "--hidden", "4", "--epochs", "1", "--validation", "0", "--quiet")
    assert len(asked) == 2
    assert fm.MLP.load("mnist.safetensors").layer_sizes == (784, 4, 10)


def test_info_without_pooch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert run("datasets", "info", "mnist", "--json").json["path"] is None
    assert 'pip install "fastmlp[data]"' in error_of("datasets", "download", "mnist")


def test_exported_datasets_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data = small_mnist()
    monkeypatch.setitem(LOADERS, "mnist", lambda: data)
    assert run("datasets", "export", "mnist", "m.npz").stdout == "wrote m.npz\n"
    run("datasets", "export", "mnist", "m.csv", "--part", "test")
    source = fm.datasets.read("m.npz")
    assert source.test is not None
    assert np.array_equal(source.train.X, data.X_train)
    assert source.train.encode(data.class_names).tolist() == data.y_train.tolist()
    table = fm.datasets.read("m.csv", target="class")
    assert np.array_equal(table.train.X.astype(np.float32), data.X_test)
    assert table.train.y.tolist() == source.test.y.tolist()
    assert "OUTPUT must end in .npz or .csv" in error_of("datasets", "export", "mnist", "m.h5")
    assert "--part must be train or test, got 'all'" in error_of(
        *("datasets", "export", "mnist", "m.csv", "--part", "all")
    )


# Measuring


@pytest.mark.jit
def test_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_ROUND_SECONDS", 0.0)
    monkeypatch.setattr(bench, "_SAMPLES", 64)
    args = ("bench", "--layers", "20,8,4,3", "--batch-size", "16", "--threads", "1")
    facts = run(*args, "--rounds", "3", "--optimizer", "adam", "--json").json
    assert facts["layer_sizes"] == [20, 8, 4, 3]
    for kind, multiply_adds in (("training", 2 * 160 + 3 * 32 + 3 * 12), ("prediction", 204)):
        speed = facts[kind]["samples_per_second"]
        assert 0 < speed["lower_quartile"] <= speed["median"] <= speed["upper_quartile"]
        flops = 2e-9 * multiply_adds * speed["median"]
        assert facts[kind]["gflops"]["median"] == pytest.approx(flops)
    assert facts["training_times_numpy_products"]["median"] > 0
    text = run(*args, "--rounds", "3").stdout
    assert text.startswith("20-8-4-3, relu, batch 16, sgd, float32, threads 1; medians of 3 rounds")
    assert "times as fast as NumPy's products alone" in text
    run("bench", "--layers", "5,1", "--rounds", "3", "--dtype", "float64")
    assert "--optimizer must be one of sgd, mom" in error_of("bench", "--optimizer", "lbfgs")


def test_what_bench_compares_with() -> None:
    """The products are those of a training step: counted by hand, each output has its shape."""
    net = fm.MLP([5, 4, 3])
    calls: list[tuple[int, ...]] = []
    matmul = np.matmul

    def count(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
        calls.append((*a.shape, b.shape[1]))
        return matmul(a, b, out=out)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "matmul", count)
        bench._products(net, np.ones((4, 5), np.float32), 2)(1)
    step = [(2, 5, 4), (2, 4, 3), (4, 2, 3), (2, 3, 4), (5, 2, 4)]
    assert calls == step * 2
    cost = fm.complexity([5, 4, 3], 2)
    assert sum(map(np.prod, step)) == cost.forward + cost.backward


# Shells


def complete(*words: str) -> list[str]:
    """Return what the shell offers for the last word."""
    env = {
        **os.environ,
        "_FASTMLP_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["fastmlp", *words]),
        "COMP_CWORD": str(len(words)),
    }
    code = "import sys; sys.argv[0] = 'fastmlp'; from fastmlp.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    return result.stdout.split()


def test_completion_in_a_shell() -> None:
    assert complete("tr") == ["train"]
    assert complete("train", "--optimizer", "ada") == ["adagrad", "adam", "adamw"]


def test_what_files_complete_to(tmp_path: Path) -> None:
    for name in ("m.safetensors", "n.txt", ".hidden.safetensors"):
        Path(name).touch()
    for folder, file in (("models", "a.safetensors"), ("more", "b.safetensors")):
        Path(folder).mkdir()
        Path(folder, file).touch()
    models = arguments.complete_files([".safetensors"])
    assert models("m") == ["m.safetensors", "models/", "more/"]
    assert models("models") == ["models/", "models/a.safetensors"]
    assert models("models/") == ["models/a.safetensors"]
    assert models(f"{tmp_path}/m.") == [f"{tmp_path}/m.safetensors"]
    assert models(".h") == [".hidden.safetensors"]
    assert models("no/such") == []
    assert arguments.complete_data("m") == ["mnist157", "mnist", "models/", "more/"]


def test_help_imports_nothing_of_the_commands() -> None:
    """Neither ``--help`` nor a completion waits for what only some command needs."""
    code = (
        "import sys, fastmlp, fastmlp.schedules\n"
        "import rich.console, rich.markup, rich.measure, rich.table, typer.core\n"
        "before = set(sys.modules)\n"
        "from fastmlp._cli import app\n"
        "new = set(sys.modules) - before\n"
        "print(*sorted(name for name in new if not name.startswith('fastmlp._cli')))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []
