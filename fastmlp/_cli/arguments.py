"""Arguments and options that several commands share, and what the shell completes them to."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "OUTPUT",
    "Data",
    "Json",
    "Log",
    "Model",
    "Plot",
    "Save",
    "Target",
    "check_output",
    "complete_data",
    "complete_files",
    "complete_names",
    "parse_sizes",
    "write_file",
]

DATASETS = ("mnist157", "mnist")
"""Names in `fastmlp.datasets`, which is not imported for a completion."""

_DATA_FILES = (".csv", ".jsonl", ".ndjson", ".parquet", ".npz", ".npy")


def complete_files(endings: Sequence[str]) -> Callable[[str], list[str]]:
    """Return a completion to folders and to files with one of these endings."""

    def complete(incomplete: str) -> list[str]:
        found = _matches(incomplete, endings)
        if len(found) == 1 and found[0].endswith("/"):
            # With what is in it, the shell does not take the folder for the whole argument.
            found += _matches(found[0], endings)
        return found

    return complete


def _matches(incomplete: str, endings: Sequence[str]) -> list[str]:
    """Return the folders and files that begin like this."""
    folder, slash, start = incomplete.rpartition("/")
    shown = folder + slash
    try:
        entries = sorted(Path(shown or ".").iterdir())
    except OSError:
        return []
    return [
        f"{shown}{entry.name}{'/' if entry.is_dir() else ''}"
        for entry in entries
        if entry.name.startswith(start)
        and (start.startswith(".") or not entry.name.startswith("."))
        and (entry.is_dir() or entry.suffix.lower() in endings)
    ]


def complete_names(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return a completion to names, which are asked for when it is."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def complete_data(incomplete: str) -> list[str]:
    """Complete to data sets, folders and files with samples."""
    names = [name for name in DATASETS if name.startswith(incomplete)]
    return names + complete_files(_DATA_FILES)(incomplete)


def data_argument(**settings: Any) -> Any:
    """Return the argument DATA."""
    return typer.Argument(
        metavar="DATA",
        help="mnist157, mnist, a folder, an .npz, .npy, .csv, .jsonl or .parquet file, or - for "
        "CSV or JSON lines on standard input.",
        show_default=False,
        autocompletion=complete_data,
        **settings,
    )


Data = Annotated[str, data_argument()]
Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="A file that train saved.",
        show_default=False,
        autocompletion=complete_files([".safetensors"]),
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="The column of a table to compare with, or the .npy file of an .npy file.",
        show_default="the one the model learned",
    ),
]
OUTPUT = "Output"
"""Panel of --help with what a training writes."""

Save = Annotated[
    Path | None,
    typer.Option(
        help="Where to save the model.",
        show_default="<name of DATA>.safetensors",
        rich_help_panel=OUTPUT,
    ),
]
Log = Annotated[
    Path | None,
    typer.Option(help="A .csv or .jsonl file to write the epochs to.", rich_help_panel=OUTPUT),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        help="Image file to draw the losses in; needs matplotlib.", rich_help_panel=OUTPUT
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object, and nothing else, on standard output."),
]


def parse_sizes(option: str, text: str) -> list[int]:
    """Return the integers of a text such as 128,64."""
    try:
        return [int(size) for size in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} must be integers such as 128,64, got {text!r}") from None


def check_output(path: Path | None, inputs: Sequence[str | Path] = ()) -> None:
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


def write_file(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    from fastmlp._files import replace_file  # which --help does not need

    replace_file(path, content)
