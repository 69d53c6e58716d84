"""ONNX: what is written computes what we compute, and what others write is read.

FASTMLP_TEST_CASES sets how many random networks are compared with ONNX Runtime.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastmlp as fm
from fastmlp import activations, exchange
from fastmlp.exchange import chain, formulas, onnx_export

onnx = pytest.importorskip("onnx", reason="reads and writes ONNX: pip install onnx")
pytest.importorskip("onnxruntime", reason="runs ONNX: pip install onnxruntime")
onnx_agreement = pytest.importorskip("onnx_agreement")
pytestmark = pytest.mark.jit  # hundreds of networks predict

NETWORKS = int(os.environ.get("FASTMLP_TEST_CASES", "104"))
PAIRS = 104  # that many in a row have each activation with each loss


def rich_net(dtype: str = "float32") -> fm.MLP:
    """A network that has something of everything, no number of which is what it is by default."""
    net = fm.MLP(
        [3, 5, 17, 4, 1, 3],
        activation=[
            fm.Activation("prelu", alpha=0.1),
            fm.Activation("prelu", alpha=0.2, per_unit=True),
            fm.Activation("elu", alpha=0.7),
            fm.Activation("prelu", alpha=0.3, per_unit=True),
        ],
        loss=fm.Loss("softmax_cross_entropy", label_smoothing=0.1, class_weight=[1, 2, 3]),
        norm=[fm.BatchNorm(1e-3, momentum=0.3), fm.LayerNorm(1e-4), None, None],
        dropout=[0.1, 0.2, 0.0, 0.4, 0.0],
        l2=[0.1, 0.2, 0.3, 0.4, 0.5],
        l1=[0.0, 0.01, 0.02, 1 / 3, 0.0],
        seed=2**62 + 1,
        dtype=dtype,
    )
    onnx_agreement.networks.randomize(np.random.default_rng(5), net)
    net.metadata.update({"class_names": '["ä", "b", "c"]', "": "empty key"})
    return net


def read(text: str, loss: str | None = None) -> fm.MLP:
    """The network of a graph in ONNX's own text."""
    return fm.MLP.from_onnx(onnx.parser.parse_model(HEAD + text), loss=loss)


HEAD = '<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 1, "nobody.knows": 1]>\n'
WEIGHTS = "float[2, 3] W = {1, -2, 3, 4, 5, -6}, float[3, 1] V = {1, 1, -1}, float[1] b = {0.5}"


def body(nodes: str, constants: str = "") -> str:
    """A graph of one hidden layer whose activation is what the nodes make of z."""
    more = f", {constants}" if constants else ""
    return (
        f"mlp (float[n, 2] x) => (float[n, 1] y) <{WEIGHTS}{more}> "
        f"{{ z = MatMul(x, W) {nodes} y = Gemm(a, V, b) }}"
    )


def assert_same_as_runtime(net: fm.MLP, model: Any, samples: int = 20) -> None:
    X = np.random.default_rng(0).normal(size=(samples, net.layer_sizes[0])).astype(net.dtype)
    (theirs,) = (v for v in onnx_agreement.run(model, X).values() if v.dtype == net.dtype)
    ours = net.predict_proba(X) if net.is_classifier else net.predict(X)
    np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=2e-6)


# Written


def test_onnx_runtime_agrees_to_1e_6() -> None:
    worst = 0.0
    for number in range(NETWORKS):
        net, X = onnx_agreement.random_network(number, "float32")
        for output, (error, _) in onnx_agreement.errors(net, X).items():
            assert error < 1e-6, (number, output, net)
            worst = max(worst, error)
    assert worst > 0


