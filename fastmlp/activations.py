"""Names of the activation functions of hidden layers."""

from collections.abc import Sequence

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
    names = (activation,) * hidden_layers if isinstance(activation, str) else tuple(activation)
    known = ", ".join(NAMES)
    for name in (activation,) if isinstance(activation, str) else names:
        if name not in NAMES:
            raise ValueError(f"activation must be one of {known}, got {name!r}")
    if len(names) != hidden_layers:
        raise ValueError(
            f"activation must be one name, or one for each of the {hidden_layers} hidden layers, "
            f"got {len(names)} names"
        )
    return names
