"""The package onnx, which only those who read or write its files need."""

from typing import Any


def import_onnx(what: str) -> Any:
    """Return the module onnx; ImportError says what needs it and how to get it."""
    try:
        import onnx
        import onnx.numpy_helper
    except ImportError as error:
        raise ImportError(f'{what} needs onnx: pip install "fastmlp[onnx]"') from error
    return onnx