def test_float64_agrees_to_rounding() -> None:
    for number in range(PAIRS // 2):
        net, X = onnx_agreement.random_network(number, "float64")
        is_gelu = net.activation[0].name == "gelu"  # ONNX Runtime's Erf is float32
        for output, (_, error) in onnx_agreement.errors(net, X).items():
            assert error < (1e-6 if is_gelu else 1e-13), (number, output, net)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_agreement_needs_no_optimizer_of_graphs(dtype: str) -> None:
    for number in range(13):
        net, X = onnx_agreement.random_network(number, dtype)
        for error, _ in onnx_agreement.errors(net, X, optimize=False).values():
            assert error < 1e-6


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", fm.losses.NAMES)
@pytest.mark.parametrize("outputs", [1, 4])
def test_outputs_of_each_loss(loss: str, outputs: int, dtype: str) -> None:
    if loss == "softmax_cross_entropy":
        outputs += 1
    net = fm.MLP([3, 4, outputs], loss=loss, norm="batch", dtype=dtype)
    model = onnx_export.model_of(net)
    onnx.checker.check_model(model, full_check=True)
    kind = onnx.helper.np_dtype_to_tensor_dtype(net.dtype)
    (given_,) = model.graph.input
    assert (given_.name, given_.type.tensor_type.elem_type) == ("X", kind)
    assert [d.dim_param or d.dim_value for d in given_.type.tensor_type.shape.dim] == ["n", 3]
    for samples in (1, 5):  # of one file
        X = np.random.default_rng(1).normal(size=(samples, 3)).astype(dtype)
        theirs, ours = onnx_agreement.run(model, X), onnx_agreement.expected(net, X)
        assert list(theirs) == list(ours)
        for name, values in ours.items():
            assert theirs[name].dtype == values.dtype
            np.testing.assert_allclose(theirs[name], values, rtol=1e-5, atol=1e-6)


def test_every_network_is_valid_and_of_opset_13() -> None:
    for number in range(39):
        for dtype in ("float32", "float64"):
            model = onnx_export.model_of(onnx_agreement.random_network(number, dtype)[0])
            onnx.checker.check_model(model, full_check=True)
            assert [(o.domain, o.version) for o in model.opset_import] == [("", 13)]


def test_scale_of_the_inputs_is_in_the_weights(tmp_path: Path) -> None:
    net = fm.MLP([3, 5, 2], input_scale=True, loss="squared_error", dtype="float64")
    net.input_scale[...] = 0.5, -2.0, 3.0
    net.to_onnx(tmp_path / "net.onnx")
    read = fm.MLP.from_onnx(tmp_path / "net.onnx")
    X = np.random.default_rng(0).normal(size=(7, 3))
    assert not read.architecture.input_scale
    np.testing.assert_allclose(read.predict(X), net.predict(X), rtol=1e-13, atol=1e-15)


def test_metadata_are_kept(tmp_path: Path) -> None:
    rich_net().to_onnx(tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    header = json.loads(metadata.pop("fastmlp"))
    assert metadata == rich_net().metadata == header["metadata"]
    assert model.producer_name == "fastmlp"


def test_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = rich_net()
    path = tmp_path / "net.onnx"
    net.to_onnx(path)
    before = path.read_bytes()
    monkeypatch.setattr(onnx_export, "LARGEST", 100)
    with pytest.raises(ValueError, match=r"at most 2 GiB, the parameters have [\d,]+ bytes"):
        net.to_onnx(path)
    net.weights[1][0, 0] = np.nan
    with pytest.raises(ValueError, match=r"layers\.1\.weight holds NaN"):
        net.to_onnx(path)
    net.metadata["epochs"] = 3  # type: ignore[assignment]
    with pytest.raises(TypeError, match="metadata must be a dict of str"):
        net.to_onnx(path)
    assert path.read_bytes() == before


def test_missing_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'to_onnx needs onnx: pip install "fastmlp\[onnx\]"'):
        rich_net().to_onnx(tmp_path / "net.onnx")
    with pytest.raises(ImportError, match=r'from_onnx needs onnx: pip install "fastmlp\[onnx\]"'):
        fm.MLP.from_onnx(tmp_path / "net.onnx")


# Read again


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_round_trip_is_exact(tmp_path: Path, dtype: str) -> None:
    nets = [onnx_agreement.random_network(number, dtype)[0] for number in range(39)]
    nets += [rich_net(dtype), fm.MLP([2, 1], loss="poisson", dtype=dtype)]
    for net in nets:
        net.to_onnx(tmp_path / "net.onnx")
        again = fm.MLP.from_onnx(tmp_path / "net.onnx")
        assert (repr(again), again.loss, again.metadata) == (repr(net), net.loss, net.metadata)
        for name in ("weights", "biases", "slopes", "gains", "shifts"):
            for mine, its in zip(getattr(net, name), getattr(again, name), strict=True):
                np.testing.assert_array_equal(its, mine, strict=True)
        np.testing.assert_array_equal(again.running, net.running, strict=True)
        again.to_onnx(tmp_path / "again.onnx")
        assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "net.onnx").read_bytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_graph_alone_tells_the_predictions(dtype: str) -> None:
    for number in range(39):  # each activation with each norm
        net, X = onnx_agreement.random_network(number, dtype)
        model = onnx_export.model_of(net)
        del model.metadata_props[:]
        read_ = fm.MLP.from_onnx(model)
        assert [f.name for f in read_.activation] == [f.name for f in net.activation]
        assert list(map(type, read_.norm)) == list(map(type, net.norm))
        assert read_.is_classifier == net.is_classifier
        tolerance = 1e-12 if dtype == "float64" else 1e-4
        np.testing.assert_allclose(
            read_.decision_function(X), net.decision_function(X), tolerance, tolerance
        )


