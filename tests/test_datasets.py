"""The data sets: what they hold, and that no damaged or wrong file is taken for one."""

import dataclasses
import gzip
import hashlib
import os
import re
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastmlp.datasets import Dataset, _mnist, load_mnist, load_mnist157

TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"
NAMES = [TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS]


def idx_bytes(array):
    """Write an array of bytes as an IDX file."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def small_arrays():
    """Return four arrays like MNIST's, of 5 training and 3 test samples, by file name."""
    generator = np.random.default_rng(0)
    return {
        TRAIN_IMAGES: generator.integers(0, 256, (5, 28, 28), np.uint8),
        TRAIN_LABELS: np.array([3, 0, 9, 1, 4], np.uint8),
        TEST_IMAGES: generator.integers(0, 256, (3, 28, 28), np.uint8),
        TEST_LABELS: np.array([7, 7, 2], np.uint8),
    }


@pytest.fixture
def folder(tmp_path):
    """Return a folder with four good plain files, for the test to damage."""
    for name, array in small_arrays().items():
        (tmp_path / name).write_bytes(idx_bytes(array))
    return tmp_path


def replace(folder, name, content, *, compress=False):
    """Put other content in a file's place, plain or gzip; return the new file's path."""
    (folder / name).unlink()
    path = folder / (f"{name}.gz" if compress else name)
    path.write_bytes(gzip.compress(content) if compress else content)
    return path


def assert_refused(folder, path, *parts):
    """Check for a ValueError that names the file and holds the parts in this order."""
    pattern = ".*".join(map(re.escape, (str(path), *parts)))
    with pytest.raises(ValueError, match=pattern):
        load_mnist(folder)


# The bundled digits


@pytest.fixture(scope="module")
def mnist157():
    return load_mnist157()


def test_mnist157_has_the_documented_counts(mnist157):
    assert mnist157.X_train.shape == (18428, 784)
    assert mnist157.X_test.shape == (3055, 784)
    assert np.bincount(mnist157.y_train).tolist() == [6742, 5421, 6265]
    assert np.bincount(mnist157.y_test).tolist() == [1135, 892, 1028]
    assert mnist157.class_names == ("1", "5", "7")
    assert mnist157.name == "mnist157"


def test_mnist157_has_the_documented_types_and_range(mnist157):
    for X, y in ((mnist157.X_train, mnist157.y_train), (mnist157.X_test, mnist157.y_test)):
        assert X.dtype == np.float32
        assert X.flags.c_contiguous
        assert (X.min(), X.max()) == (0.0, 1.0)
        assert y.dtype == np.int64
        assert y.shape == (len(X),)


@pytest.mark.parametrize(
    ("part", "digest"),
    [
        ("train", "14e20b603cb87bcc885f3ec6ab168dcdeb4c62721f04c57a1be3712d612d8434"),
        ("test", "c9653fc2139e9a99a939071ba2e2146da34ca88f62fcbdd78ef962669497eb50"),
    ],
    ids=["train", "test"],
)
def test_mnist157_is_unchanged(mnist157, part, digest):
    X, y = getattr(mnist157, f"X_{part}"), getattr(mnist157, f"y_{part}")
    pixels = np.rint(X * 255).astype(np.uint8)
    digits = np.array([1, 5, 7], np.uint8)[y]
    assert hashlib.sha256(pixels.tobytes() + digits.tobytes()).hexdigest() == digest


def test_mnist157_is_loaded_anew_each_time(mnist157):
    other = load_mnist157()
    other.X_train[0, 0] = 0.5
    assert mnist157.X_train[0, 0] == 0.0


@pytest.mark.skipif(
    "FASTMLP_TEST_MNIST" not in os.environ,
    reason="FASTMLP_TEST_MNIST does not name a folder with the original MNIST files",
)
def test_mnist157_is_the_same_as_in_mnist(mnist157):
    mnist = load_mnist(os.environ["FASTMLP_TEST_MNIST"])
    assert mnist.X_train.shape == (60000, 784)
    assert mnist.X_test.shape == (10000, 784)
    digits = np.array([1, 5, 7])
    for part in ("train", "test"):
        y = getattr(mnist, f"y_{part}")
        wanted = np.isin(y, digits)
        np.testing.assert_array_equal(digits[getattr(mnist157, f"y_{part}")], y[wanted])
        np.testing.assert_array_equal(
            getattr(mnist157, f"X_{part}"), getattr(mnist, f"X_{part}")[wanted]
        )


