"""The argument types of the compiled entry, one set for each dtype."""

from functools import cache
from typing import Any

import numpy as np
from numba import typeof

from .network import COLUMNS, Job, Plan, Samples, Workspace
from .optimizer import Parameters


@cache
def argument_types(dtype: Any) -> tuple[Any, ...]:
    """Numba types of the arguments of `network.run` for float32 or float64."""
    vector, matrix = np.zeros(1, dtype), np.zeros((1, 1), dtype)
    integers, scores = np.zeros(1, np.int64), np.zeros((1, 1))
    plan = Plan(np.zeros((1, COLUMNS), np.int64), *[0] * (len(Plan._fields) - 1))
    work = Workspace(vector, vector, integers, scores)
    samples = Samples(matrix, integers, matrix, integers)
    arguments = (
        Job(*[0] * len(Job._fields)), plan, work, Parameters(*[vector] * 4), scores[0], samples,
        integers, 0, plan, work, samples, matrix, scores, scores, integers, 0, 0,
    )  # fmt: skip
    return tuple(typeof(argument) for argument in arguments)
