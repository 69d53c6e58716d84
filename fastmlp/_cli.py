"""The commands of the command line; imported only when the extra ``cli`` is there."""

import csv
import io
import json
import platform
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numba
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

import fastmlp as fm
from fastmlp import activations, losses
from fastmlp._cli_data import (
    Samples,
    class_names,
    encode,
    hold_out,
    learnable_classes,
    read,
    read_features,
)
from fastmlp._cli_report import (
    print_data,
    print_facts,
    print_line,
    print_network,
    print_test,
    print_training,
)
from fastmlp.io import replace_file
from fastmlp.plotting import new_figure, plot_history

__all__ = ["app"]

_TEST_SHARE = 0.2
"""Share of the samples that is held out for testing when the data has no test part."""

_OPTIMIZERS: dict[str, Callable[..., fm.SGD | fm.Adam]] = {
    "sgd": fm.SGD,
    "momentum": partial(fm.SGD, momentum=0.9),
    "adam": fm.Adam,
}

_USER_ERROR = 2
_INTERRUPTED = 130  # as shells report a process that SIGINT ended

_errors = Console(stderr=True, highlight=False)


class _Commands(TyperGroup):
    """Commands whose foreseeable errors end in one line on standard error, not in a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (ValueError, TypeError, OSError, ImportError) as error:
            _errors.print(f"[red]error: {escape(_one_line(error))}[/]", soft_wrap=True)
            raise typer.Exit(_USER_ERROR) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(_INTERRUPTED) from error


app = typer.Typer(
    cls=_Commands,
    help="Train and run multilayer perceptrons fast on a CPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="mnist157 (bundled), a folder with the MNIST files, or an .npz, .npy or .csv file.",
        show_default=False,
    ),
]
_Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A file that train saved.", show_default=False)
]


@app.command()
def train(
    data: _Data,
    target: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column of a CSV file to learn.")
    ] = None,
    hidden: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SIZES",
            help="Sizes of the hidden layers, such as 128,64; may be repeated.",
            show_default="128",
        ),
    ] = None,
    activation: Annotated[
        str, typer.Option(help=f"Of the hidden layers: {', '.join(activations.NAMES)}.")
    ] = "softplus",
    loss: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(losses.NAMES)}.",
            show_default="the first for classes, the second for numbers",
        ),
    ] = None,
    optimizer: Annotated[str, typer.Option(help="sgd, momentum or adam.")] = "adam",
    learning_rate: Annotated[
        float | None, typer.Option(show_default="0.01, with adam 0.001")
    ] = None,
    batch_size: Annotated[
        str, typer.Option(metavar="INTEGER", help="Samples in a step; full or 0 takes all.")
    ] = "32",
    epochs: Annotated[int, typer.Option(help="Passes over the training samples.")] = 15,
    validation: Annotated[
        float, typer.Option(help="Share of the training samples to validate with; 0 for none.")
    ] = 0.1,
    seed: Annotated[
        int, typer.Option(help="Fixes initial weights, splits and the order of samples.")
    ] = 0,
    threads: Annotated[
        int | None,
        typer.Option(show_default="FASTMLP_NUM_THREADS, or all cores this process may use"),
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    save: Annotated[
        Path | None,
        typer.Option(help="Where to save the model.", show_default="<name of DATA>.safetensors"),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Image file to draw the losses in; needs matplotlib.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Train a network, save it and test it.

    Text and integers in the target are classes, other numbers are values to
    predict. Features are used as they are. Data without a test part is split:
    a random fifth is held out for testing.
    """
    sizes = _parse_sizes("--hidden", ",".join(hidden or ["128"]))
    rows_per_step = _parse_batch_size(batch_size)
    classes = None if loss is None else losses.resolve(loss).is_classifier
    method = _make_optimizer(optimizer, learning_rate)
    if plot is not None:
        new_figure()  # without matplotlib fail now and not after the training
    source = read(data, target=target, classes=classes)
    path = save or Path(f"{source.name}.safetensors")
    for output in (path, plot):
        _check_output(output, inputs=[data])

    names = learnable_classes(source.train.y) if source.train.has_classes else ()
    net = fm.MLP(
        [source.train.X.shape[1], *sizes, _outputs(source.train.y, names, loss)],
        activation=activation,
        loss=loss or ("softmax_cross_entropy" if names else "squared_error"),
        seed=seed,
        dtype=dtype,
    )
    _remember(net, names, source.columns, target)
    if source.test is None:
        train_part, test_part = hold_out(source.train, _TEST_SHARE, seed)
    else:
        train_part, test_part = source.train, source.test
    y_train, y_test = _targets(train_part, names), _targets(test_part, names)
    if not quiet:
        print_data(source, len(train_part), len(test_part), names)
        print_network(net)
    history = fm.fit(
        net,
        train_part.X,
        y_train,
        optimizer=method,
        batch_size=rows_per_step,
        epochs=epochs,
        validation=validation or None,
        progress=not quiet,
        threads=threads,
        seed=seed,
    )
    if history.interrupted and history.seconds == 0.0:  # while compiling
        _errors.print("interrupted before the training began, nothing is saved")
        raise typer.Exit(_INTERRUPTED)
    net.save(path)
    if not quiet:
        print_training(history)
        print_test(net, test_part.X, y_test, names)
        print_line(f"saved {path}")
    if plot is not None:
        plot_history(history, plot)
        if not quiet:
            print_line(f"plotted {plot}")
    if history.interrupted:
        raise typer.Exit(_INTERRUPTED)


