"""The encoder of tables: the paper's formulas, what counts as a category, scikit-learn's rules."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason='needs scikit-learn: pip install "fastmlp[sklearn]"')
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastmlp import TabularEncoder

NAN = float("nan")


@pytest.mark.filterwarnings("ignore:Skipping check")
@parametrize_with_checks([TabularEncoder(), TabularEncoder(categorical_features=None)])  # type: ignore[untyped-decorator]
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def test_numbers_are_scaled_and_clipped() -> None:
    """Entry by entry as the paper has it, for a train and a test table."""
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(40, 3)) ** 3, 10 * rng.normal(size=(7, 3)) ** 3
    encoder = TabularEncoder().fit(train)
    found = encoder.transform(test)
    for j in range(3):
        column = np.sort(train[:, j])
        q25, q75 = (
            column[9] + 0.75 * (column[10] - column[9]),
            column[29] + 0.25 * (column[30] - column[29]),
        )
        median = (column[19] + column[20]) / 2
        for i in range(7):
            x = (test[i, j] - median) / (q75 - q25)
            assert found[i, j] == pytest.approx(x / (1 + (x / 3) ** 2) ** 0.5, rel=1e-12)
    assert (np.abs(found) < 3).all()
    assert np.abs(found).max() > 2.5


def test_columns_without_quartiles_and_constant_ones() -> None:
    x = np.zeros((20, 2))
    x[3, 0], x[:, 1] = 5.0, 7.0
    encoder = TabularEncoder().fit(x)
    np.testing.assert_allclose(encoder.factors_, [1 / 2.5, 0.0])
    out = encoder.transform([[5.0, 7.0], [0.0, 8.0]])
    np.testing.assert_allclose(out, [[2 / np.sqrt(1 + 4 / 9), 0.0], [0.0, 0.0]], rtol=1e-15)


def one_hot(columns: list[Any], train: list[Any], test: list[Any]) -> Any:
    """What the columns became before scaling, of the test table."""
    encoder = TabularEncoder(categorical_features=columns)
    encoder.fit(np.array(train, dtype=object))
    x = encoder.transform(np.array(test, dtype=object))
    scaled = x / np.sqrt(1 - (x / 3) ** 2)  # the clipping undone
    return (scaled / encoder.factors_ + encoder.medians_).round(12)


def test_categories_become_columns() -> None:
    train = [["b"], ["a"], ["c"], ["a"], [None], ["b"], [NAN]]
    found = one_hot([0], train, [["a"], ["b"], ["c"], ["d"], [None], [NAN]])
    expected = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(found, expected)


def test_two_categories_are_one_and_minus_one() -> None:
    train = [["yes"], ["no"], ["no"], [None], ["yes"]]
    found = one_hot([0], train, [["no"], ["yes"], ["perhaps"], [None]])
    np.testing.assert_array_equal(found, [[1], [-1], [0], [0]])


def test_numbers_may_be_categories() -> None:
    train = np.array([[1.0, 5.0], [2.0, 6.0], [NAN, 7.0], [3.0, 9.0]])
    encoder = TabularEncoder(categorical_features=[0]).fit(train)
    assert [None if c is None else c.tolist() for c in encoder.categories_] == [[1, 2, 3], None]
    assert encoder.transform(train).shape == (4, 4)
    assert encoder.get_feature_names_out().tolist() == ["x0_1.0", "x0_2.0", "x0_3.0", "x1"]
    for same in ([True, False], np.array([0]), [-2]):
        other = TabularEncoder(categorical_features=same).fit_transform(train)
        np.testing.assert_array_equal(other, encoder.transform(train))


DATA = {
    "size": [1.0, 2.0, 4.0, 8.0],
    "colour": ["red", "green", None, "blue"],
    "is_new": [True, False, True, True],
    "kind": ["x", "y", "x", "y"],
}


def frame_of(library: str) -> Any:
    """The data as a frame or a table, with `kind` of the library's own type for categories."""
    frames = pytest.importorskip(library)
    if library == "pandas":
        return frames.DataFrame(DATA).astype({"kind": "category"})
    if library == "polars":
        return frames.DataFrame(DATA).with_columns(frames.col("kind").cast(frames.Categorical))
    return frames.table(DATA | {"kind": frames.array(DATA["kind"]).dictionary_encode()})


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_frames(library: str) -> None:
    frame = frame_of(library)
    encoder = TabularEncoder().fit(frame)
    names = ["size", "colour_blue", "colour_green", "colour_red", "is_new", "kind"]
    assert encoder.get_feature_names_out().tolist() == names
    assert encoder.feature_names_in_.tolist() == ["size", "colour", "is_new", "kind"]
    out = encoder.transform(frame)
    assert out.shape == (4, 6)
    assert (out[2, 1:4] == encoder.transform(frame[2:3])[0, 1:4]).all()
    by_name = TabularEncoder(categorical_features=["colour", "kind"]).fit(frame)
    np.testing.assert_array_equal(by_name.transform(frame), out)
    with pytest.raises(ValueError, match="there are no columns \\['shape'\\]"):
        TabularEncoder(categorical_features=["shape"]).fit(frame)
    order = ["colour", "size", "is_new", "kind"]
    with pytest.raises(ValueError, match="feature names"):
        encoder.transform(frame.select(order) if library == "pyarrow" else frame[order])
    with pytest.raises(ValueError, match="column 'colour': could not convert string to float"):
        TabularEncoder(categorical_features=["kind"]).fit(frame)


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_frames_of_different_libraries_give_the_same(library: str) -> None:
    frame, other = frame_of("pandas"), frame_of(library)
    encoder = TabularEncoder().fit(frame)
    again = TabularEncoder().fit(other)
    np.testing.assert_array_equal(again.transform(other), encoder.transform(frame))
    np.testing.assert_array_equal(encoder.transform(other), again.transform(frame))


