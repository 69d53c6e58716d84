"""Names of the losses, and what they are."""

from .kernels import loss as kernel_loss

NAMES = tuple(kernel_loss.CODES)


def resolve(loss: str) -> str:
    """Return the name if it is one of these losses, all of them means over the n samples.

    ======================= ============================ ====================================
    name                    loss of one sample           its gradient by the outputs z
    ======================= ============================ ====================================
    softmax_cross_entropy   ln sum_k exp(z_k) - z_y      softmax(z) - onehot(y)
    squared_error           ||z - y||**2                 2 (z - y)
    half_squared_error      ||z - y||**2 / 2             z - y
    ======================= ============================ ====================================

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    if loss not in NAMES:
        raise ValueError(f"loss must be one of {', '.join(NAMES)}, got {loss!r}")
    return loss


def is_classification(loss: str) -> bool:
    """Whether the targets of a loss are class labels."""
    return loss == "softmax_cross_entropy"
