"""Names of the activation functions of hidden layers."""

from collections.abc import Sequence

from ._checks import check_sequence
from .kernels import activation

NAMES = tuple(activation.CODES)


def resolve(activation: str | Sequence[str], hidden_layers: int) -> tuple[str, ...]:
    """Return one name for each hidden layer.

    ======== ===================================== ==========================
    name     a = f(z)                              f'(z), from the output a
    ======== ===================================== ==========================
    identity z                                     1
    relu     max(z, 0)                             1 if a > 0 else 0
    sigmoid  1 / (1 + exp(-z))                     a (1 - a)
    tanh     tanh(z)                               1 - a**2
    softplus max(z, 0) + log1p(exp(-abs(z)))       1 - exp(-a)
    ======== ===================================== ==========================

    Raises
    ------
    ValueError
        If a name is unknown, or there are not as many names as hidden layers.
    """
    given = (
        (activation,) if isinstance(activation, str) else check_sequence(activation, "activation")
    )
    for name in given:
        if name not in NAMES:
            raise ValueError(f"activation must be one of {', '.join(NAMES)}, got {name!r}")
    names = given * hidden_layers if isinstance(activation, str) else given
    if len(names) != hidden_layers:
        raise ValueError(
            f"activation must be one name, or one for each of the {hidden_layers} hidden layers, "
            f"got {len(names)} names"
        )
    return names
