"""The estimators among scikit-learn's tools, and what they can beyond scikit-learn's own."""

import copy
import pickle
import subprocess
import sys
import threading
import warnings
from typing import Any

import joblib
import numpy as np
import pytest
import sklearn
from scipy import sparse
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris, make_multilabel_classification, make_regression
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import fastmlp as fm
from fastmlp.estimators.workers import threads_of

pytestmark = [
    pytest.mark.jit,
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

X, y = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)
NAMES = np.array(["setosa", "versicolor", "virginica"])[y]
X_REG, Y_REG = make_regression(120, 6, n_targets=2, random_state=0)
Y_REG = Y_REG / 100.0


def classifier(**parameters: Any) -> Any:
    return fm.MLPClassifier(
        **{"hidden_layer_sizes": (8,), "max_iter": 15, "random_state": 0, **parameters}
    )


def regressor(**parameters: Any) -> Any:
    return fm.MLPRegressor(
        **{"hidden_layer_sizes": (8,), "max_iter": 15, "random_state": 0, **parameters}
    )


# Among scikit-learn's tools


@pytest.mark.filterwarnings("ignore")  # as scikit-learn's own tests run them
@parametrize_with_checks([fm.MLPClassifier(), fm.MLPRegressor()])
def test_check_estimator_in_full(estimator, check):
    check(estimator)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_grid_search_with_two_jobs(backend):
    grid = {"mlpclassifier__alpha": [1e-4, 1.0]}
    pipeline = make_pipeline(StandardScaler(), classifier())
    with joblib.parallel_config(backend):
        search = GridSearchCV(pipeline, grid, n_jobs=2, cv=2).fit(X, NAMES)
    alone = GridSearchCV(pipeline, grid, cv=2).fit(X, NAMES)
    for name in ("mean_test_score", "std_test_score"):
        np.testing.assert_array_equal(search.cv_results_[name], alone.cv_results_[name])
    np.testing.assert_array_equal(search.predict_proba(X), alone.predict_proba(X))


def test_cross_validation_calibration_and_importances():
    model = classifier(max_iter=60, learning_rate_init=0.02)
    assert cross_val_score(model, X, NAMES, cv=3).mean() > 0.9
    calibrated = CalibratedClassifierCV(model, cv=2).fit(X, NAMES)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1.0)
    importances = permutation_importance(model.fit(X, NAMES), X, NAMES, n_repeats=3, random_state=0)
    assert importances.importances_mean[2:].sum() > importances.importances_mean[:2].sum()


def test_set_output_and_feature_names():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=list("abcd"))
    pipeline = make_pipeline(StandardScaler(), classifier(early_stopping=True, scoring="f1_macro"))
    pipeline.set_output(transform="pandas").fit(frame, NAMES)
    assert pipeline[-1].feature_names_in_.tolist() == list("abcd")
    assert set(pipeline.predict(frame)) <= set(NAMES)
    with pytest.raises(ValueError, match="feature names"):
        pipeline[-1].predict(frame[["b", "a", "c", "d"]])


@pytest.mark.parametrize("kind", [classifier, regressor])
def test_copies_predict_and_go_on_alike(kind, tmp_path):
    targets = y if kind is classifier else Y_REG
    inputs = X if kind is classifier else X_REG
    model = kind(norm="batch", activation="prelu").fit(inputs, targets)
    joblib.dump(model, tmp_path / "model.joblib")
    copies = [
        pickle.loads(pickle.dumps(model)),
        joblib.load(tmp_path / "model.joblib"),
        copy.deepcopy(model),
    ]
    model.partial_fit(inputs, targets)
    for other in copies:
        other.partial_fit(inputs, targets)
        np.testing.assert_array_equal(other.predict(inputs), model.predict(inputs))
        other.coefs_[0][:] = 0.0
        np.testing.assert_array_equal(other.network_.weights[0], 0.0)
    unfitted = clone(model)
    assert not hasattr(unfitted, "coefs_")
    assert unfitted.get_params() == model.get_params()


