"""A strict reader for IDX, the file format of MNIST.

An IDX file of unsigned bytes is, with big-endian numbers::

    00 00 08 D          magic: two zero bytes, 08 for unsigned bytes, the number of dimensions D
    D x uint32          the sizes; the first one is the number of items
    bytes               the items one after the other, row-major

Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits".
"""

import gzip
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Five times MNIST's largest file. A header that declares more is not believed, and nothing beyond
# what it declares is read: neither a damaged size nor a gzip bomb can use up the memory.
MAX_BYTES = 256 * 2**20


def read_idx(path: Path, item_shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzip-compressed if its name ends in ``.gz``.

    Parameters
    ----------
    path : Path
        The file.
    item_shape : tuple of int
        The shape that each item must have: ``(28, 28)`` for images, ``()`` for labels.

    Returns
    -------
    uint8 array of shape (n, *item_shape)
        The items, n >= 1; read-only.

    Raises
    ------
    ValueError
        If the file is damaged, or is not one whole IDX file of such items and nothing else.
    OSError
        If the file cannot be read.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            shape = _read_header(file, path, item_shape)
            size = math.prod(shape)
            # The byte more shows trailing data, and makes gzip compare its checksum at the end.
            body = file.read(size + 1)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path} is not a whole gzip file: {error}") from error
    if len(body) < size:
        raise ValueError(
            f"{path} is truncated: its header declares {shape[0]} items in {size} bytes, "
            f"found {len(body)} bytes"
        )
    if len(body) > size:
        raise ValueError(
            f"{path} has trailing bytes: its header declares {shape[0]} items in {size} bytes, "
            "found more"
        )
    return np.frombuffer(body, np.uint8).reshape(shape)


def _read_header(
    file: io.BufferedIOBase, path: Path, item_shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Read and check the magic and the sizes; return the shape of the whole array."""
    n_dimensions = 1 + len(item_shape)
    magic = bytes([0, 0, 8, n_dimensions])
    found_magic = file.read(4)
    if found_magic != magic:
        raise ValueError(
            f"{path} is not an IDX file of unsigned bytes in {n_dimensions} dimensions: "
            f"it must start with the bytes {magic.hex(' ')}, found {found_magic.hex(' ')!r}"
        )
    sizes = file.read(4 * n_dimensions)
    if len(sizes) < 4 * n_dimensions:
        raise ValueError(
            f"{path} is truncated: its header must have {4 + 4 * n_dimensions} bytes, "
            f"found {4 + len(sizes)}"
        )
    n_items, *found_shape = struct.unpack(f">{n_dimensions}I", sizes)
    if tuple(found_shape) != item_shape:
        raise ValueError(
            f"{path} must hold items of shape {item_shape}, found {tuple(found_shape)}"
        )
    max_items = MAX_BYTES // math.prod(item_shape)
    if not 1 <= n_items <= max_items:
        raise ValueError(f"{path} must declare 1 to {max_items} items, found {n_items}")
    return (n_items, *item_shape)
