"""exp and its like, and the activations, on the outputs of one layer, one core."""

import numpy as np
from numba import njit

from fastmlp.kernels import elementwise
from fastmlp.kernels._jit import OPTIONS
from fastmlp.kernels.activation import CODES
from fastmlp.kernels.simd import lanes, load, matrix, store
from fastmlp.layout import aligned_zeros

from .common import softplus
from .inner_kernels import activate

ROWS, COLUMNS = 256, 128
LIBRARIES = ["fastmlp", "numpy", "torch"]


def wrapped(function):
    """The function of vectors, as one of two flat arrays: y <- f(x)."""

    @njit(**OPTIONS)
    def loop(y, x, rows, columns):
        to, at = matrix(y, 0, rows, columns, columns), matrix(x, 0, rows, columns, columns)
        for i in range(rows):
            for j in range(0, columns, lanes(x)):
                store(to, i, j, function(load(at, i, j)))

    return loop


def activation(name):
    code = CODES[name]
    return lambda y, x, rows, columns: activate(y, x, code, rows, columns)


FASTMLP = {name: wrapped(getattr(elementwise, name)) for name in ("exp", "expm1", "log1p")}
FASTMLP |= {name: activation(name) for name in ("relu", "sigmoid", "tanh", "softplus", "gelu")}


def numpy_sigmoid(x, out):
    np.negative(x, out=out)
    np.exp(out, out=out)
    out += 1
    np.reciprocal(out, out=out)


def numpy_softplus(x, out):
    out[...] = softplus(x)


NUMPY = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log1p": np.log1p,
    "relu": lambda x, out: np.maximum(x, 0, out=out),
    "sigmoid": numpy_sigmoid,
    "tanh": np.tanh,
    "softplus": numpy_softplus,
}


def torch_functions():
    """PyTorch's functions, out of place into a given tensor, on one thread."""
    import torch

    torch.set_num_threads(1)
    nn = torch._C._nn  # functional.softplus and gelu take no `out`
    return torch.from_numpy, {
        "exp": torch.exp,
        "expm1": torch.expm1,
        "log1p": torch.log1p,
        "relu": lambda x, out: torch.clamp_min(x, 0, out=out),
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "softplus": nn.softplus,
        "gelu": nn.gelu,
    }


def arguments(name, dtype, count):
    """Normally distributed, within the function's domain: log1p takes 0 to 1, expm1 up to 0."""
    z = np.random.default_rng(0).normal(scale=2.0, size=count)
    x = aligned_zeros(count, np.dtype(dtype))
    x[:] = {"expm1": -abs(z), "log1p": abs(z) / abs(z).max()}.get(name, z)
    return x


class Elementwise:
    """y <- f(x), both in the second-level cache."""

    params = (list(FASTMLP), ["float32", "float64"], LIBRARIES)
    param_names = ("function", "dtype", "library")

    def setup(self, function, dtype, library):
        x = arguments(function, dtype, ROWS * COLUMNS)
        y = aligned_zeros(x.size, x.dtype)
        if library == "fastmlp":
            compiled = FASTMLP[function]
            self.apply = lambda: compiled(y, x, ROWS, COLUMNS)
        elif library == "numpy":
            if function not in NUMPY:
                raise NotImplementedError(f"NumPy has no {function}")
            self.apply = lambda: NUMPY[function](x, out=y)
        else:
            try:
                wrap, functions = torch_functions()
            except ImportError:
                raise NotImplementedError("PyTorch is not installed") from None
            source, target = wrap(x), wrap(y)
            self.apply = lambda: functions[function](source, out=target)
        self.apply()

    def time_forward(self, function, dtype, library):
        self.apply()
