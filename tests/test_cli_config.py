"""The settings of a training: TOML files, options that override them, and what they stand for."""

import dataclasses
import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from commands import SMALL, error_of, insect_rows, run, write_csv

import fastmlp as fm
from fastmlp._cli import config

EVERYTHING = """
data = "insects.csv"
target = "insect"
hidden = [5, 4]
activation = ["tanh", { name = "elu", alpha = 0.5 }]
loss = { name = "softmax_cross_entropy", label_smoothing = 0.1, class_weight = [1, 2, 1] }
dropout = [0.1, 0.2, 0.0]
norm = [{ name = "batch", momentum = 0.2 }, "none"]
l2 = [0.01, 0.0, 0.0]
l1 = 0.001
input_scale = true
initializer = "he_uniform"
dtype = "float64"
seed = 3
batch_size = 8
epochs = 3
shuffle = false
validation = 0.2
accumulate = 2
clip_norm = 1.5
average = 0.9
learning_rate_factors = { bias = 0.5 }
checkpoint_every = 2
threads = 1
save = "all.safetensors"
log = "all.jsonl"

[optimizer]
name = "adamw"
beta2 = 0.95
weight_decay = 0.1

[optimizer.learning_rate]
name = "warm_up"
steps = 5
schedule = { name = "cosine", rate = 0.01, minimum = 0.001 }

[early_stopping]
monitor = "val_accuracy"
patience = 2
"""


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "insects.csv", insect_rows())


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what `fit` is called with; it trains nothing."""
    arguments: dict[str, Any] = {}

    def fit(net: fm.MLP, X: Any, y: Any, **options: Any) -> fm.History:
        arguments.update(options, net=net)
        return fm.History(loss=[1.0], seconds=1.0)

    monkeypatch.setattr(fm, "fit", fit)
    return arguments


def with_config(text: str) -> tuple[str, str]:
    Path("c.toml").write_text(text)
    return "--config", "c.toml"


def train(*options: str) -> None:
    run("train", "insects.csv", "--target", "insect", "--quiet", *options)


def test_every_argument_is_a_setting() -> None:
    """Somebody who adds an argument to `MLP` or `fit` has to say what it is called in a file."""
    elsewhere = {
        "layer_sizes",
        "net",
        "X",
        "y",
        "batches",
        "sample_weight",
        "callbacks",
        "progress",
    }
    arguments = {*inspect.signature(fm.MLP).parameters, *inspect.signature(fm.fit).parameters}
    assert arguments - elsewhere <= config.SETTINGS.keys()


def test_every_optimizer_and_schedule_has_a_name() -> None:
    optimizers = {cls for cls in map(vars(fm).get, fm.__all__) if isinstance(cls, type)}
    optimizers = {cls for cls in optimizers if issubclass(cls, fm.Optimizer)} - {fm.Optimizer}
    assert optimizers == {v for v in config.OPTIMIZERS.values() if isinstance(v, type)}
    schedules = {getattr(fm.schedules, name) for name in fm.schedules.__all__}
    named = {s for s in schedules if isinstance(s, type)} - {fm.schedules.Schedule}
    assert named == set(config.SCHEDULES.values())


def test_printed_config_is_complete_and_means_the_same() -> None:
    text = run("train", "--print-config").stdout
    defaults = config.defaults()
    defaults["optimizer"] = {"name": "adam", **dataclasses.asdict(fm.Adam())}
    assert tomllib.loads(text) == {k: v for k, v in defaults.items() if v is not None}
    examples = tomllib.loads(re.sub(r"(?m)^# (\w+ = )", r"\1", text))
    assert examples.keys() == config.SETTINGS.keys()
    examples |= {"loss": None, "clip_norm": None, "clip_value": None, "early_stopping": None}
    config.network_arguments(examples)
    config.fit_arguments(examples)


def test_printed_config_repeats_the_training() -> None:
    options = ("--target", "insect", *SMALL, "--optimizer", "nadam", "--learning-rate", "0.03")
    options += ("--schedule", "cosine", "--norm", "layer", "--dropout", "0.1", "--quiet")
    run("train", "insects.csv", *options, "--save", "a")
    Path("c.toml").write_text(run("train", "insects.csv", *options, "--print-config").stdout)
    run("train", "--config", "c.toml", "--save", "b", "--quiet")
    assert Path("a").read_bytes() == Path("b").read_bytes()


@pytest.mark.parametrize("text", ['a"\\\n\t\x7f\x1b', "größe 🙂", ""])
def test_texts_survive(text: str) -> None:
    settings = config.defaults() | {"target": text, "data": {text: [text, True, 1e-7, -2]}}
    assert tomllib.loads(config.render(settings))["target"] == text
    assert tomllib.loads(config.render(settings))["data"] == {text: [text, True, 1e-7, -2]}


def test_all_settings(seen: dict[str, Any]) -> None:
    run("train", *with_config(EVERYTHING), "--quiet")
    net, callbacks = seen.pop("net"), seen.pop("callbacks")
    assert net.layer_sizes == (2, 5, 4, 3)
    assert net.activation == (fm.Activation("tanh"), fm.Activation("elu", alpha=0.5))
    weights = (1.0, 2.0, 1.0)
    assert net.loss == fm.Loss("softmax_cross_entropy", label_smoothing=0.1, class_weight=weights)
    assert net.dropout == (0.1, 0.2, 0.0)
    assert net.norm == (fm.BatchNorm(momentum=0.2), None)
    assert (net.l2, net.l1) == ((0.01, 0.0, 0.0), (0.001,) * 3)
    assert (net.dtype, net.seed, net.architecture.input_scale) == ("float64", 3, True)
    assert seen == {
        "optimizer": fm.AdamW(
            fm.schedules.WarmUp(fm.schedules.Cosine(0.01, 0.001), steps=5),
            beta2=0.95,
            weight_decay=0.1,
        ),
        "batch_size": 8,
        "epochs": 3,
        "shuffle": False,
        "validation": 0.2,
        "early_stopping": fm.EarlyStopping("val_accuracy", patience=2),
        "accumulate": 2,
        "clip_value": None,
        "clip_norm": 1.5,
        "clip_global_norm": None,
        "average": 0.9,
        "learning_rate_factors": {"bias": 0.5},
        "checkpoint_every": 2,
        "threads": 1,
        "seed": 3,
        "progress": False,
    }
    (log,) = callbacks
    assert isinstance(log, fm.JSONLinesLogger)


def test_all_settings_train() -> None:
    run("train", *with_config(EVERYTHING), "--quiet")
    assert fm.MLP.load("all.safetensors").layer_sizes == (2, 5, 4, 3)
    assert len(Path("all.jsonl").read_text().splitlines()) == 3


def test_options_have_precedence(seen: dict[str, Any]) -> None:
    options = ("--epochs", "7", "--hidden", "6", "--activation", "relu", "--norm", "none")
    options += ("--dropout", "0", "--l2", "0", "--set", "epochs=9", "--patience", "4")
    run("train", *with_config(EVERYTHING), *options, "--quiet")
    assert seen["epochs"] == 9
    assert seen["net"].layer_sizes == (2, 6, 3)
    assert seen["net"].norm == (None,)
    assert seen["early_stopping"] == fm.EarlyStopping("val_accuracy", patience=4)
    assert seen["optimizer"].beta2 == 0.95


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--optimizer", "adamw", "--learning-rate", "0.5"],
         fm.AdamW(fm.schedules.WarmUp(fm.schedules.Cosine(0.5, 0.001), 5), beta2=0.95,
                  weight_decay=0.1)),
        (["--schedule", "one_cycle"],
         fm.AdamW(fm.schedules.OneCycle(0.01), beta2=0.95, weight_decay=0.1)),
        (["--optimizer", "sgd"], fm.SGD()),
        (["--optimizer", "sgd", "--schedule", "one_cycle"], fm.SGD(fm.schedules.OneCycle(0.01))),
        (["--optimizer", "sgd", "--schedule", "cosine", "--learning-rate", "0.2"],
         fm.SGD(fm.schedules.Cosine(0.2))),
        (["--set", "optimizer=sgd", "--set", "optimizer.momentum=0.5"], fm.SGD(momentum=0.5)),
        (["--set", 'optimizer={name="sgd", nesterov=true, momentum=0.5}'],
         fm.SGD(momentum=0.5, nesterov=True)),
        (["--optimizer", "momentum", "--set", "optimizer.nesterov=true"],
         fm.SGD(momentum=0.9, nesterov=True)),
        (["--optimizer", "sgd", "--set", 'optimizer.learning_rate={name="step", rate=1, every=3}'],
         fm.SGD(fm.schedules.Step(1, 3))),
    ],
)  # fmt: skip
def test_optimizers(seen: dict[str, Any], options: list[str], expected: fm.Optimizer) -> None:
    run("train", *with_config(EVERYTHING), *options, "--quiet")
    assert seen["optimizer"] == expected


def test_rate_by_name(seen: dict[str, Any]) -> None:
    train("--optimizer", "gradient_descent", "--set", "optimizer.learning_rate=lipschitz")
    assert seen["optimizer"] == fm.GradientDescent("lipschitz")


def test_lbfgs_keeps_no_log(seen: dict[str, Any]) -> None:
    train("--optimizer", "lbfgs", "--epochs", "3", "--batch-size", "full")
    assert seen["optimizer"] == fm.LBFGS()
    for option in ("--log", "--checkpoint"):
        message = error_of(
            *("train", "insects.csv", "--target", "insect", "--optimizer", "lbfgs", option, "a.csv")
        )
        assert message == "log and checkpoint are of no use to lbfgs, which SciPy runs"


@pytest.mark.parametrize(
    ("text", "every"),
    [
        ("checkpoint = 'c'", (1, None, None)),
        ("checkpoint = {path = 'c', every_seconds = 60}", (None, None, 60.0)),
        ("checkpoint = {path = 'c', every_batches = 7}", (None, 7, None)),
    ],
)
@pytest.mark.parametrize("option", [(), ("--checkpoint", "d")])
def test_checkpoints(
    seen: dict[str, Any], text: str, every: tuple[Any, ...], option: tuple[str, ...]
) -> None:
    train(*with_config(text), *option)
    (checkpoint,) = seen["callbacks"]
    assert isinstance(checkpoint, fm.Checkpoint)
    assert checkpoint.path == ("d" if option else "c")
    assert (checkpoint.every_epochs, checkpoint.every, checkpoint.every_seconds) == every


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('batch_size = "full"', {"batch_size": None}),
        ("batch_size = 0", {"batch_size": None}),
        ("validation = 0", {"validation": None}),
        ("early_stopping = true", {"early_stopping": fm.EarlyStopping()}),
        ("early_stopping = false", {"early_stopping": None}),
        ('optimizer = "rmsprop"', {"optimizer": fm.RMSProp()}),
    ],
)
def test_short_forms(seen: dict[str, Any], text: str, expected: dict[str, Any]) -> None:
    train(*with_config(text))
    assert {name: seen[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "c.toml has the setting 'epoch', which does not exist; did you mean epochs?"),
        ("zzz = 3", "c.toml has the setting 'zzz', which does not exist; there are data, target,"),
        ("epochs = ", "c.toml is not TOML: Invalid value"),
        ("epochs = '3'", "epochs must be a whole number, got '3'"),
        ("hidden = 'x'", "hidden must be a list of whole numbers, got 'x'"),
        ("hidden = [1.5]", "hidden[0] must be"),
        ("batch_size = 'many'", "batch_size must be a whole number, got 'many'"),
        ("data = 3", "data must be a text, got 3"),
        ("optimizer = 3", "optimizer must be a name, or a table with a name, got 3"),
        ("optimizer = {beta1 = 0.5}", "optimizer must be a name, or a table with a name, got {"),
        ("optimizer = 'adamax'", "optimizer must be one of sgd, momentum"),
        ("optimizer = {name = 'sgd', momentun = 0.5}", "did you mean momentum?"),
        ("optimizer = {name = 'sgd', momentum = 2}", "momentum must be in [0, 1), got 2"),
        ("optimizer = {name = 'sgd', learning_rate = {name = 'step', rate = 1}}", "learning_rate s"
         "tep needs every"),
        ("optimizer = {name = 'sgd', learning_rate = {name = 'steps'}}", "learning_rate must be on"
         "e of constant, step"),
        ("loss = {name = 'huber', detla = 2}", "loss has the setting 'detla', which does not exist"
         "; did you mean delta?"),
        ("loss = 3", "loss must be a table, got 3"),
        ("norm = 'group'", "norm must be one of batch, layer, got 'group'"),
        ("activation = [{alpha = 1}]", "activation needs name"),
        ("early_stopping = {patience = 0}", "patience must be"),
        ("clip_norm = 1\nclip_global_norm = 1", "clip_norm excludes clip_global_norm"),
        ("validation = 'some'", "validation must be a share"),
        ("checkpoint = {path = 'c', every_epoch = 1}", "did you mean every_epochs?"),
        ("checkpoint = {path = 'c', every_epochs = 0}", "every_epochs must be at least 1"),
    ],
)  # fmt: skip
def test_bad_configs(text: str, message: str) -> None:
    args = ("insects.csv",) if not text.startswith("data") else ()
    assert message in error_of("train", *args, *with_config(text), "--target", "insect", "--quiet")
    assert not list(Path().glob("*.safetensors"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "epochs"], "--set must be like epochs=30 or optimizer.beta2=0.95, got epochs"),
        (["--set", "=3"], "--set must be like epochs=30"),
        (["--set", "optimizer.=3"], "--set must be like epochs=30"),
        (["--set", "epoch=3"], "--set has the setting 'epoch', which does not exist; did you mean"),
        (["--set", "optimizer.beta=3"], "optimizer adam has the setting 'beta', which does not e"),
        (["--set", "epochs.more=3"], "--set cannot go into epochs, which is 15"),
        (["--schedule", "cosinus"], "--schedule must be one of constant, step, exponential"),
        (["--schedule", "step"], "learning_rate step needs every"),
        (["--optimizer", "lbfgs", "--learning-rate", "1"], "optimizer lbfgs has the setting 'lear"),
        (["--optimizer", "lbfgs", "--schedule", "cosine"], "optimizer lbfgs has the setting 'lear"),
        (["--config", "no.toml"], "no.toml: No such file or directory"),
        (["--log", "log.txt"], "a log's name must end in .csv or .jsonl, got log.txt"),
        (["--log", "no/log.csv"], "cannot write to no/log.csv: there is no folder no"),
        (
            ["--patience", "3", "--validation", "0"],
            "early_stopping monitors 'val_loss', so validat",
        ),
    ],
)
def test_bad_options(options: list[str], message: str) -> None:
    assert message in error_of("train", "insects.csv", "--target", "insect", *options, "--quiet")
    assert not list(Path().glob("*.safetensors"))


def test_nothing_to_learn_from() -> None:
    assert error_of("train") == "there is nothing to learn from: give DATA, such as mnist157"
