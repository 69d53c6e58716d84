"""Plots of training runs, networks and data."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="plots need the extra plot")

import fastmlp as fm
from fastmlp.activations import NAMES, Activation
from fastmlp.plotting import (
    plot_activations,
    plot_confusion_matrix,
    plot_curvature,
    plot_first_layer,
    plot_gradient_flow,
    plot_history,
    plot_samples,
)

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


def test_notebooks_show_figures_that_pyplot_does_not_know() -> None:
    assert plot_history(CLASSIFIER)._repr_png_().startswith(b"\x89PNG")


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


def labels_of(axes: Any) -> list[str]:
    return [line.get_label() for line in axes.lines]


def test_functions_and_derivatives() -> None:
    functions, derivatives = plot_activations(["relu", "tanh", Activation("elu", alpha=2)]).axes
    assert labels_of(functions) == labels_of(derivatives) == ["relu", "tanh", "elu(2.0)"]
    z = functions.lines[0].get_xdata()
    assert (z.min(), z.max()) == (-4.0, 4.0)
    e = np.where(z > 0, 1.0, 2 * np.exp(np.minimum(z, 0)))
    expected = [
        (np.maximum(z, 0), z > 0),
        (np.tanh(z), 1 - np.tanh(z) ** 2),
        (np.where(z > 0, z, e - 2), e),
    ]
    for i, (f, derivative) in enumerate(expected):
        np.testing.assert_allclose(functions.lines[i].get_ydata(), f, atol=1e-14)
        np.testing.assert_allclose(derivatives.lines[i].get_ydata(), derivative, atol=1e-14)


@pytest.mark.jit
def test_all_activations() -> None:
    functions, derivatives = plot_activations().axes
    assert [label.partition("(")[0] for label in labels_of(functions)] == list(NAMES)
    z = functions.lines[0].get_xdata()
    smooth = (np.abs(z[:-1]) > 1e-9) & (np.abs(z[1:]) > 1e-9)  # kinks are at 0
    for f, derivative in zip(functions.lines, derivatives.lines, strict=True):
        slope = np.diff(f.get_ydata()) / np.diff(z)
        mean = (derivative.get_ydata()[1:] + derivative.get_ydata()[:-1]) / 2
        np.testing.assert_allclose(mean[smooth], slope[smooth], atol=1e-4)


def test_one_activation() -> None:
    assert labels_of(plot_activations("sigmoid").axes[0]) == ["sigmoid"]


def test_samples_are_images() -> None:
    X = np.arange(5 * 6, dtype=np.float32).reshape(5, 6)
    axes = plot_samples(X, (2, 3), labels=["a", "b", 3, "d", "e"]).axes
    assert [panel.get_title() for panel in axes] == ["a", "b", "3", "d", "e"]
    for panel, row in zip(axes, X, strict=True):
        (image,) = panel.images
        assert image.get_array().tolist() == row.reshape(2, 3).tolist()
        assert image.get_clim() == (0.0, 29.0)
    assert all(panel.get_title() == "" for panel in plot_samples(X[:2], (3, 2)).axes)


def test_confusion_matrix() -> None:
    (axes,) = plot_confusion_matrix([0, 0, 2, 2, 2], [0, 2, 2, 2, 0]).axes
    assert axes.images[0].get_array().tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 2]]
    counts = {(t.get_position()): t.get_text() for t in axes.texts}
    assert counts[2, 0] == "1"  # column 2, row 0: a 0 that was taken for a 2
    assert counts[1, 2] == "0"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    (axes,) = plot_confusion_matrix([0, 1], [0, 1], ["no", "yes", "perhaps"]).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["no", "yes", "perhaps"]


def test_first_layer() -> None:
    net = fm.MLP([6, 3, 2])
    net.weights[0][...] = np.arange(18).reshape(6, 3)
    axes = plot_first_layer(net, (3, 2)).axes[0]
    picture = axes.images[0].get_array().filled(-1)
    assert picture.shape == (2 * 4, 2 * 3)
    for unit, corner in enumerate(((0, 0), (0, 3), (4, 0))):
        image = picture[corner[0] : corner[0] + 3, corner[1] : corner[1] + 2]
        assert image.tolist() == net.weights[0][:, unit].reshape(3, 2).tolist()
    assert (picture[4:, 3:] == -1).all()  # there is no fourth unit
    assert (picture[3] == -1).all()
    assert axes.images[0].get_clim() == (-17.0, 17.0)
    net.weights[0][...] = 0
    plot_first_layer(net, (1, 6))


@pytest.mark.jit
def test_gradient_flow() -> None:
    X, y = np.random.default_rng(0).normal(size=(40, 4)), np.arange(40) % 2
    net, recorder = fm.MLP([4, 5, 5, 2]), fm.FlowRecorder(X, y)
    recorder(net)
    fm.fit(net, X, y, epochs=2, callbacks=[recorder])
    axes = plot_gradient_flow(recorder).axes
    assert [panel.get_ylabel() for panel in axes] == [
        "activation", "delta", "weight gradient", "relative update"
    ]  # fmt: skip
    for panel, name in zip(axes, ("activation", "delta", "weight_gradient"), strict=False):
        for line, flow in zip(panel.lines, recorder.flows, strict=True):
            assert list(line.get_ydata()) == [getattr(layer, name) for layer in flow.layers]
            assert list(line.get_xdata()) == [1, 2, 3]
    assert labels_of(axes[0])[::2] == ["first", "last"]
    assert np.isnan(axes[3].lines[0].get_ydata()).all()
    assert axes[3].lines[2].get_ydata()[1] == recorder.flows[2].layers[1].relative_update
    assert len(plot_gradient_flow(recorder.flows[0]).axes) == 3


def test_flow_that_is_not_finite(tmp_path: Path) -> None:
    layer = fm.LayerFlow("relu", np.inf, np.inf, np.nan, np.nan, 0.0, None)
    plot_gradient_flow(fm.GradientFlow((layer, layer), np.nan), tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 0


def test_curvature() -> None:
    left, right = plot_curvature([0, 1, 2], [4.0, -1.0, 8.0], 0.5).axes
    assert list(left.lines[0].get_ydata()) == [4.0, -1.0, 8.0]
    np.testing.assert_array_equal(right.lines[0].get_ydata(), [0.5, np.nan, 0.25])
    assert list(right.lines[1].get_ydata()) == [0.5] * 3
    steps = plot_curvature([0, 1, 2], [4.0, 1.0, 8.0], [0.3, 0.2, 0.1]).axes[1].lines[1]
    assert list(steps.get_ydata()) == [0.3, 0.2, 0.1]


@pytest.mark.jit
def test_every_plot_writes_its_file(tmp_path: Path) -> None:
    net, labels = fm.MLP([4, 3, 2]), [0, 1, 1]
    plots = [
        lambda path: plot_activations("relu", path),
        lambda path: plot_samples(np.eye(4), (2, 2), None, path),
        lambda path: plot_confusion_matrix(labels, labels, None, path),
        lambda path: plot_first_layer(net, (2, 2), path),
        lambda path: plot_gradient_flow(fm.gradient_flow(net, np.eye(4)[:3], labels), path),
        lambda path: plot_curvature([1], [1.0], 0.1, path),
    ]
    for i, plot in enumerate(plots):
        plot(tmp_path / f"{i}.png")
        assert (tmp_path / f"{i}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("plot", "error", "message"),
    [
        (lambda: plot_activations("swoosh"), ValueError, "activation must be one of"),
        (lambda: plot_activations(3), TypeError, "activation must be a sequence"),
        (lambda: plot_samples(np.eye(4), (2, 3)), ValueError, r"X must have shape \(n, 6\)"),
        (lambda: plot_samples(np.eye(4)[:0], (2, 2)), ValueError, "X must have shape"),
        (lambda: plot_samples(np.eye(4), (4,)), ValueError, r"shape must be \(height, width\)"),
        (lambda: plot_samples(np.eye(4), (2, 2.0)), TypeError, r"shape\[1\] must be a whole"),
        (lambda: plot_samples([["a"]], (1, 1)), TypeError, "X must be real numbers"),
        (lambda: plot_samples(np.eye(4), (2, 2), ["a"] * 3), ValueError, "labels must be 4, .* 3"),
        (lambda: plot_samples(np.eye(4), (2, 2), "abcd"), TypeError, "labels must be a sequence"),
        (lambda: plot_confusion_matrix([0.5], [1]), TypeError, "y_true must be integer labels"),
        (
            lambda: plot_confusion_matrix([0], [-1]),
            ValueError,
            "y_pred must be labels .* 0",
        ),
        (lambda: plot_confusion_matrix([], []), TypeError, "y_true must be integer labels"),
        (lambda: plot_confusion_matrix([0, 1], [1]), ValueError, "y_pred must have 2 labels"),
        (lambda: plot_confusion_matrix([0], [2], [*"ab"]), ValueError, "class_names must name"),
        (lambda: plot_confusion_matrix([0], [0], "a"), TypeError, "class_names must be a seq"),
        (lambda: plot_first_layer("net", (1, 1)), TypeError, "net must be an MLP"),
        (lambda: plot_first_layer(fm.MLP([5, 2]), (2, 2)), ValueError, "weights.* for images of 2"),
        (lambda: plot_gradient_flow([]), ValueError, "flows must hold at least one"),
        (lambda: plot_gradient_flow([1]), TypeError, "flows must be of GradientFlow, got int"),
        (lambda: plot_gradient_flow(1), TypeError, "flows must be a sequence"),
        (lambda: plot_curvature([1, 2], [1.0], 0.1), ValueError, "eigenvalues must have shape"),
        (lambda: plot_curvature([1], [1.0], [1, 2]), ValueError, "step must have shape"),
        (lambda: plot_curvature([1], ["a"], 1), TypeError, "eigenvalues must be real numbers"),
        (lambda: plot_curvature(1, [1], 1), ValueError, "epochs must have 1 dimension"),
    ],
)
def test_bad_arguments(plot: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plot()
