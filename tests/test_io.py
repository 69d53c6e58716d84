"""Model files: what is saved comes back, and nothing else gets in."""

import contextlib
import errno
import itertools
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save as to_safetensors

import fastmlp as fm

Header = dict[str, Any]
Tensors = dict[str, np.ndarray]


def small_net(dtype: str = "float32", seed: int = 3) -> fm.MLP:
    net = fm.MLP([3, 5, 2], activation="tanh", seed=seed, dtype=dtype)
    net.metadata["class_names"] = json.dumps(["one", "zwei", "três"])
    return net


def rich_net() -> fm.MLP:
    """A network that has something of everything, no number of which is what it is by default."""
    net = fm.MLP(
        [3, 5, 17, 4, 3],
        activation=[
            fm.activations.Activation("prelu", alpha=0.1),
            fm.activations.Activation("prelu", alpha=0.2, per_unit=True),
            fm.activations.Activation("elu", alpha=0.7),
        ],
        loss=fm.losses.Loss("softmax_cross_entropy", label_smoothing=0.1, class_weight=[1, 2, 3]),
        norm=[fm.norms.BatchNorm(1e-3, momentum=0.3), fm.norms.LayerNorm(1e-4), None],
        dropout=[0.1, 0.2, 0.0, 0.4],
        l2=[0.1, 0.2, 0.3, 0.4],
        l1=[0.0, 0.01, 0.02, 1 / 3],
        input_scale=True,
        seed=2**62 + 1,
        dtype="float64",
    )
    rng = np.random.default_rng(5)
    views = (net.weights, net.biases, net.slopes, net.gains, net.shifts)
    for view in (*itertools.chain(*views), *net.running_means, *net.running_variances):
        view[...] = rng.uniform(0.1, 2.0, view.shape)
    return net


def read_parts(path: Path) -> tuple[Header, Tensors]:
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["fastmlp"])
        return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def write_parts(path: Path, header: object, tensors: Tensors) -> None:
    path.write_bytes(to_safetensors(tensors, {"fastmlp": json.dumps(header)}))


def without(field: str) -> Callable[[Header], object]:
    return lambda header: {key: value for key, value in header.items() if key != field}


def having(**fields: object) -> Callable[[Header], object]:
    return lambda header: {**header, **fields}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    small_net().save(path)
    return path


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("layer_sizes", "activation", "loss"),
    [
        ([4, 3], "relu", "softmax_cross_entropy"),
        ([1, 1], "relu", "squared_error"),
        ([7, 33, 3], "softplus", "softmax_cross_entropy"),
        ([5, 16, 1, 17, 2], ["relu", "sigmoid", "identity"], "half_squared_error"),
        ([2, *[3] * 12, 2], "tanh", "squared_error"),
    ],
)
def test_round_trip(
    tmp_path: Path, layer_sizes: list[int], activation: Any, loss: str, dtype: str
) -> None:
    net = fm.MLP(layer_sizes, activation=activation, loss=loss, seed=11, dtype=dtype)
    for values in (*net.weights, *net.biases):
        values += 0.1
    net.metadata.update({"class_names": '["ä", "\\u0000"]', "": "empty key"})
    path = tmp_path / "net.safetensors"
    net.save(path)
    loaded = fm.MLP.load(path)

    assert loaded.layer_sizes == net.layer_sizes
    assert loaded.activation == net.activation
    assert (loaded.loss, loaded.dtype, loaded.seed) == (net.loss, net.dtype, net.seed)
    assert loaded.metadata == net.metadata
    np.testing.assert_array_equal(loaded.theta, net.theta, strict=True)


def test_everything_of_a_network_comes_back(tmp_path: Path) -> None:
    net = rich_net()
    net.save(tmp_path / "net")
    loaded = fm.MLP.load(tmp_path / "net")
    for name in ("activation", "loss", "norm", "dropout", "l2", "l1", "seed", "dtype"):
        assert getattr(loaded, name) == getattr(net, name)
    for name in ("weights", "biases", "slopes", "gains", "shifts"):
        for mine, its in zip(getattr(net, name), getattr(loaded, name), strict=True):
            np.testing.assert_array_equal(its, mine, strict=True)
    np.testing.assert_array_equal(loaded.running, net.running, strict=True)
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "net").read_bytes()


