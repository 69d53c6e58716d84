"""Names that users choose by, and what to say of one that does not exist."""

from collections.abc import Iterable

__all__ = ["check_name", "meant"]

# What PyTorch, Keras and scikit-learn call it, letters and digits only: what it is called here.
_ELSEWHERE = {
    "acc": "accuracy",
    "batchnormalization": "batch",
    "batchnorm": "batch",
    "bce": "binary_cross_entropy",
    "bcewithlogits": "binary_cross_entropy",
    "categoricalcrossentropy": "softmax_cross_entropy",
    "cosineannealing": "cosine",
    "cosinedecay": "cosine",
    "crossentropy": "softmax_cross_entropy",
    "exponentialdecay": "exponential",
    "gd": "gradient_descent",
    "glorot": "glorot_uniform",
    "he": "he_normal",
    "kaiming": "he_normal",
    "kaimingnormal": "he_normal",
    "kaiminguniform": "he_uniform",
    "l1": "absolute_error",
    "layernormalization": "layer",
    "layernorm": "layer",
    "lecun": "lecun_normal",
    "linear": "identity",
    "log": "softmax_cross_entropy",
    "logistic": "sigmoid",
    "mae": "absolute_error",
    "meanabsoluteerror": "absolute_error",
    "meansquarederror": "squared_error",
    "mse": "squared_error",
    "nll": "softmax_cross_entropy",
    "poissonnll": "poisson",
    "quantile": "pinball",
    "smoothl1": "huber",
    "sparsecategoricalcrossentropy": "softmax_cross_entropy",
    "swish": "silu",
    "valacc": "val_accuracy",
    "xavier": "glorot_uniform",
    "xaviernormal": "glorot_normal",
    "xavieruniform": "glorot_uniform",
}


def meant(value: str, names: Iterable[str]) -> str | None:
    """Return the name that a wrong one may stand for, if there is any.

    Examples
    --------
    >>> meant("LeakyReLU", ["relu", "leaky_relu"]), meant("MSELoss", ["huber", "squared_error"])
    ('leaky_relu', 'squared_error')
    """
    from difflib import get_close_matches

    known = {_plain(name): name for name in names}
    plain = _plain(value)
    for text in (plain, plain.removesuffix("loss"), plain.removesuffix("lr")):
        if text in known:
            return known[text]
        if (name := _ELSEWHERE.get(text)) in known.values():
            return name
    close = get_close_matches(plain, known, 1)
    return known[close[0]] if close else None


def check_name(value: object, argument: str, names: Iterable[str]) -> str:
    """Return one of the names; ValueError if it is none, with the one that may be meant."""
    names = list(names)
    if isinstance(value, str) and value in names:
        return value
    name = meant(value, names) if isinstance(value, str) else None
    hint = "" if name is None else f"; did you mean {name!r}?"
    raise ValueError(f"{argument} must be one of {', '.join(names)}, got {value!r}{hint}")


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))
