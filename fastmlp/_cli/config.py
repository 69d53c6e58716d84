"""The settings of a training: where they come from, and the objects that they stand for.

A setting has the name of an option of ``train``; those of `fastmlp.MLP` and `fastmlp.fit` have the
names of their arguments, and mean the same. What takes an object in Python is a name or a table
here::

    loss = "huber"
    loss = { name = "huber", delta = 2.0 }              # fm.Loss("huber", delta=2.0)
    optimizer = { name = "adamw", weight_decay = 0.1 }  # fm.AdamW(weight_decay=0.1)

and a learning rate that changes is a table with the name of a schedule.
"""

import inspect
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import fastmlp as fm
from fastmlp import activations, initializers, losses, training
from fastmlp._checks import check_whole
from fastmlp._held_out import check_share
from fastmlp._names import check_name, meant
from fastmlp.architecture import Architecture
from fastmlp.norms import NAMES as NORMS

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "SETTINGS",
    "assign",
    "check",
    "check_arguments",
    "checkpoint_of",
    "defaults",
    "fit_arguments",
    "loss_of",
    "network_arguments",
    "override",
    "override_optimizer",
    "read_config",
    "render",
]

OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "sgd": fm.SGD,
    "momentum": partial(fm.SGD, momentum=0.9),
    "gradient_descent": fm.GradientDescent,
    "adagrad": fm.Adagrad,
    "rmsprop": fm.RMSProp,
    "adam": fm.Adam,
    "adamw": fm.AdamW,
    "nadam": fm.NAdam,
    "lbfgs": fm.LBFGS,
}
SCHEDULES: dict[str, Callable[..., Any]] = {
    "constant": fm.schedules.Constant,
    "step": fm.schedules.Step,
    "exponential": fm.schedules.Exponential,
    "inverse_scaling": fm.schedules.InverseScaling,
    "cosine": fm.schedules.Cosine,
    "cosine_log": fm.schedules.CosineLog,
    "warm_up": fm.schedules.WarmUp,
    "one_cycle": fm.schedules.OneCycle,
    "reduce_on_plateau": fm.schedules.ReduceOnPlateau,
}
_NORM_CLASSES = {name: type(norm) for name, norm in NORMS.items()}


@dataclass(frozen=True)
class Setting:
    """What a setting is by default, what it means, and an example if it is nothing by default."""

    default: Any
    comment: str
    example: Any = None


SETTINGS: dict[str, Setting] = {
    "data": Setting(None, "what to learn from, as DATA of fastmlp train", "mnist157"),
    "target": Setting(None, "column of a table to learn, or .npy file with targets", "species"),
    "hidden": Setting([128], "sizes of the hidden layers"),
    "activation": Setting(
        "softplus",
        f"{', '.join(activations.NAMES)}; or a table such as "
        '{ name = "elu", alpha = 0.5 }; or a list, one for each hidden layer',
    ),
    "loss": Setting(
        None,
        f"{', '.join(losses.NAMES)}, or a table with their options; unset: the first for classes, "
        "squared_error for numbers",
        {"name": "softmax_cross_entropy", "label_smoothing": 0.1},
    ),
    "dropout": Setting(0.0, "share of units left out, or a list: inputs, then hidden layers"),
    "norm": Setting(
        None, "batch, layer, or a table; none for no norm; or a list, one for each layer", "batch"
    ),
    "l2": Setting(0.0, "penalty l2/2 sum W**2, or a list, one for each layer"),
    "l1": Setting(0.0, "penalty l1 sum abs(W), or a list, one for each layer"),
    "input_scale": Setting(False, "whether a scale of each input is learnt"),
    "initializer": Setting(
        None, f"{', '.join(initializers.NAMES)}; unset: as the activation asks", "he_normal"
    ),
    "dtype": Setting("float32", "float32 or float64"),
    "seed": Setting(0, "of initial weights, splits, shuffles and dropout"),
    "optimizer": Setting(
        {"name": "adam"},
        f"{', '.join(OPTIMIZERS)}, with their settings; learning_rate is a number, or a table with "
        f"the name of a schedule: {', '.join(SCHEDULES)}",
    ),
    "batch_size": Setting(32, 'samples in a step, or "full"'),
    "epochs": Setting(15, "passes over the training samples, at most"),
    "shuffle": Setting(True, "whether each epoch takes the samples in a new order"),
    "validation": Setting(0.1, "share of the training samples to validate with; 0 for none"),
    "early_stopping": Setting(
        None,
        "stop when monitor has not got better for so many epochs",
        {"monitor": "val_loss", "patience": 10, "min_delta": 0.0, "restore_best": True},
    ),
    "accumulate": Setting(1, "batches whose gradients make up one step"),
    "clip_value": Setting(None, "bound on each entry of the gradient", 1.0),
    "clip_norm": Setting(None, "bound on the norm of each tensor's gradient", 1.0),
    "clip_global_norm": Setting(None, "bound on the norm of the gradient", 1.0),
    "average": Setting(None, "decay of a moving average of the parameters", 0.999),
    "learning_rate_factors": Setting(
        None, "factors on the learning rate by kind of parameter", {"weight": 1.0, "bias": 0.1}
    ),
    "checkpoint_every": Setting(1, "every how many hidden layers activations are kept"),
    "threads": Setting(None, "unset: FASTMLP_NUM_THREADS, or all cores this process may use", 2),
    "save": Setting(
        None, "where to save the model; unset: <name of data>.safetensors", "model.safetensors"
    ),
    "log": Setting(None, ".csv or .jsonl file to write the epochs to", "history.csv"),
    "plot": Setting(None, "image file to draw the losses in", "losses.png"),
    "checkpoint": Setting(
        None,
        "file to keep the state of the training in, for fastmlp resume, after each epoch; or a "
        "table with path and every_epochs, every_batches or every_seconds",
        {"path": "run.safetensors", "every_seconds": 60.0},
    ),
}

