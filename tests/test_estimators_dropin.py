"""Replacing the import is enough: scikit-learn's estimators and ours do the same.

The exact tests compare float64 losses epoch by epoch. Both begin with the same weights, draw the
same validation samples and the same shuffles from `random_state`, so only the order of
sums differs: by 1e-16, which a training of some hundred steps enlarges.
"""

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import sklearn.neural_network as theirs
from sklearn.datasets import (
    load_diabetes,
    load_digits,
    load_iris,
    make_classification,
    make_multilabel_classification,
    make_regression,
)
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale

import fastmlp as ours

pytestmark = [
    pytest.mark.jit,
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

ROUNDING = 1e-11  # of losses and of weights after at most 60 epochs


def samples(kind: str) -> tuple[np.ndarray, np.ndarray]:
    if kind in ("binary", "multiclass"):
        classes = 2 if kind == "binary" else 4
        X, y = make_classification(90, 8, n_informative=5, n_classes=classes, random_state=0)
    elif kind == "multilabel":
        X, y = make_multilabel_classification(90, 8, n_classes=3, random_state=0)
    else:
        targets = 3 if kind == "several targets" else 1
        X, y = make_regression(90, 8, n_targets=targets, noise=3.0, random_state=0)
        y = y / 200.0
    return scale(X), y


def pair(kind: str, **parameters: Any) -> tuple[Any, Any]:
    name = "MLPClassifier" if kind in ("binary", "multiclass", "multilabel") else "MLPRegressor"
    settings = {"hidden_layer_sizes": (7, 5), "max_iter": 15, "random_state": 3, **parameters}
    return getattr(ours, name)(**settings), getattr(theirs, name)(**settings)


def assert_same(one: Any, other: Any, loss_tolerance: float = ROUNDING) -> None:
    assert one.n_iter_ == other.n_iter_
    assert one.t_ == other.t_
    np.testing.assert_allclose(one.loss_curve_, other.loss_curve_, rtol=loss_tolerance)
    assert one.loss_ == one.loss_curve_[-1]
    for mine, yours in zip(
        one.coefs_ + one.intercepts_, other.coefs_ + other.intercepts_, strict=True
    ):
        np.testing.assert_allclose(mine, yours, rtol=ROUNDING, atol=ROUNDING)
    for name in ("best_loss_", "best_validation_score_", "validation_scores_"):
        np.testing.assert_allclose(
            np.array(getattr(one, name), float),
            np.array(getattr(other, name), float),
            rtol=loss_tolerance,
        )
    for name in ("n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(one, name) == getattr(other, name)


KINDS = ["binary", "multiclass", "multilabel", "one target", "several targets"]
ACTIVATIONS = ["identity", "logistic", "tanh", "relu"]
SOLVERS = {
    "adam": {"learning_rate_init": 0.01},
    "adam, large epsilon": {"learning_rate_init": 0.01, "epsilon": 0.1, "beta_1": 0.8},
    "sgd": {"solver": "sgd", "learning_rate_init": 0.03},
    "momentum 0": {"solver": "sgd", "learning_rate_init": 0.03, "momentum": 0.0},
    "Polyak": {"solver": "sgd", "learning_rate_init": 0.03, "nesterovs_momentum": False},
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.2},
    "invscaling, Polyak": {
        "solver": "sgd",
        "learning_rate": "invscaling",
        "learning_rate_init": 0.2,
        "power_t": 0.3,
        "nesterovs_momentum": False,
    },
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_full_batches_agree_to_rounding(kind, activation, solver):
    X, y = samples(kind)
    weight = np.random.default_rng(0).uniform(0.5, 2.0, len(X))
    parameters = {"activation": activation, "alpha": 0.5, "shuffle": False, **SOLVERS[solver]}
    one, other = pair(kind, **parameters)
    assert_same(one.fit(X, y, weight), other.fit(X, y, sample_weight=weight))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["multiclass", "one target"])
def test_every_solver_agrees_to_rounding(kind, solver):
    X, y = samples(kind)
    one, other = pair(kind, alpha=0.1, **SOLVERS[solver])
    assert_same(one.fit(X, y), other.fit(X, y))


@pytest.mark.parametrize("solver", ["adam", "invscaling"])
@pytest.mark.parametrize("kind", KINDS)
def test_small_shuffled_batches_make_the_same_steps(kind, solver):
    # 4 batches of 20 and one of 10. `loss_curve_` has the mean of the penalty over the steps; ours
    # knows it at the ends of an epoch, and its first epoch is the one in which weights change most.
    X, y = samples(kind)
    one, other = pair(kind, batch_size=20, alpha=0.1, **SOLVERS[solver])
    assert_same(one.fit(X, y), other.fit(X, y), loss_tolerance=1e-2)
    without, too = pair(kind, batch_size=20, alpha=0.0, **SOLVERS[solver])
    assert_same(without.fit(X, y), too.fit(X, y))


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_epoch_is_the_last(kind, early_stopping):
    X, y = samples(kind)
    one, other = pair(
        kind,
        solver="sgd",
        learning_rate="adaptive",
        learning_rate_init=0.2,
        tol=5e-3,
        n_iter_no_change=3,
        max_iter=60,
        early_stopping=early_stopping,
        validation_fraction=0.3,
    )
    assert_same(one.fit(X, y), other.fit(X, y), loss_tolerance=1e-9)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", KINDS[:4])
def test_lbfgs_agrees(kind, activation):
    # some iterations only: its line search enlarges rounding much
    X, y = samples(kind)
    one, other = pair(kind, activation=activation, solver="lbfgs", max_iter=8, alpha=0.1)
    one.fit(X, y)
    other.fit(X, y)
    assert one.n_iter_ == other.n_iter_
    assert one.loss_ == pytest.approx(other.loss_, rel=1e-7)
    assert not hasattr(one, "loss_curve_")


def test_lbfgs_of_several_targets_minimises_what_it_differentiates():
    # scikit-learn's loss is a mean over the targets, its gradient that of the sum
    X, y = samples("several targets")
    one, _ = pair("several targets", solver="lbfgs", activation="identity", alpha=0.0, tol=1e-7)
    one.set_params(hidden_layer_sizes=(), max_iter=500).fit(X, y)
    least = y - LinearRegression().fit(X, y).predict(X)
    assert one.loss_ == pytest.approx(0.5 * np.mean(least**2), rel=1e-6)


def test_poisson_agrees():
    X, _ = samples("one target")
    y = np.random.default_rng(0).poisson(np.exp(0.5 * X[:, 0] + 0.2))
    for parameters in ({}, {"batch_size": 20, "alpha": 0.0}):
        one, other = pair("one target", loss="poisson", **parameters)
        assert_same(one.fit(X, y), other.fit(X, y))
        np.testing.assert_allclose(one.predict(X), other.predict(X), rtol=ROUNDING)


@pytest.mark.parametrize("kind", KINDS)
def test_partial_fit_and_warm_starts_go_on_alike(kind):
    X, y = samples(kind)
    one, other = pair(kind, solver="sgd", learning_rate="invscaling", learning_rate_init=0.3)
    for rows in (slice(0, 60), slice(60, 75), slice(30, 90)):
        for model in (one, other):
            classes = {"classes": np.unique(y)} if kind in KINDS[:2] else {}
            if kind == "multilabel":
                classes = {"classes": [0, 1, 2]}
            model.partial_fit(X[rows], y[rows], **classes)
    assert_same(one, other)
    one, other = pair(kind, warm_start=True, max_iter=7)
    for _ in range(2):
        one.fit(X, y)
        other.fit(X, y)
    assert len(one.loss_curve_) == 14
    assert_same(one, other)


def test_predictions_agree():
    for kind in KINDS[:3]:
        X, y = samples(kind)
        one, other = pair(kind)
        one.fit(X, y)
        other.fit(X, y)
        np.testing.assert_array_equal(one.predict(X), other.predict(X))
        np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), rtol=1e-10)
        np.testing.assert_allclose(one.predict_log_proba(X), other.predict_log_proba(X), rtol=1e-9)
        assert one.score(X, y) == other.score(X, y)


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_signatures_begin_with_scikit_learns(name):
    one, other = (getattr(module, name)() for module in (ours, theirs))
    given, expected = one.get_params(), other.get_params()
    assert {key: given[key] for key in expected} == expected
    from inspect import signature

    parameters = list(signature(type(one)).parameters.values())
    theirs_ = list(signature(type(other)).parameters.values())
    for mine, yours in zip(parameters, theirs_, strict=False):
        assert (mine.name, mine.kind, mine.default) == (yours.name, yours.kind, yours.default)
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[len(theirs_) :])