@app.command()
def evaluate(
    model: _Model,
    data: _Data,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="The column of a CSV file to compare with.",
            show_default="the one the model learned",
        ),
    ] = None,
) -> None:
    """Test a saved network on the test part of the data, or on all data without parts."""
    net = fm.MLP.load(model)
    if target is None and data.lower().endswith(".csv"):
        target = net.metadata.get("target")
    source = read(data, target=target, classes=net.is_classifier, columns=_recall(net, "columns"))
    part = source.train if source.test is None else source.test
    names = _names_of_classes(net, part.y) if net.is_classifier else ()
    print_test(net, part.X, _targets(part, names), names)


@app.command()
def predict(
    model: _Model,
    data: _Data,
    output: Annotated[
        Path, typer.Option(help="The .csv or .npy file to write.", show_default=False)
    ],
    proba: Annotated[
        bool, typer.Option("--proba", help="Write the probability of each class.")
    ] = False,
) -> None:
    """Write what a saved network predicts, sample by sample, to a file.

    For classes a CSV file holds their names and an NPY file the labels 0, 1, 2
    and so on, which number the classes in the order that train lists them in.
    """
    suffix = output.suffix.lower()
    if suffix not in (".csv", ".npy"):
        raise ValueError(f"--output must end in .csv or .npy, got {output}")
    _check_output(output, inputs=[data, model])
    net = fm.MLP.load(model)
    X = read_features(data, _recall(net, "columns"))
    predicted = net.predict_proba(X) if proba else net.predict(X)
    content = _npy(predicted) if suffix == ".npy" else _csv(net, predicted)
    replace_file(str(output), content)
    print_line(f"wrote {len(predicted):,} predictions to {output}")


@app.command()
def gradcheck(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MODEL]", help="A saved model; without one, --layers.", show_default=False
        ),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="SIZES", help="Sizes of the layers of a new network.", show_default="784,16,3"
        ),
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="Its hidden activation.", show_default="softplus")
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="Its loss.", show_default="softmax_cross_entropy")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Number of random samples.")] = 16,
    seed: Annotated[int, typer.Option(help="Fixes the samples and a new network.")] = 0,
) -> None:
    """Compare a network's gradient with central differences, in float64.

    The exit code is 1 if they differ. Each parameter takes two forward passes:
    for a large network that is long.
    """
    if model is None:
        net = fm.MLP(
            _parse_sizes("--layers", layers or "784,16,3"),
            activation=activation or "softplus",
            loss=loss or "softmax_cross_entropy",
            seed=seed,
            dtype="float64",
        )
    elif layers or activation or loss:
        raise ValueError("--layers, --activation and --loss are for a new network, not for MODEL")
    else:
        net = fm.MLP.load(model)
    generator = np.random.default_rng(seed)
    n_outputs = net.layer_sizes[-1]
    X = generator.standard_normal((batch, net.layer_sizes[0]))
    if net.loss.name == "softmax_cross_entropy":
        y: NDArray[Any] = generator.integers(n_outputs, size=batch)
    else:
        y = generator.random((batch, n_outputs))  # which any other loss takes
    report = fm.gradient_check(net, X, y)
    print_line(str(report))
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def info() -> None:
    """Show versions, what the kernels are compiled for, threads and the cache."""
    print_facts(
        {
            "fastmlp": fm.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "numba": numba.__version__,
            "threads": fm.threads.resolve(None),
            **fm.kernels.info(),
        }
    )


