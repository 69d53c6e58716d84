"""Networks taken over from PyTorch: modules, state dicts, safetensors files."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import fastmlp as fm

torch = pytest.importorskip("torch", reason="compares with PyTorch: pip install torch")
nn = torch.nn
pytestmark = pytest.mark.jit

FUNCTIONS: dict[str, Callable[[int], Any]] = {
    "relu": lambda _: nn.ReLU(),
    "sigmoid": lambda _: nn.Sigmoid(),
    "tanh": lambda _: nn.Tanh(),
    "softplus": lambda _: nn.Softplus(),
    "leaky_relu(0.2)": lambda _: nn.LeakyReLU(0.2),
    "prelu(0.25)": lambda _: nn.PReLU(init=0.1),
    "prelu(0.25, per_unit)": lambda n: nn.PReLU(n, init=0.1),
    "elu(0.7)": lambda _: nn.ELU(0.7),
    "selu": lambda _: nn.SELU(),
    "gelu": lambda _: nn.GELU(),
    "gelu_tanh": lambda _: nn.GELU("tanh"),
    "silu": lambda _: nn.SiLU(),
    "mish": lambda _: nn.Mish(),
    "identity": lambda _: nn.Identity(),
}


def trained(*modules: Any, dtype: Any = None) -> Any:
    """A Sequential with statistics and parameters that are not those of the start."""
    model = nn.Sequential(*modules).to(dtype or torch.float64)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.3)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d) and module.running_var is not None:
                module.running_var += 0.5
    return model.eval()


def outputs(model: Any, inputs: int) -> tuple[Any, Any]:
    """Samples, and what PyTorch makes of them."""
    dtype = next(model.parameters()).dtype
    X = torch.randn(30, inputs, dtype=dtype, generator=torch.Generator().manual_seed(1)) * 2
    return X.numpy(), model(X).detach().numpy()


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_activations(name: str, dtype: str) -> None:
    model = trained(
        *(nn.Linear(3, 7), FUNCTIONS[name](7), nn.Linear(7, 2)), dtype=getattr(torch, dtype)
    )
    net = fm.MLP.from_torch(model)
    assert (str(net.activation[0]), net.dtype) == (name, np.dtype(dtype))
    X, y = outputs(model, 3)
    np.testing.assert_allclose(
        net.predict(X), y, *([1e-12] * 2 if dtype == "float64" else [1e-5] * 2)
    )


@pytest.mark.parametrize(
    ("modules", "sizes"),
    [
        ([nn.Linear(4, 3)], (4, 3)),
        ([nn.Linear(4, 5, bias=False), nn.ReLU(), nn.Linear(5, 3)], (4, 5, 3)),
        ([nn.Linear(4, 5), nn.Linear(5, 3)], (4, 5, 3)),
        ([nn.Linear(4, 5), nn.BatchNorm1d(5, eps=0.1), nn.Tanh(), nn.Linear(5, 3)], (4, 5, 3)),
        ([nn.Linear(4, 5), nn.LayerNorm(5, eps=0.1), nn.GELU(), nn.Linear(5, 3)], (4, 5, 3)),
        ([nn.Linear(4, 5), nn.LayerNorm(5, bias=False), nn.Linear(5, 3)], (4, 5, 3)),
        ([nn.Linear(4, 5), nn.BatchNorm1d(5, affine=False), nn.Linear(5, 3)], (4, 5, 3)),
        ([nn.Flatten(), nn.Dropout(0.2), nn.Linear(4, 3)], (4, 3)),
        # what comes where a layer has no place for it has a layer of its own
        ([nn.BatchNorm1d(4), nn.Linear(4, 3)], (4, 4, 3)),
        ([nn.Linear(4, 5), nn.ReLU(), nn.BatchNorm1d(5), nn.Linear(5, 3)], (4, 5, 5, 3)),
        ([nn.Linear(4, 5), nn.ReLU(), nn.Tanh(), nn.Linear(5, 3)], (4, 5, 5, 3)),
        ([nn.Linear(4, 5), nn.LayerNorm(5), nn.BatchNorm1d(5), nn.Linear(5, 3)], (4, 5, 5, 3)),
        ([nn.Linear(4, 3), nn.Tanh()], (4, 3, 3)),
        ([nn.Linear(4, 3), nn.LayerNorm(3)], (4, 3, 3)),
        ([nn.Sequential(nn.Linear(4, 5), nn.ReLU()), nn.Sequential(nn.Linear(5, 3))], (4, 5, 3)),
    ],
    ids=lambda value: (
        None if isinstance(value, tuple) else "-".join(type(m).__name__ for m in value)
    ),
)
def test_order_of_modules(modules: list[Any], sizes: tuple[int, ...]) -> None:
    model = trained(*modules)
    net = fm.MLP.from_torch(model)
    assert net.layer_sizes == sizes
    X, y = outputs(model, 4)
    np.testing.assert_allclose(net.predict(X), y, 1e-12, 1e-12)


def test_settings_of_norms_and_dropout() -> None:
    model = trained(
        *(nn.Dropout(0.1), nn.Linear(4, 5), nn.BatchNorm1d(5, eps=0.01, momentum=0.2), nn.ReLU()),
        *(nn.Dropout(0.3), nn.Linear(5, 6), nn.LayerNorm(6, eps=0.02), nn.Dropout(0.5)),
        *(nn.SiLU(), nn.Dropout(0.5), nn.Linear(6, 3)),
    )
    net = fm.MLP.from_torch(model)
    assert net.norm == (fm.BatchNorm(0.01, momentum=0.2), fm.LayerNorm(0.02))
    assert net.dropout == (0.1, 0.3, 0.75)


@pytest.mark.parametrize(
    ("end", "loss"),
    [
        (nn.Softmax(dim=1), "softmax_cross_entropy"),
        (nn.LogSoftmax(dim=1), "softmax_cross_entropy"),
        (nn.Sigmoid(), "binary_cross_entropy"),
    ],
)
def test_end_tells_the_loss(end: Any, loss: str) -> None:
    model = trained(nn.Linear(4, 3), end)
    net = fm.MLP.from_torch(model)
    assert (net.loss, net.layer_sizes) == (fm.Loss(loss), (4, 3))
    X, y = outputs(model, 4)
    y = np.exp(y) if isinstance(end, nn.LogSoftmax) else y
    np.testing.assert_allclose(net.predict_proba(X), y, 1e-12)


def test_loss_as_asked_for() -> None:
    model = trained(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    assert fm.MLP.from_torch(model).loss == fm.Loss("squared_error")
    loss = fm.Loss("softmax_cross_entropy", label_smoothing=0.1)
    assert fm.MLP.from_torch(model, loss=loss).loss == loss
    bounded = trained(nn.Linear(4, 3), nn.Sigmoid())
    net = fm.MLP.from_torch(bounded, loss="squared_error")
    X, y = outputs(bounded, 4)
    np.testing.assert_allclose(net.predict(X), y, 1e-12)


def test_one_module_in_two_places() -> None:
    tanh, same = nn.Tanh(), nn.Linear(4, 4)
    model = trained(same, tanh, same, tanh, nn.Linear(4, 2))
    net = fm.MLP.from_torch(model)
    assert net.layer_sizes == (4, 4, 4, 2)
    X, y = outputs(model, 4)
    np.testing.assert_allclose(net.predict(X), y, 1e-12)
    again = fm.MLP.from_torch(model.state_dict(), activation="tanh")
    np.testing.assert_array_equal(again.theta, net.theta)


def test_memory_is_its_own() -> None:
    model = trained(nn.Linear(4, 3))
    net = fm.MLP.from_torch(model)
    before = net.theta.copy()
    with torch.no_grad():
        model[0].weight.zero_()
    np.testing.assert_array_equal(net.theta, before)


def test_state_dict_and_its_file(tmp_path: Path) -> None:
    model = trained(
        *(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.PReLU(6), nn.Dropout(0.1)),
        *(nn.Linear(6, 5), nn.LayerNorm(5), nn.PReLU(), nn.Linear(5, 5), nn.GELU(), nn.Dropout()),
        *(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 2)),
    )
    X, y = outputs(model, 4)
    state = model.state_dict()
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    save_file(arrays, tmp_path / "net.safetensors")  # which sorts "10" before "2"
    names = ["prelu", "prelu", "gelu", "tanh"]
    for source in (state, arrays, tmp_path / "net.safetensors", str(tmp_path / "net.safetensors")):
        net = fm.MLP.from_torch(source, activation=names, loss="half_squared_error")
        assert net.loss == fm.Loss("half_squared_error")
        np.testing.assert_allclose(net.predict(X), y, 1e-12)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_becomes_float32(dtype: str) -> None:
    model = trained(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2), dtype=getattr(torch, dtype))
    net = fm.MLP.from_torch(model)
    assert net.dtype == np.float32
    X, y = outputs(model.float(), 4)
    np.testing.assert_allclose(net.predict(X), y, 1e-5, 1e-6)


def test_layers_of_a_dict_come_in_its_order(tmp_path: Path) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm, self.body = nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4)
            self.head = nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            return self.head(torch.relu(self.body(torch.relu(self.norm(self.stem(x))))))

    torch.manual_seed(0)
    model = Named().double()
    X, y = outputs(model, 4)
    net = fm.MLP.from_torch(model.state_dict(), activation="relu")
    np.testing.assert_allclose(net.predict(X), y, 1e-12)
    save_file({k: v.numpy() for k, v in model.state_dict().items()}, tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match=r"order of the layers .* names body, head, norm, stem"):
        fm.MLP.from_torch(tmp_path / "net.safetensors", activation="relu")


class Subclass(nn.Linear):
    pass


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([nn.Linear(4, 3), nn.Hardswish()], r"module '1', Hardswish\(\): there is no counterpart"),
        ([nn.Linear(4, 3), nn.Softplus(beta=2)], r"module '1', Softplus.*no counterpart"),
        ([nn.Linear(4, 3), nn.Softmax(1), nn.Linear(3, 2)], r"module '1', Softmax.*no counterpart"),
        ([nn.Linear(4, 3), nn.Flatten()], r"module '1', Flatten.*no counterpart"),
        ([nn.Linear(4, 3), nn.Linear(4, 3)], r"module '1', Linear.*must have shape \(3, outputs\)"),
        ([nn.Linear(4, 3), nn.LayerNorm(4)], r"module '1', .*a norm must have 3 units, got 4"),
        ([nn.Linear(4, 3), nn.PReLU(2)], r"slope must have shape \(3,\), got \(2,\)"),
        ([nn.Linear(4, 6), nn.LayerNorm((2, 3))], "the last axis alone"),
        ([nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)], "no running statistics"),
        ([nn.ReLU(), nn.Linear(4, 3)], r"module '0', ReLU\(\): .*a linear map before"),
        ([Subclass(4, 3)], r"module '0', Subclass.*no counterpart"),
        ([], "there is no linear map"),
    ],
)
def test_modules_without_counterpart(modules: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fm.MLP.from_torch(nn.Sequential(*modules))


def test_not_a_number() -> None:
    model = trained(nn.Linear(4, 3))
    with torch.no_grad():
        model[0].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"layers\.0\.weight holds NaN or infinity"):
        fm.MLP.from_torch(model)


W, V, ROW = np.ones((3, 2)), np.ones((1, 3)), np.ones(3)


@pytest.mark.parametrize(
    ("state", "activation", "error", "message"),
    [
        ({"0.weight": W, "2.weight": V}, None, TypeError, "activation must be given"),
        ({"0.weight": W, "2.weight": V}, ["relu"] * 2, ValueError, "each of the 1 hidden layers"),
        ({"0.weight": V, "2.weight": W}, "relu", ValueError, r"tensors 2\.\*: weight must have"),
        ({"0.weight": W, "1.weight": ROW, "2.weight": V}, "relu", ValueError, r"1\.\*: .*a PReLU"),
        ({"0.weight": W, "0.scale": ROW}, None, ValueError, "no module that is known has scale, w"),
        ({"0.weight": W, "0.bias": W}, None, ValueError, r"0\.\*: bias must have shape \(3,\)"),
        ({"0.weight": W.astype(int)}, None, ValueError, "floating-point numbers, got int64"),
        (
            {"0.weight": W, "2.weight": ROW, "2.bias": ROW, "3.weight": V},
            *("relu", ValueError, "does not tell what is between 0 and 2: pass the nn.Sequential"),
        ),
        ({}, None, ValueError, "there is no linear map"),
        (
            {"0.weight": W, "1.weight": ROW, "1.bias": ROW, "1.running_mean": ROW},
            *(None, ValueError, r"1\.\*: no module that is known has bias, running_mean, weight"),
        ),
        ({"a": ROW}, None, ValueError, "no module that is known has a"),
        (nn.Linear(2, 3), None, TypeError, "source must be an nn.Sequential, .* got Linear"),
        (nn.Sequential(nn.Linear(2, 3)), "relu", TypeError, "activation is for a state dict"),
    ],
)
def test_wrong_states(state: Any, activation: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fm.MLP.from_torch(state, activation=activation)


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("sprung"),))


def test_pickles_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Trap()))
    torch.save({"0.weight": Trap()}, tmp_path / "net.pth")
    for name in ("raw.pt", "net.pth"):
        with pytest.raises(ValueError, match=rf"cannot load .*{name}.*A pickle .* is not read"):
            fm.MLP.from_torch(tmp_path / name, activation="relu")
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors"):
        fm.MLP.from_torch(tmp_path / "nothing.safetensors")
