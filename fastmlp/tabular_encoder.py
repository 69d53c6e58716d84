"""From a table to the inputs of a network: one-hot, robust scaling and smooth clipping.

A transformer of scikit-learn's, after the preprocessing of RealMLP [1]_.

References
----------
.. [1] D. Holzmüller, L. Grinsztajn, I. Steinwart: Better by default: strong pre-tuned MLPs and
   boosted trees on tabular data. NeurIPS 2024.
"""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils.validation import (
        _check_feature_names,
        _check_feature_names_in,
        _check_n_features,
        check_is_fitted,
        validate_data,
    )
except ImportError as error:
    raise ImportError(
        'TabularEncoder needs scikit-learn: pip install "fastmlp[sklearn]"'
    ) from error

from ._arrays import columns_of, type_of

__all__ = ["TabularEncoder"]

Array = NDArray[Any]
CLIP = 3.0
# Beginnings of the names of types: of pandas, polars and pyarrow.
CATEGORICAL_DTYPES = ("categor", "enum", "object", "str", "large_str", "dictionary")


class TabularEncoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Encode categories as numbers, then scale every column robustly and bound it smoothly.

    - A category column becomes a column for each category, 1 for it and 0 else; with two categories
      one column, 1 for the first and -1 for the second. What is missing, or was not there in `fit`,
      is 0 everywhere.
    - x <- (x - median) / (q_75 - q_25), quantiles of the column. If these are equal, the divisor
      is half of max - min; a constant column becomes 0.
    - x <- x / sqrt(1 + (x / 3)**2), which stays within -3 and 3.

    Parameters
    ----------
    categorical_features
        Which columns hold categories: "from_dtype" (of a data frame those of text, objects or
        categories, of an array none), None for none, or a list of numbers, of names or of bools.

    Attributes
    ----------
    categories_
        For each input column its sorted categories, None if it holds numbers.
    medians_, factors_
        Of each encoded column: what is subtracted, and what the rest is multiplied by.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Raises
    ------
    TypeError, ValueError
        If `categorical_features` names no columns, or a column of numbers holds something else;
        missing numbers must be filled in before.

    Examples
    --------
    >>> X = np.array([[1.0, 0], [2.0, 1], [3.0, 2], [50.0, 1]])
    >>> TabularEncoder(categorical_features=[1]).fit_transform(X).round(2)
    array([[-0.12,  2.4 , -0.49,  0.  ],
           [-0.04,  0.  ,  0.49,  0.  ],
           [ 0.04,  0.  , -0.49,  2.4 ],
           [ 2.32,  0.  ,  0.49,  0.  ]])
    """

    def __init__(self, categorical_features: Any = "from_dtype") -> None:
        self.categorical_features = categorical_features

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Learn categories, medians and factors from X [n, features].

        An array, a frame of pandas or polars, or a table of pyarrow.
        """
        columns, is_categorical = self._columns(X, reset=True)
        self.categories_ = [
            _categories(column, name) if named else None
            for name, column, named in zip(self._names(), columns, is_categorical, strict=True)
        ]
        encoded = self._encode(columns)
        self.medians_ = np.median(encoded, axis=0)
        low, high = np.quantile(encoded, (0.25, 0.75), axis=0)
        half_range = (encoded.max(axis=0) - encoded.min(axis=0)) / 2
        spread = np.where(high > low, high - low, half_range)
        self.factors_ = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
        return self

    def transform(self, X: ArrayLike) -> Array:
        """Return the encoded table [n, encoded columns]: float32 if X is, else float64."""
        check_is_fitted(self)
        columns, _ = self._columns(X, reset=False)
        x: Array = (self._encode(columns) - self.medians_) * self.factors_
        x /= np.sqrt(1.0 + (x / CLIP) ** 2)
        is_single = getattr(X, "dtype", None) == np.float32
        return x.astype(np.float32) if is_single else x

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> Array:
        """Return the names of the encoded columns: of a category's, column_category."""
        check_is_fitted(self)
        names = _check_feature_names_in(self, input_features)
        encoded = []
        for name, categories in zip(names, self.categories_, strict=True):
            if categories is None or len(categories) == 2:
                encoded.append(str(name))
            else:
                encoded += [f"{name}_{category}" for category in categories]
        return np.array(encoded, dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = self.categorical_features is not None
        tags.input_tags.string = self.categorical_features is not None
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _columns(self, X: Any, *, reset: bool) -> tuple[list[Array], list[bool]]:
        """The columns of a table, and which of them hold categories."""
        if hasattr(X, "columns") and hasattr(X, "__getitem__"):
            _check_feature_names(self, X, reset=reset)
            _check_n_features(self, X, reset=reset)
            named = columns_of(X)
            if not named or len(X) == 0:
                raise ValueError(
                    f"X must have at least one row and one column, got {len(X)} x {len(named)}"
                )
            names = [name for name, _ in named]
            dtypes = [type_of(column).lower() for _, column in named]
            columns = [np.asarray(column) for _, column in named]
        else:
            X = validate_data(self, X, dtype=None, reset=reset, ensure_all_finite=False)
            names, dtypes = list(range(X.shape[1])), [""] * X.shape[1]
            columns = list(X.T)
        if not reset:
            return columns, [categories is not None for categories in self.categories_]
        return columns, self._which(names, dtypes)

    def _which(self, names: list[Any], dtypes: list[str]) -> list[bool]:
        """Which columns hold categories, as `categorical_features` says."""
        given = self.categorical_features
        if given is None:
            return [False] * len(names)
        if isinstance(given, str):
            if given != "from_dtype":
                raise ValueError(
                    "categorical_features must be 'from_dtype', None or a list of columns, "
                    f"got {given!r}"
                )
            return [dtype.startswith(CATEGORICAL_DTYPES) for dtype in dtypes]
        which = np.asarray(given)
        if which.dtype == bool:
            if which.shape != (len(names),):
                raise ValueError(
                    f"categorical_features must be a bool for each of {len(names)} columns, "
                    f"got shape {which.shape}"
                )
            return [bool(flag) for flag in which]
        wanted = which.tolist()
        if which.dtype.kind in "iu":
            names = list(range(len(names)))
            wanted = [i + len(names) if i < 0 else i for i in wanted]
        if unknown := [name for name in wanted if name not in names]:
            raise ValueError(f"categorical_features: there are no columns {unknown}")
        return [name in wanted for name in names]

    def _names(self) -> Any:
        """What the columns are called: names, or numbers from 0."""
        return getattr(self, "feature_names_in_", range(self.n_features_in_))

    def _encode(self, columns: list[Array]) -> Array:
        """The columns as numbers [n, encoded columns], each beside the ones it became."""
        parts = [
            _numbers(column, name) if categories is None else _one_hot(column, categories)
            for name, column, categories in zip(
                self._names(), columns, self.categories_, strict=True
            )
        ]
        return np.hstack(parts)


def _numbers(column: Array, name: Any) -> Array:
    """[n, 1] in float64; TypeError or ValueError if it is not of finite numbers."""
    if column.dtype.kind in "cmMV" or column.ndim != 1:
        what = f"type {column.dtype}" if column.ndim == 1 else f"arrays of shape {column.shape[1:]}"
        raise TypeError(f"X must hold numbers or categories, column {name!r} has {what}")
    try:
        numbers = column.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"X must hold numbers or categories, column {name!r}: {error}") from error
    wrong = ~np.isfinite(numbers)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            "X must not hold NaN or inf in columns of numbers, "
            f"column {name!r} has {numbers[row]} in row {row}"
        )
    return numbers[:, np.newaxis]


