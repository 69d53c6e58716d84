"""Reading samples from tables, arrays and folders (how the command line says what is wrong with
CSV and NPZ files is in test_cli.py)."""

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastmlp as fm
from fastmlp.datasets import read, read_features

X = np.array([[1.5, -2.0], [0.1, 3.0], [1e-7, 4.0]])
NAMES = ["ant", "bee", "ant"]


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_csv(y: list[Any], name: str = "d.csv") -> str:
    rows = ["a,b,y", *(f"{p!r},{q!r},{t}" for (p, q), t in zip(X.tolist(), y, strict=True))]
    Path(name).write_text("\n".join(rows) + "\n")
    return name


def write_jsonl(y: list[Any], name: str = "d.jsonl") -> str:
    rows = [{"a": p, "b": q, "y": t} for (p, q), t in zip(X.tolist(), y, strict=True)]
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def write_parquet(y: list[Any], name: str = "d.parquet") -> str:
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"a": X[:, 0], "b": X[:, 1], "y": y}), name)
    return name


WRITERS = [write_csv, write_jsonl, write_parquet]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("y", "classes", "expected"),
    [
        (NAMES, None, NAMES),
        ([1, 10, 2], None, ["1", "10", "2"]),
        ([0.5, 1.5, -2.0], None, [0.5, 1.5, -2.0]),
        ([1, 10, 2], False, [1.0, 10.0, 2.0]),
        (["größe", "", "x"], None, None),
    ],
)
def test_every_table_says_the_same(
    write: Any, y: list[Any], classes: bool | None, expected: list[Any] | None
) -> None:
    path = write(y)
    if expected is None and write is not write_parquet:  # where an empty text is a text
        with pytest.raises(ValueError, match=r"row 3|row 2"):
            read(path, target="y", classes=classes)
        return
    source = read(path, target="y", classes=classes)
    assert source.name == "d"
    assert source.test is None
    assert source.columns == ("a", "b")
    assert np.array_equal(source.train.X, X)
    assert source.train.X.dtype == np.float64
    assert source.train.y.tolist() == (expected or y)
    assert source.train.has_classes == (classes is None and not isinstance(y[0], float))


@pytest.mark.parametrize("write", WRITERS)
def test_columns(write: Any) -> None:
    path = write([1, 2, 3])
    assert np.array_equal(read(path, target="y", columns=["b"]).train.X, X[:, 1:])
    assert np.array_equal(read_features(Path(path), ["b", "a"]), X[:, ::-1])
    assert np.array_equal(read_features(path), np.column_stack([X, [1, 2, 3]]))
    with pytest.raises(ValueError, match=r"has no column 'z'; its columns: a, b, y"):
        read_features(path, ["z"])
    with pytest.raises(ValueError, match=r"target must name the column to predict; the columns of"):
        read(path)


@pytest.mark.parametrize("write", WRITERS)
def test_missing_and_text_features(write: Any) -> None:
    path = write(NAMES)
    with pytest.raises(ValueError, match=r"'y'"):  # text, named with its column
        read_features(path)
    path = write([0.5, float("nan"), 1.0])
    with pytest.raises(ValueError, match=r"row [23], column 'y': .*nan.* is not a finite number"):
        read(path, target="y", classes=False)


def test_parquet_keeps_types() -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    from pyarrow import parquet

    columns = {
        "f": pyarrow.array([1.5, 2.5], pyarrow.float32()),
        "i": pyarrow.array([1, 2], pyarrow.int8()),
        "b": [True, False],
        "gap": pyarrow.array([1, None]),
        "name": pyarrow.array(["x", None]).dictionary_encode(),
        "label": pyarrow.array(["x", "y"]).dictionary_encode(),
    }
    parquet.write_table(pyarrow.table(columns), "d.parquet")
    assert read_features("d.parquet", ["f"]).dtype == np.float32
    assert read_features("d.parquet", ["f", "i", "b"]).tolist() == [[1.5, 1, 1], [2.5, 2, 0]]
    assert read("d.parquet", target="label", columns=["f"]).train.class_names == ("x", "y")
    assert read("d.parquet", target="b", columns=["f"]).train.class_names == ("False", "True")
    with pytest.raises(ValueError, match=r"row 2, column 'gap': nan is not a finite number"):
        read_features("d.parquet", ["gap"])
    with pytest.raises(ValueError, match=r"row 2, column 'name' is empty"):
        read("d.parquet", target="name", columns=["f"])
    with pytest.raises(ValueError, match=r"column 'label' must hold numbers, got dictionary"):
        read_features("d.parquet", ["label"])


