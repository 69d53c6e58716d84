"""preset="tabular" of the estimators: it is `fastmlp.tabular`, with the table's own columns."""

import functools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason='needs scikit-learn: pip install "fastmlp[sklearn]"')
from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import train_test_split

import fastmlp as fm

EPOCHS = 12


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fm.tabular, "train", functools.partial(fm.tabular.train, epochs=EPOCHS))


def classes_of(count: int, rows: int = 200) -> tuple[Any, Any]:
    X, y = make_classification(
        rows, 6, n_informative=4, n_classes=count, random_state=0, class_sep=2.0
    )
    return X, np.array(["a", "b", "c"])[y]


@pytest.mark.parametrize("count", [2, 3])
def test_classifier(count: int) -> None:
    X, y = classes_of(count)
    X, X_test, y, y_test = train_test_split(X, y, random_state=0)
    estimator = fm.MLPClassifier(preset="tabular", random_state=0).fit(X, y)
    assert estimator.score(X_test, y_test) > 0.8
    assert set(estimator.predict(X_test)) == set(estimator.classes_)
    p = estimator.predict_proba(X_test)
    assert p.shape == (50, count)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-6)
    assert [w.shape for w in estimator.coefs_] == [
        *((6, 256), (256, 256), (256, 256), (256, count if count > 2 else 1))
    ]
    assert estimator.n_iter_ == EPOCHS == len(estimator.loss_curve_)
    assert len(estimator.validation_scores_) == EPOCHS
    assert estimator.best_validation_score_ == max(estimator.validation_scores_)
    again = fm.MLPClassifier(preset="tabular", random_state=0).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X_test), p)
    other = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(other.predict_proba(X_test), p)


def test_it_is_what_the_parts_do() -> None:
    """With samples to validate on, there is nothing else to draw than the network's seed."""
    X, y = classes_of(3)
    labels = np.unique(y, return_inverse=True)[1]
    estimator = fm.MLPClassifier(preset="tabular", random_state=5)
    estimator.fit(X[:150], y[:150], X_val=X[150:], y_val=y[150:])
    encoder = fm.TabularEncoder().fit(X[:150])
    net = fm.tabular.network(6, 3, seed=int(np.random.RandomState(5).randint(2**31 - 1)))
    x = encoder.transform(X)
    net, history = fm.tabular.train(net, x[:150], labels[:150], validation=(x[150:], labels[150:]))
    np.testing.assert_array_equal(estimator.network_.theta, net.theta)
    assert estimator.loss_curve_ == history.loss
    for part in ({"X_val": X}, {"y_val": y}, {"sample_weight_val": np.ones(200)}):
        with pytest.raises(ValueError, match="X_val and y_val must be given together"):
            estimator.fit(X, y, **part)


@pytest.mark.parametrize("targets", [1, 2])
def test_regressor(targets: int) -> None:
    """In the units of the targets, however large."""
    X, y = make_regression(200, 5, n_targets=targets, noise=0.1, random_state=0)
    estimator = fm.MLPRegressor(preset="tabular", random_state=0).fit(X[:150], y[:150] + 1e4)
    assert estimator.predict(X).shape == y.shape
    assert estimator.score(X[150:], y[150:] + 1e4) > 0.8
    assert estimator.validation_scores_ is None


def test_several_labels() -> None:
    X, _ = classes_of(2)
    y = (X[:, :3] > 0).astype(int)
    estimator = fm.MLPClassifier(preset="tabular", random_state=0).fit(X, y)
    assert estimator.predict(X).shape == y.shape
    assert (estimator.predict(X) == y).mean() > 0.9