_NETWORK = (
    *("activation", "dropout", "norm", "l2", "l1", "input_scale", "initializer", "dtype", "seed"),
)
_FIT = (
    *("optimizer", "batch_size", "epochs", "shuffle", "validation", "early_stopping"),
    *("accumulate", "clip_value", "clip_norm", "clip_global_norm", "average"),
    *("learning_rate_factors", "checkpoint_every", "threads", "seed"),
)

_COMMENT: Any = {"width": 98, "initial_indent": "# ", "subsequent_indent": "# "}

Settings = dict[str, Any]


def defaults() -> Settings:
    """Return all settings as they are by default."""
    return {name: setting.default for name, setting in SETTINGS.items()}


def read_config(path: Path) -> Settings:
    """Return the settings of a TOML file.

    Raises
    ------
    ValueError
        It is not TOML, or has a setting that does not exist.
    """
    import tomllib  # which --help does not need

    with path.open("rb") as file:
        try:
            found = tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not TOML: {error}") from error
    for name in found:
        _check_known(name, SETTINGS, f"{path} has the setting")
    return found


def assign(settings: Settings, assignment: str) -> None:
    """Carry out an assignment such as ``optimizer.beta2=0.95``; its value is one of TOML.

    Raises
    ------
    ValueError
        It is none, or of a setting that does not exist.
    """
    import tomllib

    key, equals, text = assignment.partition("=")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # the shell has taken the quotes away
    *tables, last = key.strip().split(".")
    if not equals or not all((*tables, last)):
        raise ValueError(f"--set must be like epochs=30 or optimizer.beta2=0.95, got {assignment}")
    _check_known(tables[0] if tables else last, SETTINGS, "--set has the setting")
    place = settings
    for name in tables:
        inner = place.get(name)
        inner = {"name": inner} if isinstance(inner, str) else {} if inner is None else inner
        if not isinstance(inner, Mapping):
            raise ValueError(f"--set cannot go into {name}, which is {inner!r}")
        inner = dict(inner)
        place[name] = inner
        place = inner
    place[last] = value


def override_optimizer(
    setting: Any, name: str | None, rate: float | None, schedule: str | None
) -> Any:
    """Return the setting of the optimizer with another name, learning rate or schedule.

    Another optimizer has none of the settings of the one before. The learning rate is that of a
    schedule if there is one.
    """
    table = {"name": setting} if isinstance(setting, str) else setting
    if not isinstance(table, Mapping):
        return setting  # which fit_arguments complains of
    if name is not None and name != table.get("name"):
        table = {"name": name}
    if schedule is not None:
        check_name(schedule, "--schedule", SCHEDULES)
        before = _rate_of(_completed(OPTIMIZERS, table).get("learning_rate"))
        table = {**table, "learning_rate": {"name": schedule, _first(schedule): before}}
    if rate is not None:
        table = {**table, "learning_rate": _with_rate(table.get("learning_rate"), rate)}
    return table