def test_dataset_is_frozen_and_has_a_short_repr(mnist157):
    with pytest.raises(dataclasses.FrozenInstanceError):
        mnist157.name = "other"
    assert repr(mnist157) == (
        "<Dataset mnist157: 18428 training and 3055 test samples, 784 features, classes 1, 5, 7>"
    )


# Good files


@pytest.mark.parametrize("as_path", [str, Path])
def test_load_mnist_reads_plain_files(folder, as_path):
    arrays = small_arrays()
    data = load_mnist(as_path(folder))
    assert isinstance(data, Dataset)
    np.testing.assert_array_equal(
        data.X_train, arrays[TRAIN_IMAGES].reshape(5, 784) / np.float32(255)
    )
    np.testing.assert_array_equal(
        data.X_test, arrays[TEST_IMAGES].reshape(3, 784) / np.float32(255)
    )
    assert data.X_train.dtype == data.X_test.dtype == np.float32
    assert data.y_train.tolist() == [3, 0, 9, 1, 4]
    assert data.y_test.tolist() == [7, 7, 2]
    assert data.y_train.dtype == data.y_test.dtype == np.int64
    assert data.class_names == tuple("0123456789")
    assert data.name == "mnist"


def test_load_mnist_reads_gzip_files_beside_plain_ones(folder):
    for name in (TRAIN_IMAGES, TEST_LABELS):
        replace(folder, name, (folder / name).read_bytes(), compress=True)
    data = load_mnist(folder)
    np.testing.assert_array_equal(
        data.X_train, small_arrays()[TRAIN_IMAGES].reshape(5, 784) / np.float32(255)
    )
    assert data.y_test.tolist() == [7, 7, 2]


def test_load_mnist_prefers_the_plain_file(folder):
    (folder / f"{TRAIN_LABELS}.gz").write_bytes(b"not read")
    assert load_mnist(folder).y_train.tolist() == [3, 0, 9, 1, 4]


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 6).flatmap(
        lambda n: st.tuples(
            hnp.arrays(np.uint8, (n, 28, 28)),
            hnp.arrays(np.uint8, n, elements=st.integers(0, 9)),
        )
    ),
    st.booleans(),
)
def test_what_is_written_is_read(tmp_path_factory, samples, compress):
    images, labels = samples
    folder = tmp_path_factory.mktemp("mnist")
    for name in NAMES:
        content = idx_bytes(images if "images" in name else labels)
        path = folder / (f"{name}.gz" if compress else name)
        path.write_bytes(gzip.compress(content, 1) if compress else content)
    data = load_mnist(folder)
    for X, y in ((data.X_train, data.y_train), (data.X_test, data.y_test)):
        np.testing.assert_array_equal(np.rint(X * 255), images.reshape(-1, 784))
        np.testing.assert_array_equal(y, labels)


# Missing files


@pytest.mark.parametrize("missing", NAMES)
def test_missing_file_is_named_with_all_that_were_looked_for(folder, missing):
    (folder / missing).unlink()
    pattern = ".*".join(map(re.escape, (str(folder), *NAMES, f"not found: {missing}")))
    with pytest.raises(FileNotFoundError, match=f"{pattern}$"):
        load_mnist(folder)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "nowhere"))):
        load_mnist(tmp_path / "nowhere")


def test_folder_in_a_files_place_does_not_count(folder):
    (folder / TEST_IMAGES).unlink()
    (folder / TEST_IMAGES).mkdir()
    with pytest.raises(FileNotFoundError, match=f"not found: {TEST_IMAGES}$"):
        load_mnist(folder)


# Wrong and damaged files

both_forms = pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])


