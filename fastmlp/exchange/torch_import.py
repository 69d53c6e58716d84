"""A network from PyTorch: an ``nn.Sequential``, or a state dict and the names of activations."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ..activations import Activation
from ..activations import resolve as resolve_activations
from ..losses import Loss
from ..losses import resolve as resolve_loss
from ..norms import BatchNorm, LayerNorm
from .chain import Chain

if TYPE_CHECKING:
    from ..mlp import MLP

__all__ = ["from_torch"]

Array = NDArray[Any]
Group = dict[str, Array]
EPSILON = 1e-5  # PyTorch's of norms, which a state dict does not hold
HEADS = {
    "Softmax": "softmax_cross_entropy",
    "LogSoftmax": "softmax_cross_entropy",
    "Sigmoid": "binary_cross_entropy",
}
PLAIN = {  # modules without settings
    "ReLU": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "SELU": "selu",
    "SiLU": "silu",
    "Mish": "mish",
}


def from_torch(
    source: Any,
    *,
    activation: str | Activation | Sequence[str | Activation] | None = None,
    loss: str | Loss | None = None,
) -> "MLP":
    """Return PyTorch's network as an `MLP`: the same predictions in evaluation, up to rounding.

    Parameters
    ----------
    source
        An ``nn.Sequential`` of ``Linear``, ``BatchNorm1d``, ``LayerNorm``, ``Dropout``,
        ``Flatten``, ``Identity``, other ``Sequential`` and ``ReLU``, ``Sigmoid``, ``Tanh``,
        ``Softplus``, ``LeakyReLU``, ``PReLU``, ``ELU``, ``SELU``, ``GELU``, ``SiLU`` and ``Mish``
        in any order, last perhaps ``Softmax`` or ``LogSoftmax``.

        Or a state dict, of tensors or arrays, or a ``.safetensors`` file of one, as
        ``safetensors.torch.save_file`` writes. Layers are in the order of their numbers; where
        names have none, in that of the dict. A norm comes between a linear layer and its
        activation, and has the epsilon 1e-5. A ``.pt`` or ``.pth`` file is a pickle, which can run
        code, and is not read: ``torch.load(file, weights_only=True)`` gives its state dict.
    activation
        Of a state dict, which does not tell: one for all hidden layers, or one for each.
    loss
        The loss of the network. By default "softmax_cross_entropy" or "binary_cross_entropy" if an
        ``nn.Sequential`` ends in ``Softmax``, ``LogSoftmax`` or ``Sigmoid``, else "squared_error".
        A ``Sigmoid`` at the end of a network that has another loss is an activation.

    Returns
    -------
    MLP
        A network of its own, float64 if one of the tensors is, else float32.

    Raises
    ------
    TypeError
        The source is none of these, or activations are missing or given twice.
    ValueError
        A module has no counterpart here, the layers do not fit together, or a number is not
        finite. The message names the module or the tensor.
    OSError
        The file cannot be read.

    Notes
    -----
    ``nn.Softplus`` is the identity above 20, which here is ln(1 + e^z): they differ by 2e-9.

    References
    ----------
    https://docs.pytorch.org/docs/stable/nn.html

    Examples
    --------
    >>> import numpy as np
    >>> state = {
    ...     "0.weight": np.ones((3, 2)),
    ...     "0.bias": np.zeros(3),
    ...     "2.weight": np.ones((1, 3)),
    ...     "2.bias": np.zeros(1),
    ... }
    >>> from_torch(state, activation="tanh")
    MLP([2, 3, 1], activation=['tanh'], loss='squared_error', dtype='float64', seed=0)
    """
    if isinstance(source, (str, os.PathLike)):
        state = _read(os.fspath(source))
        return _from_state(_groups(state, keeps_order=False), activation, loss)
    if isinstance(source, Mapping):
        state = {str(name): _array(tensor) for name, tensor in source.items()}
        return _from_state(_groups(state, keeps_order=True), activation, loss)
    if _kind(source) != "Sequential":
        raise TypeError(
            "source must be an nn.Sequential, a state dict or the path of a .safetensors file, "
            f"got {source!r}"
        )
    if activation is not None:
        raise TypeError("activation is for a state dict: an nn.Sequential has its own")
    return _from_modules(list(_modules(source)), loss)


# --- an nn.Sequential


def _kind(module: Any) -> str:
    """The name of PyTorch's class; that of a subclass, which may do anything, with its module."""
    cls = type(module)
    if cls.__module__.startswith("torch.nn.modules."):
        return cls.__name__
    return f"{cls.__module__}.{cls.__qualname__}"