BAD = [
    {"hidden_layer_sizes": -1},
    {"hidden_layer_sizes": (5, 0)},
    {"activation": "ghost"},
    {"solver": "newton"},
    {"alpha": -1.0},
    {"batch_size": 0},
    {"learning_rate": "fast"},
    {"learning_rate_init": 0.0},
    {"max_iter": 0},
    {"momentum": 1.5},
    {"beta_1": 1.0},
    {"early_stopping": 3},
    {"validation_fraction": 1.0},
    {"n_iter_no_change": 0},
    {"random_state": "seed"},
]


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_bad_parameters_raise_the_same_class(bad):
    X, y = samples("binary")
    for model in pair("binary", **bad):
        with pytest.raises(ValueError, match=next(iter(bad))) as caught:
            model.fit(X, y)
        assert type(caught.value).__name__ in ("InvalidParameterError", "ValueError")


# Five scripts as one writes them, run with either import. Steps are the same, so scores are. In
# float32 the two round differently, and scores may differ by some samples.


def iris_in_a_pipeline(nn: ModuleType) -> float:
    X, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    X_train, X_test, y_train, y_test = train_test_split(X, names, random_state=0)
    model = make_pipeline(StandardScaler(), nn.MLPClassifier(max_iter=300, random_state=1))
    return float(model.fit(X_train, y_train).score(X_test, y_test))


