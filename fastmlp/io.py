"""Model files: a network as one safetensors file.

A file holds one tensor per array of parameters and of running statistics, without padding,
little-endian, under the names of `fastmlp.layout`: ``layers.0.weight`` ``[n_in, n_out]``,
``layers.0.bias`` ``[n_out]``, if there is one ``input_scale`` ``[n_in]`` and, of a hidden layer
that has them, ``slope``, ``gain``, ``shift``, ``running_mean`` and ``running_variance``. What they
mean stands in the header's metadata under the key ``fastmlp``, as JSON::

    {"format": "fastmlp-2", "layer_sizes": [784, 128, 3],
     "activation": [{"name": "elu", "alpha": 1.0, "per_unit": false}],
     "loss": {"name": "softmax_cross_entropy", "label_smoothing": 0.1, "class_weight": null,
              "delta": 1.0, "quantile": 0.5},
     "norm": [{"name": "batch", "epsilon": 1e-05, "momentum": 0.1}],
     "dropout": [0.0, 0.5], "l2": [0.001, 0.0], "l1": [0.0, 0.0], "input_scale": false,
     "dtype": "float32", "seed": 0, "metadata": {}}

It is one entry and not one per field because safetensors writes entries in random order: so equal
networks give equal files, byte for byte. Reading a file runs no code from it.
"""

import dataclasses
import json
import os
import reprlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from . import activations, norms
from ._checks import check_path
from ._files import replace_file
from ._names import check_name
from .activations import Activation
from .architecture import Architecture
from .layout import Layout, Tensor
from .losses import Loss
from .norms import BatchNorm, LayerNorm

if TYPE_CHECKING:
    from .mlp import MLP

__all__ = ["FORMAT", "load", "save"]

FORMAT = "fastmlp-2"
"""Version of the file format; it changes whenever older readers would misread a file."""

HEADER_KEY = "fastmlp"
"""The entry of a file's metadata that describes the network."""

_SAFETENSORS_DTYPES = {"float32": "F32", "float64": "F64"}
_NORMS: dict[str, type[BatchNorm] | type[LayerNorm]] = {"batch": BatchNorm, "layer": LayerNorm}


def save(net: "MLP", path: str | os.PathLike[str]) -> None:
    """Write a network to a file, whole or not at all.

    The content goes to a temporary file in the same folder, which then takes the place of
    `path`. When anything fails the temporary file is removed and `path` is what it was before.
    When it is done, the file is on the disk, as far as the system can tell.

    Parameters
    ----------
    net
        The network to save.
    path
        The file to create or replace; ``.safetensors`` is the usual ending.

    Raises
    ------
    ValueError
        A parameter is NaN or infinite or a running variance negative: the file could not be
        loaded again.
    TypeError
        ``net.metadata`` is not a dictionary of strings.
    OSError
        The file cannot be written, for example because its folder is missing or read-only.

    Examples
    --------
    >>> import tempfile
    >>> import fastmlp as fm
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fm.MLP([4, 8, 3], seed=7).save(f"{folder}/net.safetensors")
    ...     fm.MLP.load(f"{folder}/net.safetensors").layer_sizes
    (4, 8, 3)
    """
    header = header_of(net)
    values = {tensor.name: np.ascontiguousarray(array) for tensor, array in tensors_of(net)}
    content = to_safetensors(values, {HEADER_KEY: header})
    replace_file(path, content)


def header_of(net: "MLP") -> str:
    """Return what describes a network apart from its parameters, as JSON.

    Raises
    ------
    TypeError
        ``net.metadata`` is not a dictionary of strings.
    ValueError
        A parameter is NaN or infinite or a running variance negative.
    """
    header = {"format": FORMAT, **describe(net)}
    check_values({tensor.name: array for tensor, array in tensors_of(net)})
    return to_json(header)