def _modules(sequential: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for number, module in enumerate(sequential):  # named_children() gives none of them twice
        if _kind(module) == "Sequential":
            yield from _modules(module, f"{prefix}{number}.")
        else:
            yield f"{prefix}{number}", module


def _from_modules(modules: list[tuple[str, Any]], loss: str | Loss | None) -> "MLP":
    wanted = None if loss is None else resolve_loss(loss)
    head = HEADS.get(_kind(modules[-1][1])) if modules else None
    if head is not None and (wanted is None or wanted.name == head):
        modules = modules[:-1]
        wanted = wanted or Loss(head)
    chain = Chain()
    for name, module in modules:
        try:
            _add_module(chain, module)
        except ValueError as error:
            raise ValueError(f"module {name!r}, {module}: {error}") from None
    return chain.network(wanted or "squared_error")


def _add_module(chain: Chain, module: Any) -> None:
    kind = _kind(module)
    if kind == "Linear":
        chain.linear(_array(module.weight).T, _optional(module.bias))
    elif kind == "BatchNorm1d":
        if module.running_mean is None:
            raise ValueError("it has no running statistics to predict with")
        momentum = BatchNorm.momentum if module.momentum is None else module.momentum
        statistics = {"mean": module.running_mean, "variance": module.running_var}
        running = {f"running_{kind}": _array(tensor) for kind, tensor in statistics.items()}
        arrays = {**running, **_affine(module)}
        chain.norm(BatchNorm(module.eps, momentum), module.num_features, **arrays)
    elif kind == "LayerNorm":
        if len(module.normalized_shape) != 1:
            raise ValueError("it must normalise over the last axis alone")
        chain.norm(LayerNorm(module.eps), module.normalized_shape[0], **_affine(module))
    elif kind == "Dropout":
        chain.dropout(module.p)
    elif kind == "PReLU":
        slope = _array(module.weight)
        chain.activation(Activation("prelu", per_unit=slope.size > 1), slope)
    elif kind == "Flatten" and (module.start_dim, module.end_dim) == (1, -1) and not chain.layers:
        pass  # rows are rows already
    elif kind != "Identity":
        chain.activation(_activation(kind, module))


def _activation(kind: str, module: Any) -> Activation:
    if kind in PLAIN:
        return Activation(PLAIN[kind])
    if kind == "LeakyReLU":
        return Activation("leaky_relu", alpha=module.negative_slope)
    if kind == "ELU":
        return Activation("elu", alpha=module.alpha)
    if kind == "GELU":
        return Activation("gelu_tanh" if module.approximate == "tanh" else "gelu")
    if kind == "Softplus" and module.beta == 1:
        return Activation("softplus")
    raise ValueError("there is no counterpart")


def _affine(module: Any) -> Group:
    """Gain and shift of a norm, as far as it has them."""
    given = {"gain": _optional(module.weight), "shift": _optional(module.bias)}
    return {kind: array for kind, array in given.items() if array is not None}


def _optional(tensor: Any) -> Array | None:
    return None if tensor is None else _array(tensor)


def _array(tensor: Any) -> Array:
    """The numbers of a tensor, or an array itself; of less than float32, as float32."""
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        tensor = (tensor.float() if tensor.element_size() < 4 else tensor).numpy()
    return np.asarray(tensor)


# --- a state dict


def _read(path: str) -> dict[str, Array]:
    with open(path, "rb"):  # a missing file is an OSError with its name
        pass
    try:
        return load_file(path)
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"cannot load {path!r} as a .safetensors file of numbers: {error}. A pickle (.pt, "
            ".pth) is not read: pass torch.load(file, weights_only=True)"
        ) from error