def test_names_of_the_tensors(tmp_path: Path) -> None:
    rich_net().save(tmp_path / "net")
    _, tensors = read_parts(tmp_path / "net")
    shapes = {name: array.shape for name, array in tensors.items()}
    assert shapes == {
        "input_scale": (3,),
        "layers.0.weight": (3, 5),
        "layers.0.bias": (5,),
        "layers.0.slope": (1,),
        "layers.0.gain": (5,),
        "layers.0.shift": (5,),
        "layers.0.running_mean": (5,),
        "layers.0.running_variance": (5,),
        "layers.1.weight": (5, 17),
        "layers.1.bias": (17,),
        "layers.1.slope": (17,),
        "layers.1.gain": (17,),
        "layers.1.shift": (17,),
        "layers.2.weight": (17, 4),
        "layers.2.bias": (4,),
        "layers.3.weight": (4, 3),
        "layers.3.bias": (3,),
    }


@pytest.mark.parametrize(
    "loss",
    [
        fm.losses.Loss("huber", delta=1.5),
        fm.losses.Loss("pinball", quantile=0.1),
        fm.losses.Loss("pinball", quantile=[0.1, 0.9]),
        fm.losses.Loss("binary_cross_entropy", class_weight=(1, 2), label_smoothing=0.1),
        fm.losses.Loss("poisson"),
    ],
    ids=str,
)
def test_options_of_the_loss_come_back(tmp_path: Path, loss: fm.losses.Loss) -> None:
    fm.MLP([3, 2], loss=loss).save(tmp_path / "net")
    assert fm.MLP.load(tmp_path / "net").loss == loss


def test_settings_may_be_numbers_of_numpy(tmp_path: Path) -> None:
    norm = fm.norms.BatchNorm(epsilon=np.float32(1e-4), momentum=np.float32(0.2))
    net = fm.MLP([3, 4, 2], norm=norm, l2=np.float32(0.5))
    net.save(tmp_path / "net")
    assert fm.MLP.load(tmp_path / "net").norm == net.norm


def test_path_as_text(tmp_path: Path) -> None:
    net = small_net()
    net.save(str(tmp_path / "net"))
    np.testing.assert_array_equal(fm.MLP.load(str(tmp_path / "net")).theta, net.theta)


def test_loaded_network_predicts_the_same(saved: Path) -> None:
    X = np.linspace(-1.0, 1.0, 30, dtype=np.float32).reshape(10, 3)
    np.testing.assert_array_equal(
        fm.MLP.load(saved).decision_function(X), small_net().decision_function(X)
    )


def test_other_programs_can_read_the_file(saved: Path) -> None:
    header, tensors = read_parts(saved)
    assert header == {
        "format": "fastmlp-2",
        "layer_sizes": [3, 5, 2],
        "activation": [{"name": "tanh", "alpha": None, "per_unit": False}],
        "loss": {
            "name": "softmax_cross_entropy",
            "label_smoothing": 0.0,
            "class_weight": None,
            "delta": 1.0,
            "quantile": 0.5,
        },
        "norm": [None],
        "dropout": [0.0, 0.0],
        "l2": [0.0, 0.0],
        "l1": [0.0, 0.0],
        "input_scale": False,
        "dtype": "float32",
        "seed": 3,
        "metadata": {"class_names": '["one", "zwei", "tr\\u00eas"]'},
    }
    net = small_net()
    assert set(tensors) == {f"layers.{k}.{part}" for k in (0, 1) for part in ("weight", "bias")}
    for layer in (0, 1):
        weight, bias = tensors[f"layers.{layer}.weight"], tensors[f"layers.{layer}.bias"]
        np.testing.assert_array_equal(weight, net.weights[layer], strict=True)
        np.testing.assert_array_equal(bias, net.biases[layer], strict=True)


def test_equal_networks_give_equal_files(tmp_path: Path) -> None:
    for k in range(5):
        small_net().save(tmp_path / f"{k}")
    assert len({(tmp_path / f"{k}").read_bytes() for k in range(5)}) == 1


