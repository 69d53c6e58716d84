"""Plots of training runs."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="plots need the extra plot")

import fastmlp as fm
from fastmlp.plotting import plot_history

CLASSIFIER = fm.History(
    loss=[0.9, 0.5, 0.3], accuracy=[0.6, 0.8, 0.9], val_loss=[1.0, 0.6, 0.5], val_accuracy=[0.5] * 3
)


def test_curves() -> None:
    axes = plot_history(CLASSIFIER).axes
    assert [panel.get_ylabel() for panel in axes] == ["loss", "accuracy"]
    assert [panel.get_xlabel() for panel in axes] == ["epoch", "epoch"]
    drawn = [(line.get_label(), list(line.get_ydata())) for panel in axes for line in panel.lines]
    assert drawn == [
        ("training", CLASSIFIER.loss),
        ("validation", CLASSIFIER.val_loss),
        ("training", CLASSIFIER.accuracy),
        ("validation", CLASSIFIER.val_accuracy),
    ]
    assert list(axes[0].lines[0].get_xdata()) == [1, 2, 3]
    assert all(panel.get_legend() is not None for panel in axes)


def test_regression_without_validation() -> None:
    (panel,) = plot_history(fm.History(loss=[0.9, 0.5])).axes
    assert len(panel.lines) == 1
    assert panel.get_legend() is None


@pytest.mark.parametrize("history", [fm.History(), fm.History(loss=[0.5], accuracy=[0.5])])
def test_short_runs(history: fm.History, tmp_path: Path) -> None:
    plot_history(history, tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 0


@pytest.mark.parametrize(("name", "start"), [("p.png", b"\x89PNG"), ("p.svg", b"<?xml")])
def test_files(name: str, start: bytes, tmp_path: Path) -> None:
    plot_history(CLASSIFIER, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)


def test_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nonsense"):
        plot_history(CLASSIFIER, tmp_path / "p.nonsense")
    assert list(tmp_path.iterdir()) == []


def test_pyplot_is_not_imported(tmp_path: Path) -> None:
    code = f"""
import sys
import fastmlp as fm
assert "matplotlib" not in sys.modules
from fastmlp.plotting import plot_history
assert "matplotlib" not in sys.modules
plot_history(fm.History(loss=[1.0]), {str(tmp_path / "p.png")!r})
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "fastmlp\[plot\]"'):
        plot_history(CLASSIFIER)