def _categories(column: Array, name: Any) -> Array:
    """The different values of a column in order, what is missing left out."""
    try:
        found = {value for value in column.tolist() if not _is_missing(value)}
    except TypeError as error:  # lists
        message = f"X must have categories that are single values, column {name!r}: {error}"
        raise TypeError(message) from error
    try:
        ordered = sorted(found)
    except TypeError:  # of several types
        ordered = sorted(found, key=lambda value: (type(value).__name__, str(value)))
    categories: Array = np.empty(len(ordered), dtype=object)
    categories[:] = ordered
    return categories


def _one_hot(column: Array, categories: Array) -> Array:
    """[n, categories], or [n, 1] for two of them."""
    number = {value: i for i, value in enumerate(categories)}
    codes = np.array([number.get(value, -1) for value in column.tolist()], dtype=np.int64)
    if len(categories) == 2:
        return np.array([1.0, -1.0, 0.0])[codes][:, np.newaxis]
    one_hot: Array = (codes[:, np.newaxis] == np.arange(len(categories))).astype(np.float64)
    return one_hot


def _is_missing(value: Any) -> bool:
    """Whether it is None, NaN, or what pandas has for missing."""
    is_nan = isinstance(value, float) and value != value
    return value is None or is_nan or type(value).__name__ in ("NAType", "NaTType")