def _rate_of(learning_rate: Any) -> Any:
    """Return the number of a learning rate: itself, or that of a schedule."""
    if not isinstance(learning_rate, Mapping) or learning_rate.get("name") not in SCHEDULES:
        return learning_rate
    return _rate_of(learning_rate.get(_first(learning_rate["name"])))


def _with_rate(learning_rate: Any, rate: float) -> Any:
    """Return a learning rate, a number or the table of a schedule, with another number."""
    if not isinstance(learning_rate, Mapping) or learning_rate.get("name") not in SCHEDULES:
        return rate
    key = _first(learning_rate["name"])
    return {**learning_rate, key: _with_rate(learning_rate.get(key), rate)}


def _first(schedule: str) -> str:
    """Return the name of a schedule's first argument, which is its rate."""
    return next(iter(inspect.signature(SCHEDULES[schedule]).parameters))


def override(setting: Any, **changes: Any) -> dict[str, Any]:
    """Return a setting that may be a table, with some of its entries changed."""
    return {**(setting if isinstance(setting, Mapping) else {}), **changes}


def check(settings: Mapping[str, Any]) -> None:
    """Check what neither `fastmlp.MLP` nor `fastmlp.fit` will.

    Raises
    ------
    TypeError
        A setting is not of its kind.
    """
    for name in ("data", "target", "save", "log", "plot"):
        if not isinstance(settings[name], str | None):
            raise TypeError(f"{name} must be a text, got {settings[name]!r}")
    if not isinstance(settings["hidden"], list):
        raise TypeError(f"hidden must be a list of whole numbers, got {settings['hidden']!r}")
    for i, size in enumerate(settings["hidden"]):
        check_whole(size, f"hidden[{i}]", 1)


def check_arguments(
    hidden: Sequence[int], network: Mapping[str, Any], procedure: Mapping[str, Any]
) -> None:
    """Check what `fastmlp.MLP` and `fastmlp.fit` will check, before there are samples for them.

    `network` is of `network_arguments`, `procedure` of `fit_arguments`. Raises what they raise.
    """
    rest = {name: network[name] for name in ("activation", "norm", "dropout", "l2", "l1")}
    Architecture.of([1, *hidden, 1], **rest, input_scale=network["input_scale"])
    initializers.resolve(network["initializer"], len(hidden) + 1)
    fm.kernels.resolve_dtype(network["dtype"])
    names = (field.name for field in fields(training.Settings))
    training.Settings(**{name: procedure[name] for name in names}).check()
    fm.threads.resolve(procedure["threads"])
    if procedure["validation"] is not None:
        check_share(procedure["validation"])


def network_arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `fastmlp.MLP` but for layer_sizes.

    Raises
    ------
    TypeError, ValueError
        A name is unknown, or a setting is out of its range.
    """
    made: dict[str, Callable[[Any], Any]] = {
        "activation": _of_each(partial(_named, "activation", fm.Activation)),
        "norm": _of_each(_norm),
    }
    return {
        name: made[name](settings[name]) if name in made else settings[name] for name in _NETWORK
    }


def loss_of(settings: Mapping[str, Any]) -> fm.Loss | None:
    """Return the loss that is set, or None.

    Raises
    ------
    TypeError, ValueError
        Its name is unknown, or an option is out of its range.
    """
    if settings["loss"] is None:
        return None
    loss: fm.Loss = _named("loss", fm.Loss, settings["loss"])
    return loss


def checkpoint_of(settings: Mapping[str, Any]) -> "fm.Checkpoint | None":
    """Return the callback that keeps the state of the training, or None.

    Raises
    ------
    TypeError, ValueError
        Its settings are out of their range.
    """
    value = settings["checkpoint"]
    if value is None:
        return None
    checkpoint: fm.Checkpoint = _make(
        "checkpoint", fm.Checkpoint, {"path": value} if isinstance(value, str) else value
    )
    return checkpoint


def fit_arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of `fastmlp.fit`.

    Raises
    ------
    TypeError, ValueError
        A name is unknown, or a setting is out of its range.
    """
    made: dict[str, Callable[[Any], Any]] = {
        "optimizer": _optimizer,
        "batch_size": _batch_size,
        "validation": lambda share: share or None,
        "early_stopping": _early_stopping,
    }
    return {name: made[name](settings[name]) if name in made else settings[name] for name in _FIT}