def test_large_strings_of_pyarrow_are_categories() -> None:
    arrow = pytest.importorskip("pyarrow")
    text = arrow.array(["a", "b", "c"], arrow.large_string())
    encoder = TabularEncoder().fit(arrow.table({"text": text}))
    assert encoder.get_feature_names_out().tolist() == ["text_a", "text_b", "text_c"]


def test_set_output() -> None:
    frame = frame_of("pandas")
    encoder = TabularEncoder().set_output(transform="pandas")
    out = encoder.fit_transform(frame)
    assert list(out.columns) == encoder.get_feature_names_out().tolist()
    np.testing.assert_array_equal(out, TabularEncoder().fit_transform(frame))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("auto", "must be 'from_dtype', None or a list of columns, got 'auto'"),
        ([True], r"a bool for each of 2 columns, got shape \(1,\)"),
        ([2], r"there are no columns \[2\]"),
        ([-3], r"there are no columns \[-1\]"),
    ],
)
def test_wrong_columns(columns: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TabularEncoder(categorical_features=columns).fit(np.ones((3, 2)))


def test_missing_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"NaN or inf .* column 1 has nan in row 1"):
        TabularEncoder([0]).fit([[1.0, 2.0], [NAN, NAN]])
    frames = pytest.importorskip("pandas")
    frame = frames.DataFrame({"city": ["a", "b"], "age": [1.0, 2.0]})
    encoder = TabularEncoder().fit(frame)
    with pytest.raises(ValueError, match=r"column 'age' has -inf in row 0"):
        encoder.transform(frame.assign(age=[-np.inf, 2.0]))
    with pytest.raises(NotFittedError):
        TabularEncoder().transform([[1.0]])


@pytest.mark.parametrize(
    ("column", "error", "message"),
    [
        (np.zeros(3, "M8[s]"), TypeError, r"numbers or categories, column 'x' has type datetime64"),
        (np.zeros(3, "m8[s]"), TypeError, r"column 'x' has type timedelta64"),
        (np.zeros(3, complex), TypeError, "column 'x' has type complex128"),
        ([[1], [2], [3]], TypeError, "categories that are single values, column 'x': unhashable"),
        ([], ValueError, "at least one row and one column, got 0 x 1"),
    ],
)
def test_columns_of_other_things(column: Any, error: type[Exception], message: str) -> None:
    frames = pytest.importorskip("pandas")
    with pytest.raises(error, match=message):
        TabularEncoder().fit(frames.DataFrame({"x": column}))


@pytest.mark.parametrize("kind", ["M8[s]", "m8[s]"])
def test_arrays_of_times(kind: str) -> None:
    with pytest.raises(TypeError, match="X must hold numbers or categories, column 0 has type"):
        TabularEncoder().fit(np.zeros((3, 2), kind))


def test_frames_without_columns() -> None:
    frames = pytest.importorskip("pandas")
    with pytest.raises(ValueError, match="at least one row and one column, got 3 x 0"):
        TabularEncoder().fit(frames.DataFrame(index=range(3)))


def test_single_precision_is_kept() -> None:
    x = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    assert TabularEncoder().fit_transform(x).dtype == np.float32
    assert TabularEncoder().fit_transform(x.tolist()).dtype == np.float64