@both_forms
@pytest.mark.parametrize(
    "magic",
    [
        b"\0\0\x08\x01",  # labels in the images' place
        b"\0\0\x0d\x03",  # float32 instead of bytes
        b"\x1f\x8b\x08\x00",  # a gzip file under a plain name
    ],
)
def test_bad_magic(folder, magic, compress):
    content = magic + idx_bytes(small_arrays()[TRAIN_IMAGES])[4:]
    path = replace(folder, TRAIN_IMAGES, content, compress=compress)
    assert_refused(folder, path, "00 00 08 03", magic.hex(" "))


@both_forms
def test_images_in_the_labels_place(folder, compress):
    path = replace(folder, TEST_LABELS, idx_bytes(small_arrays()[TEST_IMAGES]), compress=compress)
    assert_refused(folder, path, "1 dimensions", "00 00 08 01", "00 00 08 03")


@both_forms
@pytest.mark.parametrize("length", [0, 3])
def test_file_that_ends_in_its_magic(folder, length, compress):
    content = idx_bytes(small_arrays()[TEST_IMAGES])[:length]
    path = replace(folder, TEST_IMAGES, content, compress=compress)
    assert_refused(folder, path, "00 00 08 03", f"found {content.hex(' ')!r}")


@both_forms
@pytest.mark.parametrize("length", [4, 15])
def test_file_that_ends_in_its_header(folder, length, compress):
    content = idx_bytes(small_arrays()[TEST_IMAGES])[:length]
    path = replace(folder, TEST_IMAGES, content, compress=compress)
    assert_refused(folder, path, "truncated", "16 bytes", f"found {length}")


@both_forms
@pytest.mark.parametrize("lost", [1, 784, 3 * 784])
def test_file_that_ends_in_its_items(folder, lost, compress):
    content = idx_bytes(small_arrays()[TEST_IMAGES])[:-lost]
    path = replace(folder, TEST_IMAGES, content, compress=compress)
    assert_refused(folder, path, "truncated", "3 items in 2352 bytes", f"found {2352 - lost} ")


@both_forms
def test_trailing_bytes(folder, compress):
    content = idx_bytes(small_arrays()[TEST_LABELS]) + b"\0"
    path = replace(folder, TEST_LABELS, content, compress=compress)
    assert_refused(folder, path, "trailing", "3 items in 3 bytes")


@pytest.mark.parametrize("shape", [(28, 27), (784, 1), (0, 28), (2**32 - 1, 2**32 - 1)])
def test_images_of_another_size(folder, shape):
    content = struct.pack(">BBBB3I", 0, 0, 8, 3, 3, *shape)
    path = replace(folder, TEST_IMAGES, content)
    assert_refused(folder, path, "(28, 28)", str(shape))


@pytest.mark.parametrize(
    ("name", "item_sizes"), [(TEST_IMAGES, (28, 28)), (TEST_LABELS, ())], ids=["images", "labels"]
)
@pytest.mark.parametrize("n_items", [0, 2**29, 2**32 - 1])
def test_impossible_number_of_items(folder, name, item_sizes, n_items):
    n_dimensions = 1 + len(item_sizes)
    header = struct.pack(f">BBBB{n_dimensions}I", 0, 0, 8, n_dimensions, n_items, *item_sizes)
    path = replace(folder, name, header)
    assert_refused(folder, path, "declare", f"found {n_items}")


def test_images_and_labels_differ_in_number(folder):
    path = replace(folder, TRAIN_LABELS, idx_bytes(np.arange(4)))
    assert_refused(folder, folder / TRAIN_IMAGES, "5 images", str(path), "4 labels")


def test_label_above_nine(folder):
    path = replace(folder, TEST_LABELS, idx_bytes(np.array([1, 10, 2])))
    assert_refused(folder, path, "0 to 9", "found 10")


def test_file_that_is_no_gzip_file(folder):
    path = folder / f"{TEST_LABELS}.gz"
    (folder / TEST_LABELS).rename(path)
    assert_refused(folder, path, "gzip")