def render(settings: Mapping[str, Any]) -> str:
    """Return the settings as a complete TOML file, with comments; those not set are commented out.

    >>> print(render(defaults()).splitlines()[-1])
    # checkpoint = { path = "run.safetensors", every_seconds = 60.0 }
    """
    lines = ["# Settings of fastmlp train --config FILE; options have precedence."]
    for name, setting in SETTINGS.items():
        value = settings[name]
        if name == "optimizer":
            value = _completed(OPTIMIZERS, {"name": value} if isinstance(value, str) else value)
        lines += ["", *textwrap.wrap(setting.comment, **_COMMENT)]
        if value is None:
            lines.append(f"# {name} = {_toml(setting.example)}")
        else:
            lines.append(f"{name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _completed(kinds: Mapping[str, Callable[..., Any]], table: Any) -> Any:
    """Return the table of an object with the defaults of all its arguments; others as they are."""
    if not isinstance(table, Mapping) or table.get("name") not in kinds:
        return table
    parameters = inspect.signature(kinds[table["name"]]).parameters.values()
    known = {p.name: p.default for p in parameters if p.default not in (p.empty, None)}
    return {"name": table["name"], **known, **table}


def _toml(value: Any) -> str:
    """Write a value in TOML, on one line."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_toml_key(k)} = {_toml(v)}' for k, v in value.items())} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):  # JSON's strings are TOML's, but for one character
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _toml_key(name: str) -> str:
    is_bare = name.isascii() and name.replace("-", "_").isidentifier()
    return name if is_bare else _toml(name)


def _of_each(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Make an object of the setting, or one of each item of a list."""
    return lambda value: list(map(make, value)) if isinstance(value, list) else make(value)


def _named(setting: str, kind: Callable[..., Any], value: Any) -> Any:
    """Make an object that is known by its name: a name, or a table with it and options."""
    return kind(value) if isinstance(value, str) else _make(setting, kind, value)


def _choose(setting: str, kinds: Mapping[str, Callable[..., Any]], value: Any) -> Any:
    """Make the object whose kind is named: a name, or a table with it and arguments."""
    table = {"name": value} if isinstance(value, str) else value
    if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
        raise TypeError(f"{setting} must be a name, or a table with a name, got {value!r}")
    rest = dict(table)
    name = check_name(rest.pop("name"), setting, kinds)
    return _make(f"{setting} {name}", kinds[name], rest)


def _make(setting: str, kind: Callable[..., Any], arguments: Any) -> Any:
    """Call `kind` with a table of arguments, all of which it must know."""
    if not isinstance(arguments, Mapping):
        raise TypeError(f"{setting} must be a table, got {arguments!r}")
    known = inspect.signature(kind).parameters
    for name in arguments:
        _check_known(name, known, f"{setting} has the setting")
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise ValueError(f"{setting} needs {name}")
    return kind(**arguments)


def _optimizer(value: Any) -> Any:
    if isinstance(value, Mapping) and isinstance(value.get("learning_rate"), Mapping):
        kind = OPTIMIZERS.get(str(value.get("name")))
        if kind is not None and "learning_rate" in inspect.signature(kind).parameters:
            value = {**value, "learning_rate": _schedule("learning_rate", value["learning_rate"])}
    return _choose("optimizer", OPTIMIZERS, value)


def _schedule(setting: str, value: Any) -> Any:
    if isinstance(value, Mapping) and isinstance(value.get("schedule"), Mapping):
        value = {**value, "schedule": _schedule("schedule", value["schedule"])}
    return _choose(setting, SCHEDULES, value)


def _norm(value: Any) -> Any:
    if value is None or value == "none":
        return None
    return _choose("norm", _NORM_CLASSES, value)


def _batch_size(value: Any) -> Any:
    return None if value == "full" or value == 0 else value


def _early_stopping(value: Any) -> Any:
    if value is None or value is False:
        return None
    return _make("early_stopping", fm.EarlyStopping, {} if value is True else value)


def _check_known(name: str, known: Mapping[str, Any], where: str) -> None:
    if name not in known:
        close = meant(name, known)
        hint = f"did you mean {close}?" if close else f"there are {', '.join(known)}"
        raise ValueError(f"{where} {name!r}, which does not exist; {hint}")