def describe(net: "MLP") -> dict[str, Any]:
    """Return what a header says of a network, see `build`; TypeError if its metadata is no text."""
    if not _is_text_mapping(net.metadata):
        raise TypeError(f"net.metadata must be a dict of str to str, got {net.metadata!r}")
    return {
        "layer_sizes": list(net.layer_sizes),
        "activation": [dataclasses.asdict(activation) for activation in net.activation],
        "loss": dataclasses.asdict(net.loss),
        "norm": [_describe(norm) for norm in net.norm],
        "dropout": list(net.dropout),
        "l2": list(net.l2),
        "l1": list(net.l1),
        "input_scale": net.architecture.input_scale,
        "dtype": net.dtype.name,
        "seed": net.seed,
        "metadata": net.metadata,
    }


def to_json(header: dict[str, Any]) -> str:
    """Return a header as text, equal ones as equal text."""
    return json.dumps(header, sort_keys=True, default=float)


def build(header: dict[str, Any]) -> "MLP":
    """Return the network that `describe` has described, with zeros for parameters.

    Raises TypeError or ValueError if something else has.
    """
    from .mlp import MLP  # which imports this module

    arguments = _arguments_of(header)
    metadata = arguments.pop("metadata")
    net = MLP(**arguments, initializer="zeros")
    net.metadata.update(metadata)
    return net


def load(path: str | os.PathLike[str]) -> "MLP":
    """Read a network from a file that :func:`save` wrote.

    The header, the names, shapes and dtype of all tensors and their values are checked before
    the network is built.

    Parameters
    ----------
    path
        The file to read.

    Returns
    -------
    MLP
        A new network with the saved parameters, bit for bit, and the saved metadata.

    Raises
    ------
    ValueError
        The file is damaged, from another program or of another format version, or its content
        does not fit together. The message names the file and what was found.
    FileNotFoundError
        There is no such file.
    OSError
        The file cannot be read.
    """
    # Imported here: mlp.py imports this module.
    from .mlp import MLP

    path = check_path(path)
    # safe_open reports a folder or a file without permission less clearly than open does.
    with open(path, "rb"):
        pass
    try:
        arguments, values, metadata = _read(path)
        net = MLP(**arguments, initializer="zeros")
    except SafetensorError as error:
        what = f"it is no safetensors file, or damaged ({error})"
        raise ValueError(f"cannot load {path!r} as a network: {what}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"cannot load {path!r} as a network: {error}") from error
    for tensor, view in tensors_of(net):
        view[...] = values[tensor.name]
    net.layout.spread(net.theta)
    net.metadata.update(metadata)
    return net


def tensors_of(net: "MLP") -> Iterator[tuple[Tensor, NDArray[Any]]]:
    """Each tensor of a network, parameters and running statistics, and its view of the values."""
    yield from ((tensor, tensor.view(net.theta)) for tensor in net.layout.tensors)
    yield from ((tensor, tensor.view(net.running)) for tensor in net.layout.running)


def _describe(norm: BatchNorm | LayerNorm | None) -> dict[str, Any] | None:
    if norm is None:
        return None
    name = "batch" if isinstance(norm, BatchNorm) else "layer"
    return {"name": name, **dataclasses.asdict(norm)}


def _read(path: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]], dict[str, str]]:
    """Return the network's arguments, its checked values by name, and its metadata."""
    # Any: the stub of safe_open has no types for its methods.
    opened: Any = safe_open(path, framework="numpy")
    with opened as file:
        header = parse_header(file.metadata())
        metadata = header.pop("metadata")
        layout = Layout.of(
            Architecture(
                header["layer_sizes"],
                header["activation"],
                header["norm"],
                header["dropout"],
                header["l2"],
                header["l1"],
                header["input_scale"],
            ),
            np.dtype(header["dtype"]),
        )
        expected = (*layout.tensors, *layout.running)
        found = {}
        for name in list(file.keys()):
            part = file.get_slice(name)
            found[name] = (part.get_dtype(), tuple(part.get_shape()))
        _check_tensors(found, {t.name: t.shape for t in expected}, header["dtype"])
        values = {tensor.name: file.get_tensor(tensor.name) for tensor in expected}
    check_values(values)
    return header, values, metadata


