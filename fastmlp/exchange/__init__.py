"""Networks from and for other programs: ONNX, PyTorch, scikit-learn.

Nothing here runs code from what it reads: ONNX files and safetensors are data, pickles are refused.

expressions.py  formulas as trees: written to a graph's nodes, or looked for in one
formulas.py     the formula of each activation and norm, as it is written and as others write it
to_onnx.py      a network -> a graph
from_onnx.py    a graph -> a chain
from_torch.py   an ``nn.Sequential`` or a state dict -> a chain
from_sklearn.py a fitted estimator -> a chain
chain.py        linear maps, norms and activations in a row -> a network
"""

from .from_onnx import from_onnx
from .from_sklearn import from_sklearn
from .from_torch import from_torch
from .to_onnx import to_onnx

__all__ = ["from_onnx", "from_sklearn", "from_torch", "to_onnx"]
