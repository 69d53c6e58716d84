"""Compare preset="tabular" with other defaults on the tables that come with scikit-learn.

python benchmarks/tables.py [--splits 10] [--only iris,wine] [--write docs/tables.md]

For each data set and each split, the same for all, a quarter is the test set, by class if there
are classes: accuracy of a classifier, R² of a regressor. Nothing is tuned, nothing is downloaded.
"""

import argparse
import platform
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn import datasets
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.multioutput import MultiOutputRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastmlp as fm

CLASSIFICATION = ("iris", "wine", "breast_cancer", "digits")
REGRESSION = ("diabetes", "linnerud")
HEADING = "## Against other defaults"

Make = Callable[[bool, int], Any]
MODELS: dict[str, Make] = {
    'fastmlp, `preset="tabular"`': lambda classes, seed: (
        fm.MLPClassifier if classes else fm.MLPRegressor
    )(preset="tabular", random_state=seed),
    "fastmlp, default": lambda classes, seed: (fm.MLPClassifier if classes else fm.MLPRegressor)(
        random_state=seed
    ),
    "scikit-learn's MLP, default": lambda classes, seed: (
        MLPClassifier if classes else MLPRegressor
    )(random_state=seed),
    "the same, inputs standardised": lambda classes, seed: make_pipeline(
        StandardScaler(), (MLPClassifier if classes else MLPRegressor)(random_state=seed)
    ),
    "HistGradientBoosting": lambda classes, seed: (
        HistGradientBoostingClassifier(random_state=seed)
        if classes
        else MultiOutputRegressor(HistGradientBoostingRegressor(random_state=seed))
    ),
}


def scores(name: str, splits: int) -> dict[str, list[float]]:
    """The score of each model on each split of a data set."""
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    classes = name in CLASSIFICATION
    columns = y if classes or y.ndim == 2 else y[:, np.newaxis]  # as `MultiOutputRegressor` wants
    found: dict[str, list[float]] = {model: [] for model in MODELS}
    for seed in range(splits):
        X_train, X_test, y_train, y_test = train_test_split(
            X, columns, test_size=0.25, random_state=seed, stratify=y if classes else None
        )
        for model, make in MODELS.items():
            begin = time.perf_counter()
            flat = y_train.shape[1:] == (1,) and model != "HistGradientBoosting"
            fitted = make(classes, seed).fit(X_train, y_train.ravel() if flat else y_train)
            found[model].append(float(fitted.score(X_test, y_test)))
            seconds = time.perf_counter() - begin
            print(f"{name} {seed} {model}: {found[model][-1]:.4f} ({seconds:.1f} s)", flush=True)
    return found


def table(results: dict[str, dict[str, list[float]]]) -> str:
    """Means and standard deviations over the splits, a row for each model, and the mean of all."""
    head = [*(name.replace("_", " ") for name in results), "mean"]
    lines = ["| | " + " | ".join(head) + " |", "|---|" + "---:|" * len(head)]
    for model in MODELS:
        values = np.array([of_models[model] for of_models in results.values()])
        spreads = values.std(axis=1, ddof=1)
        cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(values.mean(axis=1), spreads, strict=True)]
        lines.append(f"| {model} | " + " | ".join([*cells, f"{values.mean():.3f}"]) + " |")
    return "\n".join(lines)


def section(results: dict[str, dict[str, list[float]]], splits: int) -> str:
    """What docs/tables.md says about them."""
    groups = [
        ("Accuracy", {n: r for n, r in results.items() if n in CLASSIFICATION}),
        ("R²", {n: r for n, r in results.items() if n in REGRESSION}),
    ]
    parts = [
        HEADING,
        "The data sets that come with scikit-learn, a quarter of each for the test: mean over "
        f"{splits} random\nsplits, the same for all, ± their standard deviation. Nobody's settings "
        "were tuned. `nox -s tables` writes\nthis section.",
    ]
    for measure, of_sets in groups:
        if of_sets:
            parts.append(f"{measure}:\n\n{table(of_sets)}")
    parts.append(
        f"scikit-learn {sklearn.__version__}, NumPy {np.__version__}, Python "
        f"{platform.python_version()}."
    )
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--only", default=",".join((*CLASSIFICATION, *REGRESSION)))
    parser.add_argument("--write", type=Path, help="the page whose last section is replaced")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    results = {name: scores(name, arguments.splits) for name in arguments.only.split(",")}
    text = section(results, arguments.splits)
    sys.stdout.write(text)
    if arguments.write:
        page = arguments.write.read_text(encoding="utf-8")
        before, _, after = page.partition(HEADING)
        following = after.find("\n## ")
        rest = "" if following < 0 else after[following:]
        arguments.write.write_text(before + text + rest, encoding="utf-8")


if __name__ == "__main__":
    main()
