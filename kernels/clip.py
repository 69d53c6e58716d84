"""Clipping of a gradient by its norm: of each tensor, or of all parameters together.

R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks" (ICML
2013). Sums of squares are taken over fixed chunks of the flat gradient and added in their order, so
they do not depend on the number of threads.
"""

import math

from ._jit import kernel
from .plan import TENSOR_COPIES, TENSOR_LENGTH, TENSOR_OFFSET
from .simd import matrix, square_sum
from .team import share

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
    """Sum of squares of each chunk of each tensor, this thread's, to work.norms.

    Its chunks lie side by side, so most are of what it has written itself.
    """
    first = 0
    for tensor in plan.tensors:
        chunks = (tensor[TENSOR_LENGTH] + CHUNK - 1) // CHUNK
        low, high = share(chunks, 1, work.member, threads)
        for chunk in range(low, high):
            length = min(CHUNK, tensor[TENSOR_LENGTH] - chunk * CHUNK)
            g = matrix(gradient, tensor[TENSOR_OFFSET] + chunk * CHUNK, 1, length, length)
            work.norms[first + chunk] = sum_of_squares(g) / tensor[TENSOR_COPIES]
        first += chunks


@kernel
def factor(norms, limit):
    """What to multiply a gradient by, so that the root of the sum of `norms` is at most `limit`."""
    squares = 0.0
    for square in norms:
        squares += square
    norm = math.sqrt(squares)
    return limit / norm if norm > limit else 1.0