def test_metadata_may_have_been_changed() -> None:
    net = fm.MLP([2, 3, 1], loss="huber")
    net.metadata["note"] = "old"
    model = onnx_export.model_of(net)
    onnx.helper.set_model_props(
        model, {e.key: "new" if e.key == "note" else e.value for e in model.metadata_props}
    )
    again = fm.MLP.from_onnx(model)
    assert (again.loss, again.metadata) == (net.loss, {"note": "new"})


def test_graph_that_was_changed_is_believed() -> None:
    net = fm.MLP([2, 3, 1], activation="leaky_relu", loss="huber", seed=3)
    net.metadata["note"] = "text"
    model = onnx_export.model_of(net)
    assert fm.MLP.from_onnx(model).loss == net.loss
    (node,) = (n for n in model.graph.node if n.op_type == "LeakyRelu")
    node.attribute[0].f = 0.5
    changed = fm.MLP.from_onnx(model)
    assert changed.activation == (fm.Activation("leaky_relu", alpha=0.5),)
    assert changed.loss == fm.Loss("squared_error")
    assert changed.metadata == {"note": "text"}
    assert_same_as_runtime(changed, model)


# Written by others

ROOT, THIRD = "float c = {1.4142135}", "float k = {0.044715}, float s = {0.7978846}"
ONE = "float one = {1}, float half = {0.5}"


@pytest.mark.parametrize(
    ("activation", "nodes", "constants"),
    [
        ("identity", "a = Identity(z)", ""),
        ("relu", "a = Relu(z)", ""),
        ("elu(0.3)", "a = Elu<alpha = 0.3>(z)", ""),
        ("elu(1.0)", "a = Elu(z)", ""),
        ("leaky_relu(0.01)", "a = LeakyRelu(z)", ""),
        ("prelu(0.25, per_unit)", "a = PRelu(z, p)", "float[1, 3] p = {0.1, 0.2, -0.3}"),
        ("prelu(0.25)", "a = PRelu(z, p)", "float[1] p = {0.2}"),
        ("silu", "g = Sigmoid(z) a = Mul(g, z)", ""),
        ("mish", "s = Softplus(z) t = Tanh(s) a = Mul(z, t)", ""),
        (
            "softplus",
            "far = Greater(z, t) s = Softplus(z) a = Where(far, z, s)",
            "float t = {20}",
        ),
        (
            "gelu",
            "d = Div(z, c) e = Erf(d) f = Add(e, one) g = Mul(z, f) a = Mul(g, half)",
            f"{ROOT}, {ONE}",
        ),
        (
            "gelu",
            "d = Div(z, c) e = Erf(d) f = Add(one, e) g = Mul(half, f) a = Mul(g, z)",
            f"{ROOT}, {ONE}",
        ),
        (
            "gelu_tanh",
            "p = Pow(z, three) q = Mul(k, p) r = Add(z, q) t = Mul(s, r) u = Tanh(t) "
            "v = Add(u, one) w = Mul(half, v) a = Mul(z, w)",
            f"{THIRD}, {ONE}, float three = {{3}}",
        ),
        ("relu", "d = Dropout(z) e = Cast<to = 1>(d) a = Relu(e)", ""),
    ],
)
def test_activations_of_others(activation: str, nodes: str, constants: str) -> None:
    text = body(nodes, constants)
    net = read(text)
    assert [str(f) for f in net.activation] == [activation]
    assert_same_as_runtime(net, onnx.parser.parse_model(HEAD + text))


