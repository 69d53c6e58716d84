"""Names: what other libraries call it is answered with what it is called here."""

import pytest

from fastmlp import activations, initializers, losses, norms, optimizers
from fastmlp._cli.config import OPTIMIZERS, SCHEDULES
from fastmlp._names import _ELSEWHERE, check_name, meant
from fastmlp.stopping import MONITORS

KNOWN = {
    *activations.NAMES,
    *initializers.NAMES,
    *losses.NAMES,
    *norms.NAMES,
    *MONITORS,
    *OPTIMIZERS,
    *SCHEDULES,
}


@pytest.mark.parametrize(
    ("name", "names", "expected"),
    [
        ("swish", activations.NAMES, "silu"),
        ("Linear", activations.NAMES, "identity"),
        ("LeakyReLU", activations.NAMES, "leaky_relu"),
        ("leaky-relu", activations.NAMES, "leaky_relu"),
        ("soft plus", activations.NAMES, "softplus"),
        ("rleu", activations.NAMES, "relu"),
        ("CrossEntropyLoss", losses.NAMES, "softmax_cross_entropy"),
        ("sparse_categorical_crossentropy", losses.NAMES, "softmax_cross_entropy"),
        ("log_loss", losses.NAMES, "softmax_cross_entropy"),
        ("BCEWithLogitsLoss", losses.NAMES, "binary_cross_entropy"),
        ("binary_crossentropy", losses.NAMES, "binary_cross_entropy"),
        ("MSELoss", losses.NAMES, "squared_error"),
        ("mean_squared_error", losses.NAMES, "squared_error"),
        ("mae", losses.NAMES, "absolute_error"),
        ("SmoothL1Loss", losses.NAMES, "huber"),
        ("xavier", initializers.NAMES, "glorot_uniform"),
        ("he_norml", initializers.NAMES, "he_normal"),
        ("layernorm", norms.NAMES, "layer"),
        ("ADAMW", optimizers.__all__, "AdamW"),
        ("CosineAnnealingLR", SCHEDULES, "cosine"),
        ("StepLR", SCHEDULES, "step"),
        ("ReduceLROnPlateau", SCHEDULES, "reduce_on_plateau"),
        ("val_acc", MONITORS, "val_accuracy"),
        ("nothing like it", losses.NAMES, None),
        ("swish", losses.NAMES, None),
        ("", activations.NAMES, None),
    ],
)
def test_what_is_meant(name: str, names: list[str], expected: str | None) -> None:
    assert meant(name, names) == expected


def test_synonyms_are_of_names_that_exist() -> None:
    assert set(_ELSEWHERE.values()) <= KNOWN
    assert not _ELSEWHERE.keys() & KNOWN


def test_message() -> None:
    assert check_name("one", "number", ["one", "two"]) == "one"
    with pytest.raises(ValueError, match=r"^number must be one of one, two, got 'tow'; did you"):
        check_name("tow", "number", ["one", "two"])
    with pytest.raises(ValueError, match=r"got 1$"):
        check_name(1, "number", ["one", "two"])
    with pytest.raises(ValueError, match=r"got 'x'$"):
        check_name("x", "number", ["one", "two"])
