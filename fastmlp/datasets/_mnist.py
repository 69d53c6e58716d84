"""MNIST, whole from its IDX files or the digits 1, 5 and 7 from the package.

Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document
recognition", Proceedings of the IEEE 86 (1998), 2278-2324.
"""

import os
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastmlp.datasets._dataset import Dataset
from fastmlp.datasets._idx import read_idx

_IMAGE_SHAPE = (28, 28)
_MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
# sha256 of the files as they are published, gzip-compressed; training files first, images first.
_GZIP_SHA256 = {
    "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}


def load_mnist157() -> Dataset:
    """Load the digits 1, 5 and 7 of MNIST, which come with the package.

    Returns
    -------
    Dataset
        18,428 training and 3,055 test samples in MNIST's order, 784 pixels each, 0 to 1;
        the labels 0, 1, 2 stand for the digits 1, 5, 7.

    Examples
    --------
    >>> from fastmlp.datasets import load_mnist157
    >>> data = load_mnist157()
    >>> data.X_train.shape
    (18428, 784)
    >>> data.class_names
    ('1', '5', '7')
    >>> data.y_train[:8]
    array([1, 0, 0, 0, 1, 0, 2, 0])
    """
    digits = (1, 5, 7)
    with np.load(mnist157_file()) as arrays:
        return Dataset(
            X_train=_as_features(arrays["train_images"]),
            y_train=np.searchsorted(digits, arrays["train_labels"]).astype(np.int64),
            X_test=_as_features(arrays["test_images"]),
            y_test=np.searchsorted(digits, arrays["test_labels"]).astype(np.int64),
            class_names=tuple(map(str, digits)),
            name="mnist157",
        )


def load_mnist(path: str | os.PathLike[str] | None = None) -> Dataset:
    """Load MNIST from its four IDX files, plain or gzip-compressed.

    Sets in the same files and format, such as Fashion-MNIST, load as well; their classes are then
    named "0" to "9" too.

    Parameters
    ----------
    path : str or path-like, optional
        The folder with ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
        ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``, each as it is or with ``.gz``
        added; if both are there, the plain one is read. By default the files are downloaded once,
        12 MB, to the user's cache folder and compared with their published checksums; that needs
        the extra ``data`` (pooch).

    Returns
    -------
    Dataset
        60,000 training and 10,000 test samples, 784 pixels each, 0 to 1; the labels are the digits.

    Raises
    ------
    FileNotFoundError
        If a file is not in the folder.
    ValueError
        If a file is damaged or is not what its name says, images and labels differ in number, or a
        download does not have its checksum.
    ImportError
        If there is no path, and no pooch.

    Examples
    --------
    >>> from fastmlp.datasets import load_mnist
    >>> data = load_mnist("folder/with/mnist")  # doctest: +SKIP
    """
    folder = _download() if path is None else Path(path)
    train_images, train_labels, test_images, test_labels = find_files(folder)
    X_train, y_train = _read_samples(train_images, train_labels)
    X_test, y_test = _read_samples(test_images, test_labels)
    return Dataset(
        X_train=X_train,
        y_train=y_train,
        X_test=X_test,
        y_test=y_test,
        class_names=tuple("0123456789"),
        name="mnist",
    )


def mnist157_file() -> Path:
    """Return the file that comes with the package."""
    return Path(str(resources.files("fastmlp.datasets").joinpath("mnist157.npz")))


def mnist_folder() -> Path:
    """Return the folder that MNIST is downloaded to.

    Raises
    ------
    ImportError
        If there is no pooch, which knows the user's cache folder.
    """
    return Path(_import_pooch().os_cache("fastmlp")) / "mnist"


def _import_pooch() -> Any:
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            'load_mnist without a path downloads and needs pooch: pip install "fastmlp[data]"'
        ) from error
    return pooch


def _download() -> Path:
    """Download the files that the cache does not hold already; return their folder."""
    cache = _import_pooch().create(
        path=mnist_folder(),
        base_url=_MIRROR,
        registry={f"{name}.gz": f"sha256:{digest}" for name, digest in _GZIP_SHA256.items()},
    )
    for name in cache.registry_files:
        cache.fetch(name)
    return Path(cache.path)


def find_files(folder: Path) -> list[Path]:
    """Return the paths of the four files in the order of ``_GZIP_SHA256``."""
    found = {
        name: candidate
        for name in _GZIP_SHA256
        for candidate in (folder / f"{name}.gz", folder / name)
        if candidate.is_file()
    }
    missing = [name for name in _GZIP_SHA256 if name not in found]
    if missing:
        raise FileNotFoundError(
            f"load_mnist looked in {folder} for {', '.join(_GZIP_SHA256)}, each plain or with .gz "
            f"added; not found: {', '.join(missing)}"
        )
    return list(found.values())


def _read_samples(
    images_path: Path, labels_path: Path
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read images and their labels; return X (n, 784) and y (n,)."""
    images = read_idx(images_path, _IMAGE_SHAPE)
    labels = read_idx(labels_path, ())
    if len(images) != len(labels):
        raise ValueError(
            f"{images_path} holds {len(images)} images, but {labels_path} {len(labels)} labels"
        )
    if labels.max() > 9:
        raise ValueError(f"{labels_path} must hold the labels 0 to 9, found {labels.max()}")
    return _as_features(images), labels.astype(np.int64)


def _as_features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Flatten images (n, 28, 28) to rows and scale their bytes to 0 to 1."""
    return np.divide(images.reshape(len(images), -1), 255, dtype=np.float32)