@pytest.mark.parametrize("kept", [5, 12, -9, -1])
def test_truncated_gzip_file(folder, kept):
    path = replace(folder, TEST_IMAGES, (folder / TEST_IMAGES).read_bytes(), compress=True)
    path.write_bytes(path.read_bytes()[:kept])
    assert_refused(folder, path, "gzip")


def test_gzip_file_with_wrong_checksum(folder):
    path = replace(folder, TEST_LABELS, (folder / TEST_LABELS).read_bytes(), compress=True)
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    assert_refused(folder, path, "gzip", "CRC")


def test_gzip_file_with_damaged_stream(folder):
    path = replace(folder, TEST_LABELS, (folder / TEST_LABELS).read_bytes(), compress=True)
    content = bytearray(path.read_bytes())
    content[10] |= 0b110  # the block type that deflate does not have
    path.write_bytes(content)
    assert_refused(folder, path, "gzip", "invalid block type")


@settings(deadline=None)
@given(st.data())
def test_no_flipped_bit_of_a_gzip_file_changes_what_is_read(tmp_path_factory, data):
    arrays = small_arrays()
    folder = tmp_path_factory.mktemp("mnist")
    for name, array in arrays.items():
        (folder / name).write_bytes(idx_bytes(array))
    path = replace(folder, TRAIN_LABELS, idx_bytes(arrays[TRAIN_LABELS]), compress=True)
    content = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    try:
        labels = load_mnist(folder).y_train
    except ValueError:
        assert_refused(folder, path)
    else:  # a bit that carries no content, such as one of the time stamp
        np.testing.assert_array_equal(labels, arrays[TRAIN_LABELS])


@settings(deadline=None)
@given(st.binary(max_size=64), st.booleans())
def test_arbitrary_bytes_are_refused(tmp_path_factory, content, compress):
    folder = tmp_path_factory.mktemp("mnist")
    for name, array in small_arrays().items():
        (folder / name).write_bytes(idx_bytes(array))
    path = replace(folder, TRAIN_IMAGES, content, compress=compress)
    assert_refused(folder, path)


def test_gzip_bomb_uses_no_memory(folder):
    size = 64 * 2**20
    bomb = idx_bytes(small_arrays()[TEST_LABELS]) + bytes(size)
    path = replace(folder, TEST_LABELS, bomb, compress=True)
    del bomb
    tracemalloc.start()
    try:
        assert_refused(folder, path, "trailing")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size / 16


# Download


def test_download_without_pooch_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=re.escape('pip install "fastmlp[data]"')):
        load_mnist()


@pytest.fixture
def requests(tmp_path, monkeypatch):
    """Put pooch's cache in the test's folder, and instead of the network a list of the requests."""
    pooch = pytest.importorskip("pooch", reason="the extra data is not installed")
    requests = []

    def deliver_junk(url, output_file, pooch):
        requests.append(url)
        Path(output_file).write_bytes(b"junk")

    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    monkeypatch.setattr(pooch.core, "choose_downloader", lambda url, progressbar: deliver_junk)
    return requests


def test_download_is_compared_with_its_checksum(requests, tmp_path):
    with pytest.raises(ValueError, match=rf"{TRAIN_IMAGES}\.gz.* does not match"):
        load_mnist()
    (url,) = requests
    assert url.startswith("https://")
    assert url.endswith(f"/{TRAIN_IMAGES}.gz")
    assert not list(tmp_path.rglob("*ubyte*"))


def test_downloaded_files_are_read_without_asking_again(requests, tmp_path, monkeypatch):
    cache = tmp_path / "fastmlp" / "mnist"
    cache.mkdir(parents=True)
    for name, array in small_arrays().items():
        content = gzip.compress(idx_bytes(array))
        (cache / f"{name}.gz").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        monkeypatch.setitem(_mnist._GZIP_SHA256, name, digest)
    assert load_mnist().y_train.tolist() == [3, 0, 9, 1, 4]
    assert requests == []


def test_import_needs_no_extra():
    code = "import sys, fastmlp.datasets; assert 'pooch' not in sys.modules"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