def test_damaged_parquet() -> None:
    content = Path(write_parquet(NAMES)).read_bytes()
    for part in (b"", b"hello", content[:-9], content[: len(content) // 2]):
        Path("d.parquet").write_bytes(part)
        with pytest.raises(ValueError, match=r"d\.parquet cannot be read as a Parquet file: "):
            read("d.parquet", target="y")


def test_parquet_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("d.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=re.escape('pip install "fastmlp[parquet]"')):
        read("d.parquet", target="y")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "d.jsonl is empty"),
        ("{", "d.jsonl, row 1 is not JSON"),
        ("[1, 2]", "d.jsonl, row 1 must be an object"),
        ('{"y": 1}', "d.jsonl has a header, but no features"),
        ('{"a": 1, "y": 1}\n\n{"a": 1}', "d.jsonl, row 3 must have the names of the first row: y"),
        ('{"a": [1], "y": 1}', "d.jsonl, row 1, column 'a' must hold a number or a text"),
        ('{"a": null, "y": 1}', "d.jsonl, row 1, column 'a': '' is not a finite number"),
        ('{"a": true, "y": 1}', "d.jsonl, row 1, column 'a': 'True' is not a finite number"),
        ('{"a": Infinity, "y": 1}', "d.jsonl, row 1, column 'a': 'inf' is not a finite number"),
        ("[" * 100_000, "d.jsonl, row 1 is not JSON"),
    ],
)
def test_bad_jsonl(text: str, message: str) -> None:
    Path("d.jsonl").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        read("d.jsonl", target="y")


@pytest.mark.parametrize("write", [write_csv, write_jsonl])
def test_standard_input(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    content = Path(write(NAMES)).read_bytes()
    for prefix in (b"", "\ufeff".encode()):  # some programs begin a pipe with it too
        stdin = io.TextIOWrapper(io.BytesIO(prefix + content))
        monkeypatch.setattr(sys, "stdin", stdin)
        source = read("-", target="y")
        assert source.name == "stdin"
        assert np.array_equal(source.train.X, X)
        assert source.train.y.tolist() == NAMES


def test_standard_input_that_is_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    for content, message in (
        (b"\xff", "is not in UTF-8"),
        (b"", "is empty"),
        (b"{", "row 1 is no"),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        with pytest.raises(ValueError, match=f"standard input.*{message}"):
            read("-", target="y")


def test_pairs_of_npy() -> None:
    np.save("x.npy", X)
    np.save("y.npy", np.array([3, 4, 3]))
    source = read("x.npy", target="y.npy")
    assert source.train.class_names == ("3", "4")
    assert isinstance(source.train.X, np.memmap)
    assert np.array_equal(source.train.X, X)
    np.save("y.npy", np.array([3, 4]))
    with pytest.raises(ValueError, match=r"X and y must have equally many rows, got the shapes"):
        read("x.npy", target="y.npy")
    with pytest.raises(ValueError, match=r"x\.npy holds no targets: target must be the \.npy file"):
        read("x.npy")
    np.save("y.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"y\.npy cannot be read as a NumPy file: "):
        read("x.npy", target="y.npy")


def test_folder_of_npy() -> None:
    folder = Path("my.data")
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte"):
        read(folder)
    for part, rows in (("_train", slice(2)), ("_test", slice(2, 3))):
        np.save(folder / f"X{part}.npy", X[rows].astype(np.float32))
        np.save(folder / f"y{part}.npy", np.array(NAMES)[rows])
    source = read(folder)
    assert source.name == "my.data"
    assert source.test is not None
    assert isinstance(source.train.X, np.memmap)
    assert source.train.y.tolist() == NAMES[:2]
    assert np.array_equal(read_features(folder), X[2:].astype(np.float32))


def test_names_and_paths() -> None:
    source = fm.datasets.read("mnist157")
    assert source.train.class_names == ("1", "5", "7")
    assert len(source.train) == 18_428
    with pytest.raises(ValueError, match=r"target names a column of a table, and mnist157 is none"):
        read("mnist157", target="y")
    with pytest.raises(FileNotFoundError, match=r"there is no no\.csv: give mnist157, mnist, a fo"):
        read("no.csv")
    Path("d.txt").write_text("")
    with pytest.raises(ValueError, match=r"its name must end in \.npz, \.npy, \.csv, \.jsonl"):
        read_features("d.txt")


def test_what_is_read_trains() -> None:
    source = read(write_csv(NAMES), target="y")
    names = source.train.class_names
    net = fm.MLP([2, 4, len(names)], seed=1)
    fm.fit(net, source.train.X, source.train.encode(names), optimizer=fm.Adam(0.05), epochs=200)
    assert [names[label] for label in net.predict(source.train.X)] == NAMES