def _check_tensors(
    found: Mapping[str, tuple[str, tuple[int, ...]]],
    expected: Mapping[str, tuple[int, ...]],
    dtype: str,
) -> None:
    """Compare a file's tensors, safetensors' dtype and shape by name, with a network's shapes."""
    if missing := sorted(expected.keys() - found.keys()):
        raise ValueError(f"tensors are missing: {_first_few(missing)}")
    if surplus := sorted(found.keys() - expected.keys()):
        raise ValueError(f"there are tensors that no layer has: {_first_few(surplus)}")
    wanted_dtype = _SAFETENSORS_DTYPES[dtype]
    for name, shape in expected.items():
        found_dtype, found_shape = found[name]
        if (found_dtype, found_shape) != (wanted_dtype, shape):
            raise ValueError(
                f"tensor {name} must be {wanted_dtype} of shape {shape} to match the header, "
                f"got {found_dtype} of shape {found_shape}"
            )


def check_values(values: Mapping[str, NDArray[Any]]) -> None:
    """Raise ValueError if a number is not finite, or a running variance negative."""
    for name, array in values.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinity")
        if name.endswith("running_variance") and (array < 0).any():
            raise ValueError(f"{name} holds a negative number")


def _first_few(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def parse_header(metadata: dict[str, str] | None) -> dict[str, Any]:
    """Return the arguments of a network and its metadata from those of the file, all checked."""
    if not metadata or HEADER_KEY not in metadata:
        raise ValueError(
            f"its metadata has no entry {HEADER_KEY!r}, so another program wrote the file"
        )
    try:
        header = json.loads(metadata[HEADER_KEY])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the entry {HEADER_KEY!r} is not JSON: {error}") from error
    found = header.pop("format", None) if isinstance(header, dict) else None
    if found != FORMAT:
        raise ValueError(f"its format must be {FORMAT!r}, got {reprlib.repr(found)}")
    return _arguments_of(header)


def _arguments_of(header: dict[str, Any]) -> dict[str, Any]:
    """Return the checked arguments of a network, and its metadata."""
    _check_fields(header)
    hidden = len(header["layer_sizes"]) - 2
    activation = [Activation(**fields) for fields in header["activation"]]
    norm = [_build_norm(fields) for fields in header["norm"]]
    return {
        **header,
        "activation": activations.resolve(activation, hidden),
        "loss": Loss(**header["loss"]),
        "norm": norms.resolve(norm, hidden),
    }


def _check_fields(header: dict[str, Any]) -> None:
    if wrong := sorted(header.keys() ^ _FIELDS.keys()):
        raise ValueError(f"fields of its header are missing or unknown: {_first_few(wrong)}")
    for field, (requirement, is_valid) in _FIELDS.items():
        if not is_valid(header[field]):
            raise ValueError(
                f"{field} in its header must be {requirement}, got {reprlib.repr(header[field])}"
            )


def _build_norm(fields: dict[str, Any] | None) -> BatchNorm | LayerNorm | None:
    if fields is None:
        return None
    name, settings = fields["name"], {k: v for k, v in fields.items() if k != "name"}
    return _NORMS[check_name(name, "norm", _NORMS)](**settings)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)  # JSON's true is no number


def _is_sizes(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) >= 2
        and all(_is_int(size) and size > 0 for size in value)
    )


def _is_text_mapping(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(text, str) for key, text in value.items()
    )


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _is_described(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("name"), str)


def _are_described(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_described, value))


def _are_norms(value: object) -> bool:
    return isinstance(value, list) and all(norm is None or _is_described(norm) for norm in value)


_FIELDS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "layer_sizes": ("a list of at least two positive integers", _is_sizes),
    "activation": ("a list of objects with a name", _are_described),
    "loss": ("an object with a name", _is_described),
    "norm": ("a list of objects with a name or nulls", _are_norms),
    "dropout": ("a list of numbers", _is_list),
    "l2": ("a list of numbers", _is_list),
    "l1": ("a list of numbers", _is_list),
    "input_scale": ("true or false", lambda value: isinstance(value, bool)),
    "dtype": ("float32 or float64", lambda value: value in ("float32", "float64")),
    "seed": ("an integer", _is_int),
    "metadata": ("an object of texts", _is_text_mapping),
}
"""What a header must hold: field, requirement in words, check."""