# Loading what is not a saved network


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors"):
        fm.MLP.load(tmp_path / "nothing.safetensors")


def test_folder_instead_of_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=tmp_path.name):
        fm.MLP.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\0" * 7, b"\0" * 100, b"PK\x03\x04" * 50, b"\xff" * 64])
def test_not_safetensors(saved: Path, content: bytes) -> None:
    saved.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot load '.*net\.safetensors' as a network"):
        fm.MLP.load(saved)


def test_file_of_another_program(saved: Path) -> None:
    _, tensors = read_parts(saved)
    for metadata in (None, {}, {"format": "pt"}):
        saved.write_bytes(to_safetensors(tensors, metadata))
        with pytest.raises(ValueError, match=r"net\.safetensors'.* another program wrote the file"):
            fm.MLP.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (having(format="fastmlp-3"), r"format must be 'fastmlp-2', got 'fastmlp-3'"),
        (having(format=["fastmlp-2"]), r"format must be 'fastmlp-2', got \['fastmlp-2'\]"),
        (without("format"), r"format must be 'fastmlp-2', got None"),
        (lambda header: [header], "format must be"),
        (lambda header: "fastmlp-2", "format must be"),
        (without("seed"), "missing or unknown: seed"),
        (having(extra=1), "missing or unknown: extra"),
        (having(layer_sizes=[3]), r"layer_sizes .* got \[3\]"),
        (having(layer_sizes=[3, 0, 2]), "layer_sizes .* positive"),
        (having(layer_sizes=[3, True, 2]), "layer_sizes .* positive"),
        (having(layer_sizes=[3.0, 5, 2]), "layer_sizes .* positive"),
        (having(layer_sizes="352"), "layer_sizes .* positive"),
        (having(layer_sizes=[3, 6, 2]), r"layers\.0\.weight must be F32 of shape \(3, 6\)"),
        (having(layer_sizes=[3, 10**30, 2]), r"layers\.0\.weight must be F32 of shape"),
        (having(layer_sizes=[3, 5, 2, 2]), "one for each of the 2 hidden layers, got 1"),
        (
            having(layer_sizes=[3, 5, 2, 2], activation=[{"name": "tanh"}] * 2, norm=[None] * 2),
            r"missing: layers\.2\.bias",
        ),
        (having(layer_sizes=[3, 5], activation=[], norm=[]), r"no layer has: layers\.1\.bias"),
        (having(activation=[]), "one for each of the 1 hidden layers, got 0"),
        (having(activation="tanh"), "activation .* a list of objects with a name"),
        (having(activation=["tanh"]), "activation .* a list of objects with a name"),
        (having(activation=[{"alpha": 1}]), "activation .* a list of objects with a name"),
        (having(activation=[{"name": "swoosh"}]), "swoosh"),
        (having(activation=[{"name": "elu", "alpha": "1"}]), "alpha must be a number"),
        (having(activation=[{"name": "elu", "alpha": 1e999}]), "alpha must be in"),
        (having(activation=[{"name": "elu", "beta": 1}]), "beta"),
        (having(activation=[{"name": "prelu"}]), r"missing: layers\.0\.slope"),
        (having(loss={"name": "regret"}), "regret"),
        (having(loss="squared_error"), "loss .* an object with a name, got 'squared_error'"),
        (having(loss=None), "loss .* an object with a name, got None"),
        (having(loss={"name": "huber", "delta": -1}), "delta must be"),
        (having(loss={"name": "huber", "delta": 10**400}), "delta must be in"),
        (having(norm=None), "norm .* a list of objects with a name or nulls, got None"),
        (having(norm=["batch"]), "norm .* a list of objects with a name or nulls"),
        (having(norm=[]), "norm must be one, or one for each of the 1 hidden layers, got 0"),
        (having(norm=[{"name": "group"}]), "norm must be one of batch, layer, got 'group'"),
        (having(norm=[{"name": "layer", "epsilon": 0}]), "epsilon must be"),
        (having(norm=[{"name": "layer", "momentum": 0.1}]), "momentum"),
        (having(norm=[{"name": "batch"}]), r"missing: layers\.0\.gain, .*running_variance"),
        (having(dropout=0.5), r"dropout .* a list of numbers, got 0\.5"),
        (having(dropout=[0.5]), "dropout must be one number, or one for .*, got 1"),
        (having(dropout=[0.5, 1.5]), r"dropout\[1\] must be in"),
        (having(l2=[0.1]), "l2 must be one number, or one for each of the 2 layers, got 1"),
        (having(l1=[0.1, -0.1]), r"l1\[1\] must be in"),
        (having(l1={"0": 1}), "l1 .* a list of numbers"),
        (having(input_scale=1), "input_scale .* true or false"),
        (having(input_scale=True), "tensors are missing: input_scale"),
        (having(dtype="float64"), r"layers\.0\.weight must be F64 of .* got F32"),
        (having(dtype="float16"), "dtype .* float32 or float64, got 'float16'"),
        (having(dtype=["float32"]), "dtype .* float32 or float64"),
        (having(seed="3"), "seed .* an integer, got '3'"),
        (having(seed=True), "seed .* an integer, got True"),
        (having(seed=-1), "seed"),
        (having(metadata=None), "metadata .* an object of texts, got None"),
        (having(metadata={"epochs": 3}), "metadata .* an object of texts"),
    ],
)
def test_wrong_header(saved: Path, change: Callable[[Header], object], message: str) -> None:
    header, tensors = read_parts(saved)
    write_parts(saved, change(header), tensors)
    with pytest.raises(ValueError, match=rf"(?s)net\.safetensors' as a network: .*{message}"):
        fm.MLP.load(saved)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "1" * 10_000, "\ud7ff", '{"format": NaN'])
