"""Networks taken over from scikit-learn's MLPs."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fastmlp as fm

neural_network = pytest.importorskip("sklearn.neural_network")
pytestmark = [
    pytest.mark.jit,
    pytest.mark.filterwarnings("ignore:Stochastic Optimizer:UserWarning"),
]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 4))


def fitted(kind: str, y: Any, dtype: str, **options: Any) -> Any:
    estimator = getattr(neural_network, kind)(max_iter=3, random_state=0, **options)
    return estimator.fit(X.astype(dtype), y)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize(
    ("y", "loss", "outputs", "class_names"),
    [
        (RNG.integers(0, 3, 50), "softmax_cross_entropy", 3, None),
        (RNG.integers(0, 2, 50), "binary_cross_entropy", 1, None),
        (
            np.array(["yes", "no"])[RNG.integers(0, 2, 50)],
            "binary_cross_entropy",
            1,
            '["no", "yes"]',
        ),
        (RNG.integers(0, 3, 50) * 10, "softmax_cross_entropy", 3, '["0", "10", "20"]'),
        (RNG.integers(0, 2, (50, 4)), "binary_cross_entropy", 4, None),
    ],
    ids=["classes", "binary", "names", "numbers", "labels"],
)
def test_classifiers(
    y: Any, loss: str, outputs: int, class_names: str | None, activation: str, dtype: str
) -> None:
    estimator = fitted("MLPClassifier", y, dtype, hidden_layer_sizes=(6, 5), activation=activation)
    net = fm.MLP.from_sklearn(estimator)
    assert (net.layer_sizes, net.loss) == ((4, 6, 5, outputs), fm.Loss(loss))
    assert net.dtype == np.dtype(dtype)
    assert net.metadata.get("class_names") == class_names
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    theirs = estimator.predict_proba(X.astype(dtype))
    np.testing.assert_allclose(net.predict_proba(X), theirs, tolerance)
    labels = net.predict(X)
    ours = labels if y.ndim == 2 else estimator.classes_[labels]
    np.testing.assert_array_equal(ours, estimator.predict(X.astype(dtype)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("loss", "ours", "y"),
    [
        ("squared_error", "half_squared_error", RNG.normal(size=50)),
        ("squared_error", "half_squared_error", RNG.normal(size=(50, 3))),
        ("poisson", "poisson", RNG.poisson(2, 50) * 1.0),
    ],
)
def test_regressors(loss: str, ours: str, y: Any, dtype: str) -> None:
    options = {} if loss == "squared_error" else {"loss": loss}
    try:
        estimator = fitted("MLPRegressor", y, dtype, hidden_layer_sizes=(6,), **options)
    except TypeError:
        pytest.skip("this scikit-learn has one loss of regressions")
    net = fm.MLP.from_sklearn(estimator)
    assert net.loss == fm.Loss(ours)
    theirs = estimator.predict(X.astype(dtype)).reshape(len(X), -1)
    tolerance = 1e-4 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(net.predict(X), theirs, tolerance, tolerance)


def test_memory_is_its_own() -> None:
    estimator = fitted("MLPRegressor", X[:, 0], "float64")
    net = fm.MLP.from_sklearn(estimator)
    before = net.theta.copy()
    estimator.coefs_[0][...] = 0
    np.testing.assert_array_equal(net.theta, before)


def test_our_own_estimators() -> None:
    """Their network has more than scikit-learn's attributes tell: it is taken as it is."""
    y = RNG.integers(0, 2, 50) * 10
    estimator = fm.MLPClassifier(
        (6, 5), activation=["gelu", "tanh"], norm="batch", max_iter=3, random_state=0
    ).fit(X, y)
    estimator.coefs_[0] = estimator.coefs_[0] * 2.0  # by hand
    net = fm.MLP.from_sklearn(estimator)
    np.testing.assert_allclose(net.predict_proba(X), estimator.predict_proba(X), 1e-14)
    assert net.metadata["class_names"] == '["0", "10"]'
    estimator.coefs_[0][...] = 0.0
    assert net.weights[0].any()


@pytest.mark.parametrize("other", [neural_network.MLPClassifier(), object(), None])
def test_what_is_not_fitted(other: Any) -> None:
    with pytest.raises(TypeError, match="estimator must be a fitted MLPClassifier or MLPRegressor"):
        fm.MLP.from_sklearn(other)


def test_unknown_activation() -> None:
    other = SimpleNamespace(activation="sine", out_activation_="softmax", coefs_=[], intercepts_=[])
    with pytest.raises(ValueError, match="activations must be known, got 'sine', and 'softmax'"):
        fm.MLP.from_sklearn(other)
