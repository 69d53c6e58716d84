"""Networks from and for other programs: ONNX, PyTorch, scikit-learn.

Nothing here runs code from what it reads: ONNX files and safetensors are data, pickles are refused.

expressions.py     formulas as trees: written to a graph's nodes, or looked for in one
formulas.py        the formula of each activation and norm, as it is written and as others write it
onnx_export.py     a network -> a graph
onnx_import.py     a graph -> a chain
torch_import.py    an ``nn.Sequential`` or a state dict -> a chain
sklearn_import.py  a fitted estimator -> a chain
chain.py           linear maps, norms and activations in a row -> a network
"""

from .onnx_export import to_onnx
from .onnx_import import from_onnx
from .sklearn_import import from_sklearn
from .torch_import import from_torch

__all__ = ["from_onnx", "from_sklearn", "from_torch", "to_onnx"]