def test_metadata_is_routed_to_fit():
    X_val, y_val = X[::5], NAMES[::5]
    with sklearn.config_context(enable_metadata_routing=True):
        model = classifier(early_stopping=True).set_fit_request(
            sample_weight=True, X_val=True, y_val=True
        )
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, model, transform_input=["X_val"])
        pipeline.fit(X, NAMES, X_val=X_val, y_val=y_val, sample_weight=np.ones(len(X)))
    direct = classifier(early_stopping=True)
    scaler = StandardScaler().fit(X)
    direct.fit(scaler.transform(X), NAMES, X_val=scaler.transform(X_val), y_val=y_val)
    np.testing.assert_array_equal(pipeline[-1].validation_scores_, direct.validation_scores_)


class Recorder:
    """A callback of scikit-learn's that writes down what it is told, and may stop the fit."""

    def __init__(self, stop_after: int = 10**6) -> None:
        self.stop_after, self.told, self.scores = stop_after, [], []

    def setup(self, estimator: Any, context: Any) -> None:
        self.told.append("setup")

    def teardown(self, estimator: Any, context: Any) -> None:
        self.told.append("teardown")

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        self.told.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X, y, fitted_estimator) -> bool:  # type: ignore[no-untyped-def]
        self.told.append(f"end {context.task_name}")
        self.scores.append(fitted_estimator.score(X, y))
        return context.task_name == "epoch" and context.task_id + 1 >= self.stop_after


def test_scikit_learns_callbacks():
    pytest.importorskip("sklearn.callback")
    recorder = Recorder(stop_after=3)
    model = classifier().set_callbacks(recorder).fit(X, y)
    assert model.n_iter_ == 3
    epoch = ["begin epoch", "end epoch"]
    assert recorder.told == ["setup", "begin fit", *3 * epoch, "end fit", "teardown"]
    assert recorder.scores[-1] == recorder.scores[-2] == model.score(X, y)
    assert recorder.scores[0] == classifier(max_iter=1).fit(X, y).score(X, y)


# Kinds of data


@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array])
def test_sparse_inputs_are_as_dense_ones(container):
    X_sparse = np.where(X > 0.3, X, 0.0)
    dense, other = classifier().fit(X_sparse, y), classifier().fit(container(X_sparse), y)
    np.testing.assert_array_equal(dense.loss_curve_, other.loss_curve_)
    np.testing.assert_array_equal(
        dense.predict_proba(X_sparse), other.predict_proba(container(X_sparse))
    )
    many = container(np.vstack([X_sparse] * 60))  # more than are made dense at a time
    assert other.predict(many).tolist() == 60 * dense.predict(X_sparse).tolist()


def test_sparse_indicators_come_back_sparse():
    X_many, Y_many = make_multilabel_classification(60, 5, n_classes=3, random_state=0)
    dense, other = classifier().fit(X_many, Y_many), classifier()
    predicted = other.fit(X_many, sparse.csr_matrix(Y_many)).predict(X_many)
    np.testing.assert_array_equal(predicted.toarray(), dense.predict(X_many))


def test_float32_stays_float32():
    model = regressor().fit(X_REG.astype(np.float32), Y_REG)
    assert {array.dtype for array in model.coefs_ + model.intercepts_} == {np.dtype("float32")}
    assert model.predict(X_REG.astype(np.float32)).dtype == np.float32
    lbfgs = regressor(solver="lbfgs").fit(X_REG.astype(np.float32), Y_REG)
    assert lbfgs.coefs_[0].dtype == np.float32


def test_coefs_that_somebody_puts_in_are_what_predicts():
    model = regressor().fit(X_REG, Y_REG)
    expected = model.predict(X_REG) + np.array([0.0, 1.0])
    model.intercepts_[-1] = model.intercepts_[-1] + np.array([0.0, 1.0])
    np.testing.assert_allclose(model.predict(X_REG), expected, rtol=1e-12)
    assert isinstance(model.coefs_, list)


# Beyond


def test_given_samples_stop_the_training():
    model = classifier(early_stopping=True, max_iter=200, learning_rate_init=0.05)
    model.fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
    assert len(model.validation_scores_) == len(model.validation_loss_curve_) == model.n_iter_
    assert model.score(X[1::2], y[1::2]) == model.best_validation_score_
    assert model.best_validation_score_ == max(model.validation_scores_)
    best = int(np.argmax(model.validation_scores_))
    assert model.n_iter_ == best + 1 + 11  # n_iter_no_change may pass, and one more
    net = model.network_
    loss = net.evaluate(X[1::2], y[1::2]).loss
    assert loss == pytest.approx(model.validation_loss_curve_[best], rel=1e-12)


