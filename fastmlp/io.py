"""Model files: a network as one safetensors file.

A file holds one tensor per weight and bias, ``layers.0.weight`` ``[n_in, n_out]`` and
``layers.0.bias`` ``[n_out]`` and so on: the true parameters without padding, little-endian.
What the parameters mean stands in the header's metadata under the key ``fastmlp``, as JSON::

    {"format": "fastmlp-1", "layer_sizes": [784, 128, 3], "activations": ["softplus"],
     "loss": "softmax_cross_entropy", "dtype": "float32", "seed": 0, "metadata": {}}

It is one entry and not one per field because safetensors writes entries in random order: so equal
networks give equal files, byte for byte. Reading a file runs no code from it.
"""

import contextlib
import itertools
import json
import os
import reprlib
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

if TYPE_CHECKING:
    from .mlp import MLP

__all__ = ["FORMAT", "load", "save"]

FORMAT = "fastmlp-1"
"""Version of the file format; it changes whenever older readers would misread a file."""

_HEADER_KEY = "fastmlp"
_SAFETENSORS_DTYPES = {"float32": "F32", "float64": "F64"}

_Tensors = Mapping[str, tuple[str, tuple[int, ...]]]
"""Tensors of a file by name: safetensors' name of the dtype, and the shape."""


def save(net: "MLP", path: str | os.PathLike[str]) -> None:
    """Write a network to a file, whole or not at all.

    The content goes to a temporary file in the same folder, which then takes the place of
    `path`. When anything fails the temporary file is removed and `path` is what it was before.

    Parameters
    ----------
    net
        The network to save.
    path
        The file to create or replace; ``.safetensors`` is the usual ending.

    Raises
    ------
    ValueError
        A parameter is NaN or infinite: the file could not be loaded again.
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
    if not _is_text_mapping(net.metadata):
        raise TypeError(f"net.metadata must be a dict of str to str, got {net.metadata!r}")
    parameters = {
        name: np.ascontiguousarray(values)
        for layer, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True))
        for name, values in zip(_parameter_names(layer), (weight, bias), strict=True)
    }
    _check_finite(parameters)
    header = {
        "format": FORMAT,
        "layer_sizes": [int(size) for size in net.layer_sizes],
        "activations": list(net.activations),
        "loss": net.loss,
        "dtype": net.dtype.name,
        "seed": int(net.seed),
        "metadata": net.metadata,
    }
    content = to_safetensors(parameters, {_HEADER_KEY: json.dumps(header, sort_keys=True)})
    replace_file(os.fspath(path), content)


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

    path = os.fspath(path)
    # safe_open reports a folder or a file without permission less clearly than open does.
    with open(path, "rb"):
        pass
    try:
        header, parameters = _read(path)
        net = MLP(
            header["layer_sizes"],
            activation=header["activations"],
            loss=header["loss"],
            seed=header["seed"],
            dtype=header["dtype"],
        )
    except (SafetensorError, TypeError, ValueError) as error:
        raise ValueError(f"cannot load {path!r} as a network: {error}") from error
    for layer, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
        weight_name, bias_name = _parameter_names(layer)
        weight[...] = parameters[weight_name]
        bias[...] = parameters[bias_name]
    net.metadata.update(header["metadata"])
    return net


def _parameter_names(layer: int) -> tuple[str, str]:
    return f"layers.{layer}.weight", f"layers.{layer}.bias"


def replace_file(path: str, content: bytes) -> None:
    """Write `content` to `path` through a temporary file in the same folder."""
    target = os.path.realpath(path)  # the file behind a symbolic link is replaced, not the link
    temporary = os.path.join(os.path.dirname(target), f".fastmlp-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            # The same error, but about the user's file and not about the temporary one.
            raise OSError(error.errno, error.strerror, path) from error
        raise


def _read(path: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the checked header and the checked parameters by name."""
    # Any: the stub of safe_open has no types for its methods.
    opened: Any = safe_open(path, framework="numpy")
    with opened as file:
        header = _parse_header(file.metadata())
        expected = _expected_tensors(header["layer_sizes"], header["dtype"])
        found = {}
        for name in list(file.keys()):
            part = file.get_slice(name)
            found[name] = (part.get_dtype(), tuple(part.get_shape()))
        _check_tensors(found, expected)
        parameters = {name: file.get_tensor(name) for name in expected}
    _check_finite(parameters)
    return header, parameters


def _expected_tensors(layer_sizes: list[int], dtype: str) -> _Tensors:
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    for layer, (n_in, n_out) in enumerate(itertools.pairwise(layer_sizes)):
        weight_name, bias_name = _parameter_names(layer)
        tensors[weight_name] = (_SAFETENSORS_DTYPES[dtype], (n_in, n_out))
        tensors[bias_name] = (_SAFETENSORS_DTYPES[dtype], (n_out,))
    return tensors


def _check_tensors(found: _Tensors, expected: _Tensors) -> None:
    if missing := sorted(expected.keys() - found.keys()):
        raise ValueError(f"tensors are missing: {_first_few(missing)}")
    if surplus := sorted(found.keys() - expected.keys()):
        raise ValueError(f"there are tensors that no layer has: {_first_few(surplus)}")
    for name, (dtype, shape) in expected.items():
        found_dtype, found_shape = found[name]
        if (found_dtype, found_shape) != (dtype, shape):
            raise ValueError(
                f"tensor {name} must be {dtype} of shape {shape} to match the header, "
                f"got {found_dtype} of shape {found_shape}"
            )


def _check_finite(parameters: Mapping[str, NDArray[Any]]) -> None:
    for name, values in parameters.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds NaN or infinity")


def _first_few(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _parse_header(metadata: dict[str, str] | None) -> dict[str, Any]:
    """Return the network's description from the file's metadata, checked field by field."""
    if not metadata or _HEADER_KEY not in metadata:
        raise ValueError(
            f"its metadata has no entry {_HEADER_KEY!r}, so another program wrote the file"
        )
    try:
        header = json.loads(metadata[_HEADER_KEY])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the entry {_HEADER_KEY!r} is not JSON: {error}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else header
        raise ValueError(f"its format must be {FORMAT!r}, got {reprlib.repr(found)}")
    if wrong := sorted(header.keys() ^ {"format", *_FIELDS}):
        raise ValueError(f"fields of its header are missing or unknown: {_first_few(wrong)}")
    for field, (requirement, is_valid) in _FIELDS.items():
        if not is_valid(header[field]):
            raise ValueError(
                f"{field} in its header must be {requirement}, got {reprlib.repr(header[field])}"
            )
    if len(header["activations"]) != len(header["layer_sizes"]) - 2:
        raise ValueError(
            f"its header must name one activation for each of {len(header['layer_sizes']) - 2} "
            f"hidden layers, got {len(header['activations'])}"
        )
    return header


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)  # JSON's true is no number


def _is_sizes(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) >= 2
        and all(_is_int(size) and size > 0 for size in value)
    )


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_text_mapping(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(text, str) for key, text in value.items()
    )


_FIELDS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "layer_sizes": ("a list of at least two positive integers", _is_sizes),
    "activations": ("a list of names", _is_names),
    "loss": ("a name", lambda value: isinstance(value, str)),
    "dtype": ("float32 or float64", lambda value: value in ("float32", "float64")),
    "seed": ("an integer", _is_int),
    "metadata": ("an object of texts", _is_text_mapping),
}
"""What a header must hold: field, requirement in words, check."""