def test_header_that_is_not_json(saved: Path, text: str) -> None:
    _, tensors = read_parts(saved)
    saved.write_bytes(to_safetensors(tensors, {"fastmlp": text}))
    with pytest.raises(ValueError, match=r"net\.safetensors' as a network: .* is not JSON"):
        fm.MLP.load(saved)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("layers.0.weight", None, r"missing: layers\.0\.weight"),
        ("layers.0.alpha", np.zeros(5, np.float32), r"no layer has: layers\.0\.alpha"),
        ("layers.1.bias", np.zeros(3, np.float32), r"layers\.1\.bias must be .*got F32 .*\(3,\)"),
        ("layers.1.bias", np.zeros((1, 2), np.float32), r"layers\.1\.bias must be .*\(1, 2\)"),
        ("layers.1.bias", np.zeros(2, np.float64), r"layers\.1\.bias must be .*got F64"),
        ("layers.1.bias", np.zeros(2, np.int32), r"layers\.1\.bias must be .*got I32"),
        ("layers.1.bias", np.array([0, np.nan], np.float32), r"bias holds NaN or infinity"),
        ("layers.1.bias", np.array([-np.inf, 0], np.float32), r"bias holds NaN or infinity"),
    ],
)
def test_wrong_tensor(saved: Path, name: str, values: np.ndarray | None, message: str) -> None:
    header, tensors = read_parts(saved)
    tensors.pop(name, None)
    if values is not None:
        tensors[name] = values
    write_parts(saved, header, tensors)
    with pytest.raises(ValueError, match=rf"net\.safetensors' as a network: .*{message}"):
        fm.MLP.load(saved)


def test_negative_variance(tmp_path: Path) -> None:
    net = fm.MLP([3, 4, 2], norm="batch")
    net.save(tmp_path / "net")
    header, tensors = read_parts(tmp_path / "net")
    tensors["layers.0.running_variance"][2] = net.running_variances[0][2] = -1
    write_parts(tmp_path / "net", header, tensors)
    message = r"layers\.0\.running_variance holds a negative number"
    with pytest.raises(ValueError, match=message):
        fm.MLP.load(tmp_path / "net")
    with pytest.raises(ValueError, match=message):
        net.save(tmp_path / "net")


