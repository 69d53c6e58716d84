"""Make fastmlp/datasets/mnist157.npz from the four original MNIST files.

Usage: python tools/make_mnist157.py --mnist FOLDER [--output FILE]

FOLDER holds the four IDX files, plain or gzip. They are compared with their published checksums
(sha256 of the uncompressed files), so that the reading can be simple.
"""

import argparse
import gzip
import hashlib
from pathlib import Path

import numpy as np

DIGITS = (1, 5, 7)
IMAGES_HEADER, LABELS_HEADER = 16, 8  # bytes
OUTPUT = Path(__file__).parents[1] / "fastmlp" / "datasets" / "mnist157.npz"
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def read_checked(folder: Path, name: str) -> bytes:
    """Read one file, plain or gzip, and stop if it is not the original."""
    plain = folder / name
    if plain.is_file():
        content = plain.read_bytes()
    else:
        content = gzip.decompress((folder / f"{name}.gz").read_bytes())
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[name]:
        raise SystemExit(f"{plain}: expected sha256 {SHA256[name]}, found {found}")
    return content


def select_digits(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images [n, 28, 28] and labels [n] of the wanted digits, in MNIST's order."""
    images = np.frombuffer(
        read_checked(folder, f"{part}-images-idx3-ubyte"), np.uint8, offset=IMAGES_HEADER
    )
    labels = np.frombuffer(
        read_checked(folder, f"{part}-labels-idx1-ubyte"), np.uint8, offset=LABELS_HEADER
    )
    wanted = np.isin(labels, DIGITS)
    return images.reshape(-1, 28, 28)[wanted], labels[wanted]


def main() -> None:
    """Write the file and print its size and checksum."""
    parser = argparse.ArgumentParser(description="Make the bundled digits 1, 5, 7 of MNIST.")
    parser.add_argument("--mnist", type=Path, required=True, help="folder with the four IDX files")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="default: %(default)s")
    arguments = parser.parse_args()

    train_images, train_labels = select_digits(arguments.mnist, "train")
    test_images, test_labels = select_digits(arguments.mnist, "t10k")
    np.savez_compressed(
        arguments.output,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
    )
    content = arguments.output.read_bytes()
    print(f"{arguments.output}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