def test_given_samples_are_only_looked_at_without_early_stopping():
    with_, without = classifier(), classifier()
    with_.fit(X, y, X_val=X[:30], y_val=y[:30], sample_weight_val=np.arange(30.0))
    without.fit(X, y)
    np.testing.assert_array_equal(with_.coefs_[0], without.coefs_[0])
    assert len(with_.validation_scores_) == 15
    assert without.validation_scores_ is None
    expected = with_.score(X[:30], y[:30], sample_weight=np.arange(30.0))
    assert with_.validation_scores_[-1] == expected
    with pytest.raises(ValueError, match="X_val and y_val must be given together"):
        classifier().fit(X, y, X_val=X)
    with pytest.raises(ValueError, match="classes not in"):
        classifier().fit(X[:100], y[:100], X_val=X, y_val=y)
    with pytest.raises(ValueError, match="X_val is of no use"):
        classifier(solver="lbfgs").fit(X, y, X_val=X, y_val=y)


@pytest.mark.parametrize("scoring", ["neg_log_loss", lambda model, X, y: model.score(X, y) / 2])
def test_any_scorer_stops(scoring):
    model = classifier(early_stopping=True, scoring=scoring, max_iter=30)
    model.fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
    assert model.best_validation_score_ == max(model.validation_scores_)
    if scoring == "neg_log_loss":
        np.testing.assert_allclose(
            model.validation_scores_, -np.array(model.validation_loss_curve_)
        )


def test_class_weights_are_sample_weights():
    weight = np.array([1.0, 2.0, 5.0])
    by_dict = classifier(class_weight=dict(zip(np.unique(NAMES), weight, strict=True)))
    by_dict.fit(X[:120], NAMES[:120])
    by_sample = classifier().fit(X[:120], NAMES[:120], weight[y[:120]])
    np.testing.assert_array_equal(by_dict.coefs_[0], by_sample.coefs_[0])
    balanced = classifier(class_weight="balanced").fit(X[:120], y[:120])
    counts = np.bincount(y[:120])
    by_hand = classifier().fit(X[:120], y[:120], (120 / 3 / counts)[y[:120]])
    np.testing.assert_array_equal(balanced.coefs_[0], by_hand.coefs_[0])
    with pytest.raises(ValueError, match="class_weight='balanced'"):
        classifier(class_weight="balanced").partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="class_weight must be a dict or 'balanced': a list"):
        classifier(class_weight=[1.0, 2.0, 5.0]).fit(X, y)


@pytest.mark.parametrize("sizes", [(2.5,), ("8",), (None,), (8, [3]), {8}, (True,)])
def test_hidden_sizes_that_are_no_whole_numbers(sizes):
    with pytest.raises(TypeError, match=r"hidden_layer_sizes\[\d\] must be a whole number"):
        classifier(hidden_layer_sizes=sizes).fit(X, y)


@pytest.mark.parametrize(
    "parameters",
    [
        {"activation": ["gelu", fm.Activation("elu", alpha=0.5)], "hidden_layer_sizes": (9, 7)},
        {"dropout": [0.1, 0.3]},
        {"norm": "batch"},
        {"norm": "layer"},
        {"label_smoothing": 0.1},
        {"clip_global_norm": 0.5},
        {"solver": fm.AdamW(0.02)},
        {"solver": fm.RMSProp(fm.schedules.Cosine(0.01))},
        {"learning_rate": fm.schedules.Cosine(0.02)},
        {"solver": "sgd", "learning_rate": lambda step: 0.1 / (1 + step)},
    ],
    ids=lambda parameters: next(iter(parameters)),
)
def test_more_parameters_train_the_same_for_any_number_of_jobs(parameters, monkeypatch):
    monkeypatch.setattr("fastmlp.estimators.workers.SHORT_EPOCH", 0)  # teams for small ones too
    settings = {"batch_size": 40, "max_iter": 12, "learning_rate_init": 0.02, **parameters}
    one, two = (classifier(n_jobs=n, **settings).fit(X, y) for n in (1, 2))
    for first, second in zip(one.coefs_, two.coefs_, strict=True):
        np.testing.assert_array_equal(first, second)
    assert one.loss_curve_ == two.loss_curve_
    assert one.loss_ < 0.95 * one.loss_curve_[0]