def test_frames_with_categories() -> None:
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    colours = np.array(["red", "green", "blue"])[rng.integers(0, 3, 200)]
    frame = pandas.DataFrame({"colour": colours, "size": rng.normal(size=200)})
    y = (colours == "green").astype(int)
    estimator = fm.MLPClassifier(preset="tabular", random_state=0).fit(frame, y)
    assert estimator.score(frame, y) == 1.0
    assert estimator.feature_names_in_.tolist() == ["colour", "size"]
    assert estimator.n_features_in_ == 2
    assert estimator.encoder_.get_feature_names_out().tolist()[0] == "colour_blue"
    codes = np.column_stack([np.unique(colours, return_inverse=True)[1], frame["size"]])
    other = fm.MLPClassifier(preset="tabular", random_state=0, categorical_features=[0])
    np.testing.assert_array_equal(
        other.fit(codes, y).predict_proba(codes), estimator.predict_proba(frame)
    )
    table = pytest.importorskip("pyarrow").Table.from_pandas(frame)
    other.set_params(categorical_features="from_dtype").fit(table, y)
    np.testing.assert_array_equal(other.predict_proba(table), estimator.predict_proba(frame))


def test_weights_count() -> None:
    """Half of the samples have wrong labels, and no weight, in validation as well."""
    X, y = classes_of(2, 400)
    wrong = np.where(y == "a", "b", "a")
    half = np.arange(400) % 2 == 0
    estimator = fm.MLPClassifier(preset="tabular", random_state=0)
    estimator.fit(X, np.where(half, y, wrong), sample_weight=half.astype(float))
    assert estimator.score(X, y) > 0.85
    weighted = clone(estimator).set_params(class_weight={"a": 1.0, "b": 100.0}).fit(X, y)
    plain = clone(estimator).fit(X, y)
    assert (weighted.predict(X) == "b").mean() > (plain.predict(X) == "b").mean()


@pytest.mark.parametrize(
    "parameter",
    [{"alpha": 1.0}, {"hidden_layer_sizes": (50,)}, {"max_iter": 10}, {"early_stopping": True}],
)
def test_what_it_decides_is_refused(parameter: dict[str, Any]) -> None:
    X, y = classes_of(2)
    name = next(iter(parameter))
    with pytest.raises(ValueError, match=f"preset='tabular' decides {name}"):
        fm.MLPClassifier(preset="tabular", **parameter).fit(X, y)


def test_callbacks_that_would_not_do(tmp_path: Path) -> None:
    X, y = classes_of(2)
    checkpoint = fm.Checkpoint(tmp_path / "run")
    with pytest.raises(TypeError, match="callbacks must not hold a Checkpoint"):
        fm.MLPClassifier(preset="tabular", callbacks=[checkpoint]).fit(X, y)
    pytest.importorskip("sklearn.callback")
    from sklearn.callback import ProgressBar

    with pytest.raises(ValueError, match="not those of set_callbacks"):
        fm.MLPClassifier(preset="tabular").set_callbacks(ProgressBar()).fit(X, y)


def test_other_presets_and_partial_fits() -> None:
    X, y = classes_of(2)
    with pytest.raises(ValueError, match="preset"):
        fm.MLPClassifier(preset="deep").fit(X, y)
    with pytest.raises(ValueError, match="partial_fit"):
        fm.MLPClassifier(preset="tabular").partial_fit(X, y, classes=np.unique(y))
    with pytest.raises(NotFittedError):
        fm.MLPClassifier(preset="tabular").predict(X)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_refit_without_it() -> None:
    """An estimator forgets its encoder."""
    X, y = classes_of(2)
    estimator = fm.MLPClassifier(preset="tabular", random_state=0).fit(X, y)
    estimator.set_params(preset=None, max_iter=300).fit(X, y)
    assert not hasattr(estimator, "encoder_")
    assert [w.shape for w in estimator.coefs_] == [(6, 100), (100, 1)]
    assert estimator.score(X, y) > 0.8


def test_categories_without_the_preset() -> None:
    estimator = fm.MLPClassifier(categorical_features=[0])
    with pytest.raises(ValueError, match=r"categorical_features needs preset='tabular', got \[0\]"):
        estimator.fit(*classes_of(2))