@app.command()
def warmup(
    dtype: Annotated[str, typer.Option(help="float32, float64 or all.")] = "float32",
) -> None:
    """Compile the kernels ahead of the first training, or load them from the cache."""
    for name in ("float32", "float64") if dtype == "all" else (dtype,):
        with _errors.status(f"compiling kernels ({name})"):
            seconds = fm.kernels.warmup(name)
        print_line(f"{name} kernels are ready after {seconds:.2f} s")


def _parse_sizes(option: str, text: str) -> list[int]:
    try:
        return [int(size) for size in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} must be integers such as 128,64, got {text!r}") from None


def _parse_batch_size(text: str) -> int | None:
    if text in ("full", "0"):
        return None
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"--batch-size must be an integer or full, got {text!r}") from None


def _make_optimizer(name: str, learning_rate: float | None) -> fm.SGD | fm.Adam:
    if name not in _OPTIMIZERS:
        raise ValueError(f"--optimizer must be one of {', '.join(_OPTIMIZERS)}, got {name!r}")
    if learning_rate is None:
        return _OPTIMIZERS[name]()
    return _OPTIMIZERS[name](learning_rate=learning_rate)


def _check_output(path: Path | None, inputs: Sequence[str | Path]) -> None:
    """Raise an error if `path` cannot be written or is an input, before any work is done for it."""
    if path is None:
        return
    if path.is_dir():
        raise IsADirectoryError(f"cannot write to {path}: it is a folder")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write to {path}: there is no folder {path.parent}")
    for source in map(Path, inputs):
        if path.exists() and source.exists() and path.samefile(source):
            raise ValueError(f"cannot write to {path}: it would replace an input")


def _outputs(y: NDArray[Any], names: Sequence[str], loss: str | None) -> int:
    """Return how many outputs it takes to learn the targets: one is enough for two classes."""
    if loss != "binary_cross_entropy":
        return len(names) or int(y[0].size)
    if len(names) != 2:
        raise ValueError(f"--loss {loss} is for two classes, got {len(names)}: {', '.join(names)}")
    return 1


def _n_classes(net: fm.MLP) -> int:
    return max(net.layer_sizes[-1], 2)  # one output tells two classes apart


def _remember(
    net: fm.MLP, names: Sequence[str], columns: Sequence[str], target: str | None
) -> None:
    """Keep in the model what evaluate and predict need to know of the data."""
    if names:
        net.metadata["class_names"] = json.dumps(names)
    if columns:
        net.metadata["columns"] = json.dumps(columns)
    if target is not None:
        net.metadata["target"] = target


def _recall(net: fm.MLP, key: str) -> tuple[str, ...]:
    """Return names that :func:`_remember` kept; none if the model was not trained by a command."""
    names = json.loads(net.metadata.get(key, "[]"))
    if not isinstance(names, list):
        raise ValueError(f"the model's metadata {key!r} must be a list of names, got {names!r}")
    return tuple(map(str, names))


def _saved_class_names(net: fm.MLP) -> tuple[str, ...]:
    names = _recall(net, "class_names")
    if names and len(names) != _n_classes(net):
        raise ValueError(
            f"the model must have {_n_classes(net)} class names, got {len(names)}: "
            f"{', '.join(names)}"
        )
    return names


def _names_of_classes(net: fm.MLP, y: NDArray[Any]) -> tuple[str, ...]:
    """Return the names of the classes of a model; one without names takes them from the data."""
    names = _saved_class_names(net) or class_names(y)
    return names if len(names) == _n_classes(net) else tuple(map(str, range(_n_classes(net))))


def _targets(samples: Samples, names: Sequence[str]) -> NDArray[Any]:
    return encode(samples.y, names) if names else samples.y


def _npy(values: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def _csv(net: fm.MLP, predicted: NDArray[Any]) -> bytes:
    """Write predictions as text: labels [n], or probabilities or numbers [n, outputs]."""
    n_outputs = net.layer_sizes[-1]
    names = _saved_class_names(net) or tuple(map(str, range(_n_classes(net))))
    if predicted.ndim == 1:
        header = ["prediction"]
        predicted = np.array(names)[predicted][:, np.newaxis]
    elif net.is_classifier:
        header = list(names)
    elif n_outputs == 1:
        header = ["prediction"]
    else:
        header = [f"prediction_{output}" for output in range(n_outputs)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *predicted.astype(np.str_).tolist()])
    return text.getvalue().encode()


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror is not None and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