def digits_with_early_stopping(nn: ModuleType) -> float:
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X / 16.0, y, random_state=0)
    model = nn.MLPClassifier((32,), early_stopping=True, max_iter=40, random_state=1)
    return float(model.fit(X_train, y_train).score(X_test, y_test))


def diabetes_with_grid_search(nn: ModuleType) -> float:
    X, y = load_diabetes(return_X_y=True)
    model = make_pipeline(
        StandardScaler(), nn.MLPRegressor(hidden_layer_sizes=16, solver="lbfgs", max_iter=30)
    )
    grid = {"mlpregressor__alpha": [0.1, 10.0], "mlpregressor__random_state": [0]}
    search = GridSearchCV(model, grid, cv=3).fit(X, y)
    assert search.best_params_["mlpregressor__alpha"] == 10.0
    return float(search.best_score_)


def several_labels(nn: ModuleType) -> float:
    X, y = make_multilabel_classification(300, 12, n_classes=4, random_state=2)
    model = nn.MLPClassifier((20,), activation="tanh", max_iter=200, random_state=0)
    return float(model.fit(X[:200], y[:200]).score(X[200:], y[200:]))


def a_stream(nn: ModuleType) -> float:
    X, y = load_digits(return_X_y=True)
    X = (X / 16.0).astype(np.float32)
    model = nn.MLPClassifier((40,), solver="sgd", learning_rate_init=0.1, random_state=0)
    for first in range(0, 1500, 50):
        model.partial_fit(X[first : first + 50], y[first : first + 50], classes=np.arange(10))
    assert model.coefs_[0].dtype == np.float32
    return float(model.score(X[1500:], y[1500:]))


SCRIPTS = {
    iris_in_a_pipeline: 0.0,
    digits_with_early_stopping: 0.0,
    diabetes_with_grid_search: 1e-3,  # 30 iterations of L-BFGS enlarge rounding
    several_labels: 0.0,
    a_stream: 0.02,  # float32
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_five_scripts_come_out_the_same(script):
    assert script(ours) == pytest.approx(script(theirs), abs=SCRIPTS[script] + 1e-12)
    assert script(ours) > 0.35