def test_solvers_that_take_all_samples():
    full = classifier(solver=fm.GradientDescent(0.1), batch_size=10, alpha=0.0).fit(X, y)
    assert full._optimizer.steps == full.n_iter_ == 15
    with pytest.raises(TypeError, match="learning_rate must be a number"):
        classifier(solver=fm.GradientDescent("lipschitz")).fit(X, y)
    lbfgs = classifier(solver=fm.LBFGS(history=5), max_iter=60).fit(X, y)
    assert lbfgs.loss_ < 0.1
    assert not hasattr(lbfgs, "partial_fit")
    with pytest.raises(ValueError, match="without dropout and batch norm"):
        classifier(solver="lbfgs", dropout=0.1).fit(X, y)


def test_warnings_name_the_callers_line():
    with pytest.warns(Warning, match="clipped|converged") as caught:
        classifier(max_iter=2, batch_size=1000).fit(X, y)
    assert {warning.filename for warning in caught} == {__file__}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # not where a schedule ends as it was meant to
        classifier(max_iter=2, learning_rate=fm.schedules.Cosine(0.1)).fit(X, y)


def test_a_solver_of_ours_makes_the_steps_of_fit():
    model = regressor(solver=fm.Adam(0.01), alpha=0.0, shuffle=False, batch_size=50, max_iter=4)
    start = regressor(solver=fm.SGD(1e-300), alpha=0.0, max_iter=1).fit(X_REG, Y_REG).network_
    history = fm.fit(
        start, X_REG, Y_REG, optimizer=fm.Adam(0.01), batch_size=50, epochs=4, shuffle=False
    )
    model.fit(X_REG, Y_REG)
    np.testing.assert_array_equal(model.coefs_[0], start.weights[0])
    np.testing.assert_array_equal(model.loss_curve_, np.array(history.loss) / 2)  # two targets


@pytest.mark.parametrize(
    "loss", ["huber", "absolute_error", "pinball", fm.Loss("pinball", quantile=0.9)], ids=str
)
def test_more_losses(loss):
    model = regressor(loss=loss, max_iter=60, learning_rate_init=0.02, alpha=0.0).fit(X_REG, Y_REG)
    assert model.loss_ < 0.5 * model.loss_curve_[0]
    if isinstance(loss, fm.Loss):
        assert (model.predict(X_REG) > Y_REG).mean() > 0.7
    with pytest.raises(ValueError, match="loss must be one of a regression"):
        regressor(loss=fm.Loss("binary_cross_entropy")).fit(X_REG, Y_REG)


def test_callbacks_of_ours(tmp_path):
    log = fm.callbacks.CSVLogger(tmp_path / "log.csv")
    epochs: list[int] = []
    model = classifier(callbacks=[log, lambda training: epochs.append(training.epoch)])
    model.fit(X, y, X_val=X, y_val=y)
    assert epochs == list(range(1, 16))
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,loss,accuracy,val_loss,val_accuracy")
    assert len(lines) == 16

    def stop(training: Any) -> None:
        if training.epoch == 4:
            training.stop()

    assert classifier(callbacks=[stop]).fit(X, y).n_iter_ == 4
    epochs.clear()
    checkpoint = fm.Checkpoint(tmp_path / "c.safetensors")
    with pytest.raises(TypeError, match=r"joblib\.dump"):
        classifier(callbacks=[checkpoint, lambda training: epochs.append(training.epoch)]).fit(X, y)
    assert not epochs  # refused at once
    with pytest.raises(ValueError, match="callbacks is of no use"):
        classifier(solver="lbfgs", callbacks=[stop]).fit(X, y)


def test_reduce_on_plateau_needs_what_it_monitors():
    rate = fm.schedules.ReduceOnPlateau(0.05, patience=1, monitor="val_loss")
    with pytest.raises(ValueError, match="learning_rate monitors 'val_loss'"):
        classifier(learning_rate=rate).fit(X, y)
    model = classifier(learning_rate=rate, max_iter=80, tol=0.0).fit(X, y, X_val=X, y_val=y)
    assert model._optimizer.learning_rate <= 0.05