NORMED = "float[3] g = {1, 2, 3}, float[3] h = {0, 1, -1}"
STATISTICS = "float[3] m = {0.5, 0, 1}, float[3] v = {1, 2, 3}"


@pytest.mark.parametrize(
    ("norm", "nodes", "constants"),
    [
        (
            fm.BatchNorm(0.01, momentum=0.25),
            "u = BatchNormalization<epsilon = 0.01, momentum = 0.75>(z, g, h, m, v) a = Tanh(u)",
            f"{NORMED}, {STATISTICS}",
        ),
        (fm.LayerNorm(), "u = LayerNormalization(z, g, h) a = Tanh(u)", NORMED),
        (fm.LayerNorm(), "u = LayerNormalization<axis = 1>(z, g) a = Tanh(u)", NORMED),
        (
            fm.LayerNorm(0.25),
            "m = ReduceMean<axes = [1]>(z) d = Sub(z, m) q = Pow(d, two) "
            "v = ReduceMean<axes = [-1]>(q) w = Add(v, e) r = Sqrt(w) n = Div(d, r) "
            "p = Mul(n, g) u = Add(p, h) a = Tanh(u)",
            f"{NORMED}, float two = {{2}}, float e = {{0.25}}",
        ),
    ],
)
def test_norms_of_others(norm: Any, nodes: str, constants: str) -> None:
    text = body(nodes, constants)
    net = read(text)
    assert net.norm == (norm,)
    assert_same_as_runtime(net, onnx.parser.parse_model(HEAD + text))


@pytest.mark.parametrize(
    ("loss", "head"),
    [
        ("squared_error", "p = Identity(y)"),
        ("softmax_cross_entropy", "p = Softmax(y)"),
        ("binary_cross_entropy", "p = Sigmoid(y)"),
        ("poisson", "p = Exp(y)"),
    ],
)
def test_ends_of_others(loss: str, head: str) -> None:
    text = (
        "mlp (float[n, 2] x) => (float[n, 3] p) <float[3, 2] W = {1, -2, 3, 4, 5, -6}, "
        f"float[3] b = {{1, 2, 3}}> {{ y = Gemm<transB = 1>(x, W, b) {head} }}"
    )
    net = read(text)
    assert net.loss == fm.Loss(loss)
    np.testing.assert_array_equal(net.weights[0], [[1, 3, 5], [-2, 4, -6]])
    assert_same_as_runtime(net, onnx.parser.parse_model(HEAD + text))


def test_classifier_as_sklearns_converter_writes_it() -> None:
    text = """mlp (double[n, 2] X) => (string[n] output_label, float[n, 2] probabilities)
    <float[2, 1] W = {1, -2}, float[1, 1] b = {0.5}, float one = {1}, string[2] classes =
     {"a", "b"}, int64[1] flat = {-1}>
    { cast = Cast<to = 1>(X)
      scaled = ai.onnx.ml.Scaler<offset = [1.0, 2.0], scale = [2.0, 0.5]>(cast)
      product = MatMul(scaled, W)
      sum = Add(product, b)
      p = Sigmoid(sum)
      q = Sub(one, p)
      probabilities = Concat<axis = 1>(q, p)
      best = ArgMax<axis = 1>(probabilities)
      names = ai.onnx.ml.ArrayFeatureExtractor(classes, best)
      output_label = Reshape(names, flat) }"""
    net = read(text)
    assert (net.layer_sizes, net.loss.name) == ((2, 1), "binary_cross_entropy")
    assert net.metadata == {"class_names": '["a", "b"]'}
    np.testing.assert_allclose(net.weights[0], [[2], [-1]])
    np.testing.assert_allclose(net.biases[0], [0.5 - 2 + 2])


def test_label_alone_makes_a_classifier() -> None:
    net = read(
        "mlp (float[n, 2] x) => (int64[n] y) <float[2, 3] W = {1, 2, 3, 4, 5, 6}> "
        "{ z = MatMul(x, W) y = ArgMax<axis = 1, keepdims = 0>(z) }"
    )
    assert net.loss == fm.Loss("softmax_cross_entropy")


