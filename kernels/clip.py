"""Clipping of a gradient by its norm: of each tensor, or of all parameters together.

R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks" (ICML
2013). Sums of squares are taken over fixed chunks of the flat gradient and added in their order, so
they do not depend on the number of threads.
"""

import math

from ._jit import kernel
from .plan import TENSOR_COPIES, TENSOR_LENGTH, TENSOR_OFFSET
from .simd import matrix, square_sum

NONE, EACH, ALL = range(3)
CHUNK = 8192  # elements of a sum: whole cache lines


@kernel
def sum_of_squares(g):
    """Sum of g**2 in float64, row by row, each lane by lane."""
    total = 0.0
    for i in range(g.shape[0]):
        total += square_sum(g, i)
    return total


@kernel
def measure(plan, work, gradient, threads):
    """Sum of squares of each chunk of each tensor, this thread's, to work.norms."""
    number = 0
    for tensor in plan.tensors:
        for low in range(0, tensor[TENSOR_LENGTH], CHUNK):
            if number % threads == work.member:
                length = min(CHUNK, tensor[TENSOR_LENGTH] - low)
                g = matrix(gradient, tensor[TENSOR_OFFSET] + low, 1, length, length)
                work.norms[number] = sum_of_squares(g) / tensor[TENSOR_COPIES]
            number += 1


@kernel
def factor(norms, limit):
    """What to multiply a gradient by, so that the root of the sum of `norms` is at most `limit`."""
    squares = 0.0
    for square in norms:
        squares += square
    norm = math.sqrt(squares)
    return limit / norm if norm > limit else 1.0
