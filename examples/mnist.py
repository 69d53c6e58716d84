"""MNIST with dropout: 784-512-512-10, to about 98.5 % of the test images.

    python examples/mnist.py FOLDER

FOLDER holds MNIST's four IDX files, gzipped or not; without it they are fetched (extra "data").
"""

import sys

import fastmlp as fm

EPOCHS, BATCH = 20, 128


def main() -> None:
    """Train, and print what came out."""
    data = fm.datasets.load_mnist(sys.argv[1] if len(sys.argv) > 1 else None)
    net = fm.MLP([784, 512, 512, 10], activation="relu", dropout=[0.2, 0.2, 0.2], seed=0)
    history = fm.fit(
        net,
        data.X_train,
        data.y_train,
        optimizer=fm.Adam(fm.schedules.Cosine(1e-3)),
        batch_size=BATCH,
        epochs=EPOCHS,
        progress=True,
    )
    accuracy = net.evaluate(data.X_test, data.y_test).accuracy
    print(f"{net}\n{history!r}\ntest accuracy {accuracy:.2%}")


if __name__ == "__main__":
    main()
