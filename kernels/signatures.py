"""The argument types of the compiled entry, one set for each dtype."""

from functools import cache
from typing import Any

import numpy as np
from numba import typeof

from .loss import Objective
from .optimizer import Parameters
from .plan import COLUMNS, Plan, Samples, Workspace
from .program import Job


@cache
def argument_types(dtype: Any) -> tuple[Any, ...]:
    """Numba types of the arguments of `program.run` for float32 or float64."""
    vector, matrix = np.zeros(1, dtype), np.zeros((1, 1), dtype)
    integers, floats, table = np.zeros(1, np.int64), np.zeros(1), np.zeros((1, 1))
    tables = np.zeros((1, COLUMNS), np.int64), table, np.zeros((1, 1), np.int64)
    plan = Plan(*tables, *[0] * (len(Plan._fields) - len(tables)))
    step, lists = (integers, table, table, floats), (integers, integers, integers)
    work = Workspace(0, 0, vector, vector, vector, *step, *lists)
    samples = Samples(matrix, integers, matrix, floats, integers)
    job = Job(**{name: kind() for name, kind in Job.__annotations__.items()})
    arguments = (
        job,
        Objective(0, 0.0, 0.0, floats, floats),
        plan,
        work,
        Parameters(*[vector] * 5),
        floats,
        table,
        samples,
        integers,
        plan,
        work,
        samples,
        matrix,
        table,
        table,
        integers,
    )
    return tuple(typeof(argument) for argument in arguments)
