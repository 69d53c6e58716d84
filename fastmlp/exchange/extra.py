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


def errors_of_onnx() -> tuple[type[Exception], type[Exception]]:
    """What onnx raises for a damaged file, beside ValueError and TypeError."""
    from google.protobuf.message import DecodeError
    from onnx.checker import ValidationError

    return DecodeError, ValidationError