@pytest.mark.parametrize("exporter", ["TorchScript", "dynamo"])
@pytest.mark.filterwarnings("ignore")  # of the exporters
def test_what_pytorch_exports(tmp_path: Path, exporter: str) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch: pip install torch")
    if exporter == "dynamo":
        pytest.importorskip("onnxscript", reason="exports: pip install onnxscript")
    nn = torch.nn
    functions = [nn.ReLU(), nn.Sigmoid(), nn.Tanh(), nn.Softplus(), nn.LeakyReLU(0.2), nn.PReLU(6)]
    functions += [nn.ELU(0.7), nn.SELU(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Mish()]
    layers = [nn.Linear(4, 6), nn.BatchNorm1d(6)]
    for function in functions:
        layers += [function, nn.Linear(6, 6), nn.Dropout(0.1)]
    layers += [nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 3, bias=False), nn.Softmax(1)]
    model, X = nn.Sequential(*layers).eval(), torch.randn(8, 4)
    path = tmp_path / "net.onnx"
    torch.onnx.export(model, (X,), str(path), dynamo=exporter == "dynamo", opset_version=18)
    net = fm.MLP.from_onnx(path)
    assert [f.name for f in net.activation] == [
        *("relu", "sigmoid", "tanh", "softplus", "leaky_relu", "prelu", "elu", "selu"),
        *("gelu", "gelu_tanh", "silu", "mish", "relu"),
    ]
    np.testing.assert_allclose(
        net.predict_proba(X.numpy()), model(X).detach().numpy(), rtol=1e-5, atol=1e-6
    )


@pytest.mark.filterwarnings("ignore")  # of the converter
def test_what_sklearns_converter_writes() -> None:
    skl2onnx = pytest.importorskip("skl2onnx", reason="converts: pip install skl2onnx")
    neural_network = pytest.importorskip("sklearn.neural_network")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    pipeline = pytest.importorskip("sklearn.pipeline")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4)).astype(np.float32)
    for y in (rng.integers(0, 3, 60), np.array(["no", "yes"])[rng.integers(0, 2, 60)]):
        model = pipeline.make_pipeline(
            preprocessing.StandardScaler(), neural_network.MLPClassifier((5, 4), max_iter=3)
        ).fit(X, y)
        net = fm.MLP.from_onnx(skl2onnx.to_onnx(model, X[:1]))
        assert net.layer_sizes == (4, 5, 4, 3 if y.dtype.kind == "i" else 1)
        np.testing.assert_allclose(net.predict_proba(X), model.predict_proba(X), atol=1e-5)


# Loss


def test_loss_of_a_graph_that_does_not_tell() -> None:
    assert read(body("a = Relu(z)"), "absolute_error").loss == fm.Loss("absolute_error")


def test_sigmoid_of_a_regression_is_an_activation() -> None:
    text = body("a = Relu(z)").replace("y = Gemm(a, V, b)", "s = Gemm(a, V, b) y = Sigmoid(s)")
    assert read(text).loss == fm.Loss("binary_cross_entropy")
    net = read(text, "squared_error")
    assert (net.layer_sizes, net.activation[1].name) == ((2, 3, 1, 1), "sigmoid")
    assert_same_as_runtime(net, onnx.parser.parse_model(HEAD + text))
    softmax = text.replace("Sigmoid(s)", "Softmax(s)")
    with pytest.raises(ValueError, match=r"node 'y' \(Softmax\) is not understood"):
        read(softmax, "squared_error")


def test_loss_that_the_file_knows_may_be_another(tmp_path: Path) -> None:
    net = fm.MLP([2, 3, 1], loss="huber", dropout=0.5)
    net.to_onnx(tmp_path / "net.onnx")
    other = fm.MLP.from_onnx(tmp_path / "net.onnx", loss="absolute_error")
    assert (other.loss, other.dropout) == (fm.Loss("absolute_error"), net.dropout)