@pytest.mark.parametrize("kind", [classifier, regressor])
def test_going_on_with_another_network_is_an_error(kind):
    targets, inputs = (y, X) if kind is classifier else (Y_REG, X_REG)
    model = kind(warm_start=True).fit(inputs, targets)
    model.set_params(hidden_layer_sizes=(9,))
    with pytest.raises(ValueError, match="going on needs the layers of the fit before"):
        model.fit(inputs, targets)
    model.set_params(hidden_layer_sizes=(8,), activation="tanh", dropout=0.1).fit(inputs, targets)
    assert model.network_.dropout == (0.0, 0.1)
    assert len(model.loss_curve_) == 30


def test_divergence_keeps_the_best_or_raises():
    settings = {"solver": "sgd", "learning_rate_init": 5.0, "activation": "identity"}
    with pytest.raises(ValueError, match="non-finite parameter weights"):
        regressor(**settings, max_iter=200, n_iter_no_change=200).fit(X_REG, Y_REG)
    with pytest.warns(Warning, match="diverged"):
        model = regressor(
            **settings, max_iter=200, n_iter_no_change=200, early_stopping=True, verbose=False
        ).fit(X_REG, Y_REG)
    assert np.isnan(model.validation_scores_[-1])
    assert np.isfinite(model.predict(X_REG)).all()


@pytest.mark.parametrize("limit", [0, 2**22], ids=["team", "here"])
def test_ctrl_c_keeps_what_was_learnt(limit, ctrl_c, monkeypatch):
    monkeypatch.setattr("fastmlp.estimators.workers.SHORT_EPOCH", limit)
    classifier(max_iter=1).fit(X, y)  # compiled
    model = classifier(max_iter=10**6, n_iter_no_change=np.inf)
    timer = threading.Timer(0.5, ctrl_c)
    timer.start()
    with pytest.warns(UserWarning, match=r"Training interrupted by user\."):
        model.fit(X, y)
    assert 0 < model.n_iter_ < 10**6
    assert model.predict_proba(X).shape == (150, 3)


def test_several_labels_with_early_stopping_and_weights():
    X_many, Y_many = make_multilabel_classification(120, 8, n_classes=3, random_state=0)
    weight = np.linspace(0.5, 2.0, 120)
    model = classifier(early_stopping=True).fit(
        StandardScaler().fit_transform(X_many), Y_many, weight
    )
    assert model.out_activation_ == "logistic"
    assert model.predict_proba(X_many).shape == (120, 3)


# Threads


def test_threads_beside_other_workers(monkeypatch):
    monkeypatch.delenv("FASTMLP_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = fm.threads.resolve()
    assert threads_of(None) == cores
    assert threads_of(3) == 3
    assert threads_of(-1) == joblib.cpu_count()
    assert threads_of(-1000) == 1
    with joblib.parallel_config("threading"):
        assert joblib.Parallel(2)(joblib.delayed(threads_of)(n) for n in (None, 3)) == [1, 3]
    with joblib.parallel_config("loky", inner_max_num_threads=3):
        found = joblib.Parallel(2)(joblib.delayed(threads_of)(None) for _ in range(2))
    assert found == [3, 3]
    monkeypatch.setenv("FASTMLP_NUM_THREADS", "2")
    with joblib.parallel_config("threading"):
        assert joblib.Parallel(2)(joblib.delayed(threads_of)(None) for _ in range(2)) == [2, 2]


# Without scikit-learn


def test_scikit_learn_is_imported_only_for_the_estimators():
    code = (
        "import sys, fastmlp; assert not any(m.split('.')[0] == 'sklearn' for m in sys.modules)\n"
        "sys.modules['sklearn'] = None\n"
        "try: fastmlp.MLPClassifier\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "fastmlp[sklearn]"' in done.stdout


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (fm.Adam(), r"must be given to the optimizer, got Cosine\(rate=0\.1"),
        ("lbfgs", "a schedule as learning_rate is of no use to the solver lbfgs"),
        (fm.LBFGS(), "a schedule as learning_rate is of no use to the solver lbfgs"),
    ],
)
def test_a_schedule_that_nobody_would_follow(solver: Any, message: str) -> None:
    rate = fm.schedules.Cosine(0.1)
    with pytest.raises(ValueError, match=message):
        fm.MLPClassifier(solver=solver, learning_rate=rate).fit(X, y)