def _groups(state: Mapping[str, Array], keeps_order: bool) -> list[tuple[str, Group]]:
    """The tensors by module, in the modules' order."""
    groups: dict[str, Group] = {}
    for name, array in state.items():
        module, _, kind = name.rpartition(".")
        groups.setdefault(module, {})[kind] = array
    names = list(groups)
    if len({re.sub(r"\d+", "#", name) for name in names}) == 1:  # they differ in numbers alone
        names.sort(key=lambda name: [int(digits) for digits in re.findall(r"\d+", name)])
    elif not keeps_order:
        raise ValueError(
            f"the order of the layers cannot be told from the names {', '.join(sorted(names))}: "
            "pass a dict in their order"
        )
    return [(name, groups[name]) for name in names]


def _from_state(
    groups: list[tuple[str, Group]],
    activation: str | Activation | Sequence[str | Activation] | None,
    loss: str | Loss | None,
) -> "MLP":
    count = sum(_is_linear(group) for _, group in groups)
    if activation is None and count > 1:
        raise TypeError("activation must be given with a state dict, which does not tell it")
    functions = resolve_activations(activation or [], max(count - 1, 0))
    chain, done, slope, previous = Chain(), 0, None, None
    for name, group in groups:
        try:
            if _is_linear(group):
                if done > 0:
                    chain.activation(*_with_slope(functions[done - 1], slope))
                chain.linear(group["weight"].T, group.get("bias"))
                done, slope = done + 1, None
            elif group.keys() == {"weight"}:
                if not 0 < done < count or functions[done - 1].name != "prelu":
                    raise ValueError("this is the slope of a PReLU, but activation has none here")
                slope = group["weight"]
            else:
                if previous is not None:
                    _check_place(previous, name)
                _add_norm(chain, group)
        except ValueError as error:
            raise ValueError(f"tensors {name}.*: {error}") from None
        previous = name
    return chain.network(loss or "squared_error")


def _is_linear(group: Group) -> bool:
    return group.keys() <= {"weight", "bias"} and np.ndim(group.get("weight", 0.0)) == 2


def _with_slope(activation: Activation, slope: Array | None) -> tuple[Activation, Array | None]:
    if slope is None:
        return activation, None
    return Activation("prelu", per_unit=slope.size > 1), slope


def _add_norm(chain: Chain, group: Group) -> None:
    kinds = group.keys() - {"num_batches_tracked"}
    statistics = kinds - {"weight", "bias"}
    if not kinds or statistics not in (set(), {"running_mean", "running_var"}):
        raise ValueError(f"no module that is known has {', '.join(sorted(group))}")
    names = {"weight": "gain", "bias": "shift", "running_var": "running_variance"}
    arrays = {names.get(kind, kind): group[kind] for kind in kinds}
    width = next(iter(arrays.values())).size
    chain.norm(BatchNorm(EPSILON) if statistics else LayerNorm(EPSILON), width, **arrays)


def _check_place(previous: str, name: str) -> None:
    """Raise ValueError if a norm's number is not the next one: something else is between."""
    before, here = ([int(n) for n in re.findall(r"\d+", text)] for text in (previous, name))
    is_counted = re.sub(r"\d+", "#", previous) == re.sub(r"\d+", "#", name)
    if is_counted and before[:-1] == here[:-1] and here[-1] != before[-1] + 1:
        raise ValueError(
            f"the state dict does not tell what is between {previous} and {name}: "
            "pass the nn.Sequential"
        )