# What is not understood


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (body("a = Sin(z)"), r"node 'a' \(Sin\) is not understood as a part of a network"),
        (body("r = Relu(z) a = Add(r, z)"), r"node 'a' \(Add\) is not understood"),
        (body("s = Sigmoid(z) q = Sin(z) a = Mul(q, s)"), r"node 'a' \(Mul\) is not understood"),
        (body("a = Clip(z, lo, hi)", "float lo = {0}, float hi = {6}"), r"'a' \(Clip\)"),
        (body("f = Cast<to = 10>(z) g = Relu(f) a = Cast<to = 1>(g)"), r"\(Cast\)"),
        (body("s = Add(z, c) a = Tanh(s)", "float[3, 1] c = {1, 2, 3}"), "bias must have shape"),
        (body("a = nobody.knows.Relu(z)"), r"node 'a' \(nobody\.knows\.Relu\) is not understood"),
        (body("a = PRelu(z, p)", "float[2] p = {1, 2}"), r"'a' \(PRelu\): slope must have shape"),
        (
            body(
                "u = BatchNormalization(z, g, g, g, v) a = Tanh(u)",
                "float[3] g = {1, 1, 1}, float[3] v = {1, -1, 0}",
            ),
            r"layers\.0\.running_variance holds a negative number",
        ),
        (body("a = Softplus(z)").replace("Gemm(", "Gemm<alpha = 2.0>("), r"'y' \(Gemm\) is not"),
        (
            body("a = Relu(z)").replace("(float[n, 2] x)", "(float[n, 2] x, float[n] w)"),
            "one input",
        ),
        (body("a = Relu(z)").replace("[n, 2] x", "[n, 2, 2] x"), "a matrix, it has 3 axes"),
        (body("a = Relu(q)"), "q"),
        (body("a = Relu(z)").replace("{1, 1, -1}", "{1, inf, -1}"), "weight holds NaN or inf"),
        ("m (float[n, 2] x) => (float[1] y) <float[1] c = {1}> { y = Relu(c) }", "Relu|depend"),
        ("m (float[n, 2] x) => (float[n, 2] y) { y = Relu(x) }", "must be a linear map before"),
        ("m (float[n, 2] x) => (float[n, 2] y) { y = Identity(x) }", "there is no linear map"),
        (
            "m (float[n, 2] x) => (float[n, 3] y, float[n, 3] p) <float[2, 3] W = {1, 2, 3, 4, 5, "
            "6}> { y = MatMul(x, W) q = Relu(y) p = Softmax(q) }",
            "outputs y, p are not those of one network",
        ),
        (
            "m (float[n, 2] x) => (float[n, 1] y) <float[2, 2] W = {1, 2, 3, 4}, int64[2] s = "
            "{-1, 1}> { z = MatMul(x, W) y = Reshape(z, s) }",
            r"'y' \(Reshape\): the shape must be \[-1, 2\], got \[-1, 1\]",
        ),
    ],
)
def test_errors_name_the_node(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s)cannot load the model as a network: .*{message}"):
        read(text)


def test_identities_have_a_largest_width(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(body("q = Relu(z) a = Tanh(q)")).layer_sizes == (2, 3, 3, 1)
    monkeypatch.setattr(chain, "WIDEST", 2)
    with pytest.raises(ValueError, match=r"'a' \(Tanh\): it needs a linear map of its own, and 3"):
        read(body("q = Relu(z) a = Tanh(q)"))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.onnx"):
        fm.MLP.from_onnx(tmp_path / "nothing.onnx")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Any]:
    path = tmp_path_factory.mktemp("damage") / "net.onnx"
    fm.MLP([2, 3, 2], activation="gelu", norm="layer").to_onnx(path)

    def is_refused(content: bytes) -> bool:
        path.write_bytes(content)
        try:
            net = exchange.from_onnx(path)
        except ValueError as error:
            assert "net.onnx' as a network" in str(error)  # noqa: PT017
            return True
        assert np.isfinite(net.theta).all()
        return False

    return path.read_bytes(), is_refused


def test_truncations_are_refused(damaged: tuple[bytes, Any]) -> None:
    content, is_refused = damaged
    assert not is_refused(content)
    # what is cut off at the end may be an entry that a protobuf can lack
    assert all(is_refused(content[:length]) for length in range(0, len(content) // 2, 3))


@settings(max_examples=150, deadline=None)
@given(edits=st.data())
def test_damage_gives_a_value_error_or_a_network(
    damaged: tuple[bytes, Any], edits: st.DataObject
) -> None:
    content, is_refused = damaged
    for _ in range(edits.draw(st.integers(1, 4))):
        start = edits.draw(st.integers(0, len(content)))
        removed = edits.draw(st.integers(0, 12))
        content = content[:start] + edits.draw(st.binary(max_size=12)) + content[start + removed :]
    is_refused(content)


def test_all_activations_are_covered() -> None:
    written = formulas.WRITTEN
    assert set(written) == set(formulas.WRITTEN_DOUBLE) == set(activations.NAMES)
