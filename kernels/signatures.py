"""The argument types of the compiled entry, one set for each dtype."""

from functools import cache
from typing import Any

import numpy as np
from numba import typeof

from .optimizer import Parameters
from .plan import COLUMNS, Plan, Samples, Workspace
from .program import Job


@cache
def argument_types(dtype: Any) -> tuple[Any, ...]:
    """Numba types of the arguments of `program.run` for float32 or float64."""
    vector, matrix = np.zeros(1, dtype), np.zeros((1, 1), dtype)
    integers, scores = np.zeros(1, np.int64), np.zeros((1, 1))
    plan = Plan(np.zeros((1, COLUMNS), np.int64), *[0] * (len(Plan._fields) - 1))
    work = Workspace(0, vector, vector, integers, scores)
    samples = Samples(matrix, integers, matrix, integers)
    arguments = (
        Job(*[0] * len(Job._fields)),
        plan,
        work,
        Parameters(*[vector] * 4),
        scores[0],
        samples,
        integers,
        plan,
        work,
        samples,
        matrix,
        scores,
        scores,
        integers,
    )
    return tuple(typeof(argument) for argument in arguments)