# Damage: any change gives a ValueError or a network of the same shape with finite parameters


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Callable[[bytes], bool]]:
    path = tmp_path_factory.mktemp("damage") / "net.safetensors"
    small_net("float64").save(path)

    def is_refused(content: bytes) -> bool:
        path.write_bytes(content)
        try:
            net = fm.MLP.load(path)
        except ValueError as error:
            assert "net.safetensors" in str(error)  # noqa: PT017
            return True
        assert net.layer_sizes == (3, 5, 2)
        assert np.isfinite(net.theta).all()
        return False

    return path.read_bytes(), is_refused


def test_every_truncation_is_refused(damaged: tuple[bytes, Callable[[bytes], bool]]) -> None:
    content, is_refused = damaged
    assert all(is_refused(content[:length]) for length in range(len(content)))
    assert is_refused(content + b"\0")


def test_flipped_bits(damaged: tuple[bytes, Callable[[bytes], bool]]) -> None:
    content, is_refused = damaged
    assert not is_refused(content)
    rng = np.random.default_rng(0)
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        is_refused(bytes(changed))


@settings(max_examples=300, deadline=None)
@given(edits=st.data())
def test_random_edits(damaged: tuple[bytes, Callable[[bytes], bool]], edits: st.DataObject) -> None:
    content, is_refused = damaged
    for _ in range(edits.draw(st.integers(1, 4))):
        start = edits.draw(st.integers(0, len(content)))
        removed = edits.draw(st.integers(0, 12))
        content = content[:start] + edits.draw(st.binary(max_size=12)) + content[start + removed :]
    is_refused(content)


NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, 1, 10**400, 1e308]),
    st.floats(),
)
WORDS = st.sampled_from(
    ["", "tanh", "elu", "prelu", "huber", "pinball", "batch", "layer", "float32", "float64", "\0"]
)
FIELDS = st.sampled_from(
    ["name", "alpha", "per_unit", "epsilon", "momentum", "label_smoothing", "class_weight", "delta"]
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS, inner, max_size=3),
    max_leaves=6,
)


def replaced(value: Any, edits: st.DataObject) -> Any:
    """The value with something else in a random place."""
    if isinstance(value, dict) and value and edits.draw(st.booleans()):
        key = edits.draw(st.sampled_from(sorted(value)))
        return {**value, key: replaced(value[key], edits)}
    if isinstance(value, list) and value and edits.draw(st.booleans()):
        place = edits.draw(st.integers(0, len(value) - 1))
        return [*value[:place], replaced(value[place], edits), *value[place + 1 :]]
    return edits.draw(JSON)


@pytest.fixture(scope="module")
def rich_parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Header, Tensors]:
    path = tmp_path_factory.mktemp("hostile") / "net.safetensors"
    rich_net().save(path)
    return path, *read_parts(path)


def assert_refused_or_sound(path: Path) -> None:
    try:
        net = fm.MLP.load(path)
    except ValueError as error:
        assert "net.safetensors" in str(error)  # noqa: PT017
    else:
        assert net.layer_sizes == rich_net().layer_sizes
        assert np.isfinite(net.theta).all()
        net.save(path)


@settings(max_examples=200, deadline=None)
@given(edits=st.data())
def test_headers_that_say_anything(
    rich_parts: tuple[Path, Header, Tensors], edits: st.DataObject
) -> None:
    path, header, tensors = rich_parts
    for field in edits.draw(st.lists(st.sampled_from(sorted(header)), min_size=1, max_size=2)):
        header = {**header, field: replaced(header[field], edits)}
    write_parts(path, header, tensors)
    assert_refused_or_sound(path)


