"""Estimators that take the place of scikit-learn's `MLPClassifier` and `MLPRegressor`."""

try:
    import sklearn  # noqa: F401 - what is missing is said here, once
except ImportError as error:
    raise ImportError(
        'MLPClassifier and MLPRegressor need scikit-learn: pip install "fastmlp[sklearn]"'
    ) from error

from .classifier import MLPClassifier
from .regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
