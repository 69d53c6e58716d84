"""Tables of networks, histories and reports, as text and in notebooks."""

import sys
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

import fastmlp as fm
from fastmlp.summary import Summary


def net() -> fm.MLP:
    return fm.MLP(
        [784, 128, 64, 3],
        activation=["relu", fm.Activation("prelu", per_unit=True)],
        norm=["batch", "layer"],
        dropout=[0.1, 0.0, 0.25],
        dtype="float64",
    )


class Cells(HTMLParser):
    """The cells of a table, and every tag that is used."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[Any] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag in ("td", "th", "div"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        self.cells[-1] += data


def test_counts_are_those_of_the_network() -> None:
    rows = net().summary().rows
    assert rows == (
        ("inputs", "dropout 0.1", "(n, 784)", "0", "0"),
        ("1", "linear, batch norm, relu", "(n, 128)", "100,736", "100,352"),
        (
            *("2", "linear, layer norm, prelu(0.25, per_unit), dropout 0.25", "(n, 64)"),
            *("8,448", "8,192"),
        ),
        ("output", "linear, for softmax_cross_entropy", "(n, 3)", "195", "192"),
        ("all", "", "", "109,379", "108,736"),
    )
    assert net().n_parameters == 109_379


def test_memory_is_that_of_a_step() -> None:
    cost = fm.complexity(
        [784, 128, 64, 3],
        500,
        activation=net().activation,
        norm=net().norm,
        dropout=net().dropout,
        threads=1,
        dtype="float64",
    )
    note = net().summary(batch=500).notes[1]
    assert note == (f"a training step on 500 samples with Adam needs {cost.memory / 2**20:.1f} MiB")
    with pytest.raises(ValueError, match="batch must be at least 1"):
        net().summary(batch=0)


def test_a_scale_of_the_inputs_is_theirs() -> None:
    """Its factors are no parameters of the first layer, and its gradient takes memory too."""
    sizes = [784, 16, 3]
    scaled = fm.MLP(sizes, input_scale=True, dropout=[0.1, 0.0]).summary()
    plain = fm.MLP(sizes, dropout=[0.1, 0.0]).summary()
    assert scaled.rows[0] == ("inputs", "scale, dropout 0.1", "(n, 784)", "784", "0")
    assert scaled.rows[1:-1] == plain.rows[1:-1]
    assert sum(int(row[3].replace(",", "")) for row in scaled.rows[:-1]) == 13_395
    assert scaled.rows[-1][3] == "13,395"
    cost = fm.complexity(sizes, 32, input_scale=True, dropout=[0.1, 0.0], threads=1)
    assert scaled.notes[1].endswith(f"needs {cost.memory / 2**10:.1f} KiB")


@pytest.mark.parametrize(
    ("layer_sizes", "size"),
    [([3, 2], "256 bytes"), ([300, 200], "244.6 KiB"), ([3000, 2000, 4000], "53.4 MiB")],
)
def test_sizes_for_readers(layer_sizes: list[int], size: str) -> None:
    net = fm.MLP(layer_sizes, initializer="zeros", loss="squared_error")
    assert net.summary().notes[0] == f"parameters float32, {size}"


@pytest.mark.parametrize("has_rich", [True, False])
def test_text_has_every_cell(has_rich: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if has_rich:
        rich = pytest.importorskip("rich")
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(rich, "_console", None)  # it keeps the width of the first use
    else:
        monkeypatch.setitem(sys.modules, "rich", None)
    summary = net().summary()
    lines = str(summary).splitlines()
    assert "\x1b" not in str(summary)
    assert ("╭" in str(summary)) == has_rich
    for row in summary.rows:
        (line,) = (line for line in lines if line.strip(" │").startswith(row[0] + " "))
        cells = [cell for cell in row if cell]
        assert " ".join(line.replace("│", " ").split()) == " ".join(cells)
    assert lines[-2:] == list(summary.notes)


def test_notebooks_get_tables() -> None:
    history = fm.History(loss=[0.5, 0.25], val_loss=[0.6, 0.3])
    for shown in (net(), net().summary(), history):
        found = Cells(shown._repr_html_())
        assert found.tags == {"table", "thead", "tbody", "tr", "th", "td", "div"}
        assert not found.attributes
    assert Cells(net()._repr_html_()).cells[5:10] == list(net().summary().rows[0])
    assert Cells(history._repr_html_()).cells[:9] == [
        *("epoch", "loss", "val_loss", "1", "0.5000", "0.6000", "2", "0.2500", "0.3000"),
    ]


def test_text_is_escaped() -> None:
    evil = "<script>alert('x')</script>&amp;"
    found = Cells(Summary((("1", evil, "", "", ""),), (evil,))._repr_html_())
    assert "script" not in found.tags
    assert found.cells.count(evil) == 2


@pytest.mark.jit
def test_report_of_a_gradient_check() -> None:
    small = fm.MLP([2, 3, 2], activation="tanh", dtype="float64")
    X = np.random.default_rng(0).normal(size=(5, 2))
    report = fm.gradient_check(small, X, [0, 1, 0, 1, 0])
    cells = Cells(report._repr_html_()).cells
    assert cells[-1] == str(report).splitlines()[0]
    assert [cell for cell in cells if cell.startswith("layers")] == [
        tensor.name for tensor in report.tensors
    ]
    assert "!" not in cells
    failing = fm.gradient_check(small, X, [0, 1, 0, 1, 0], tolerance=1e-30)
    assert "!" in Cells(failing._repr_html_()).cells