@settings(max_examples=100, deadline=None)
@given(
    place=st.integers(0, 15),
    dtype=st.sampled_from(["float16", "float32", "float64", "int8", "uint64", "bool"]),
    shape=st.lists(st.integers(0, 6), max_size=3),
    name=st.none() | st.sampled_from(["", "layers.9.weight", "layers.2.slope"]),
)
def test_tensors_that_are_anything(
    rich_parts: tuple[Path, Header, Tensors],
    place: int,
    dtype: str,
    shape: list[int],
    name: str | None,
) -> None:
    path, header, tensors = rich_parts
    instead = sorted(tensors)[place] if name is None else name
    write_parts(path, header, {**tensors, instead: np.ones(shape, dtype)})
    assert_refused_or_sound(path)


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b'{"a": {"dtype": "F32", "shape": [1099511627776, 1099511627776], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [0, 18446744073709551615], "data_offsets": [0, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}',
        b'{"__metadata__": {"fastmlp": 1}}',
        b'{"__metadata__": []}',
    ],
)
@pytest.mark.parametrize("length", [None, 0, 2**20, 100_000_001, 2**40, 2**64 - 1])
def test_headers_of_safetensors_itself(saved: Path, header: bytes, length: int | None) -> None:
    size = len(header) if length is None else length
    saved.write_bytes(size.to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises(ValueError, match=r"cannot load '.*net\.safetensors' as a network"):
        fm.MLP.load(saved)


def test_copies_of_a_slope_come_back(tmp_path: Path) -> None:
    net = fm.MLP([3, 4, 2], activation="prelu")
    net.slopes[0][...] = 0.75
    net.layout.spread(net.theta)
    net.save(tmp_path / "net")
    np.testing.assert_array_equal(fm.MLP.load(tmp_path / "net").theta, net.theta)


# Saving: the whole file or no change


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "no space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("exists", [True, False])
def test_failed_save_changes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    failure: BaseException,
    exists: bool,
) -> None:
    path = tmp_path / "net.safetensors"
    if exists:
        small_net().save(path)
    before = files_in(tmp_path)

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(failure)) as raised:
        small_net(seed=4).save(path)
    assert files_in(tmp_path) == before
    if isinstance(failure, OSError):
        assert isinstance(raised.value, OSError)
        assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(path))


def test_save_replaces_the_old_file_only(saved: Path) -> None:
    before = saved.read_bytes()
    small_net(seed=4).save(saved)
    assert files_in(saved.parent).keys() == {saved.name}
    assert saved.read_bytes() != before
    assert fm.MLP.load(saved).seed == 4


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_network_that_diverged_is_not_saved(saved: Path, bad: float) -> None:
    before = files_in(saved.parent)
    net = small_net()
    net.weights[1][2, 0] = bad
    with pytest.raises(ValueError, match=r"layers\.1\.weight holds NaN or infinity"):
        net.save(saved)
    assert files_in(saved.parent) == before


@pytest.mark.parametrize("metadata", [{"epochs": 3}, {3: "epochs"}])
def test_metadata_must_be_text(saved: Path, metadata: dict[Any, Any]) -> None:
    before = files_in(saved.parent)
    net = small_net()
    net.metadata.update(metadata)
    with pytest.raises(TypeError, match=r"metadata must be a dict of .*epochs"):
        net.save(saved)
    assert files_in(saved.parent) == before


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.net\.safetensors"):
        small_net().save(tmp_path / "nowhere" / "net.safetensors")
    assert not files_in(tmp_path)


def test_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    with pytest.raises(OSError, match="net"):
        small_net().save(tmp_path / "net")
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


posix = pytest.mark.skipif(os.name != "posix", reason="permissions and links as POSIX has them")


@contextlib.contextmanager
def ordinary_user() -> Iterator[None]:
    """Give up root's right to write anywhere, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@posix
def test_read_only_folder() -> None:
    # Not in tmp_path: its parents are closed to other users.
    with tempfile.TemporaryDirectory() as name:
        folder, net = Path(name), small_net(seed=4)
        path = folder / "net.safetensors"
        small_net().save(path)
        before = files_in(folder)
        folder.chmod(0o555)
        try:
            with ordinary_user(), pytest.raises(PermissionError, match=r"net\.safetensors"):
                net.save(path)
        finally:
            folder.chmod(0o755)
        assert files_in(folder) == before


@posix
def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    small_net().save(tmp_path / "net")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "net")}
    assert len(modes) == 1


@posix
def test_symbolic_link_stays(saved: Path) -> None:
    link = saved.with_name("latest")
    link.symlink_to(saved.name)
    small_net(seed=4).save(link)
    assert link.is_symlink()
    assert fm.MLP.load(saved).seed == 4
