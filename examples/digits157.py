"""The digits 1, 5 and 7 by full-batch gradient descent, the descent lemma checked on the way.

A softplus network, trained as in a course on numerics: a constant step, below 2 / L. At some epochs
the next step's promise, alpha (2 - alpha L) / 2 ||g||**2, is compared with the decrease that comes.
Beside it goes the same network with ``learning_rate="lipschitz"``, the step 1 / L of each epoch.

    python examples/digits157.py docs/digits157.png

prints a table and draws the picture; it takes a minute or two, and needs ``fastmlp[plot]``.
"""

import sys

from matplotlib.figure import Figure

from fastmlp import MLP, History, fit
from fastmlp.curvature import DescentReport, verify_descent
from fastmlp.datasets import load_mnist157
from fastmlp.optimizers import GradientDescent

ALPHA = 0.2
EPOCHS = 60
CHECKED = (0, 1, 2, 5, 10, 20, 40, 59)  # epochs before whose step the lemma is checked
SAMPLES = 2000

data = load_mnist157()
X, y = data.X_train[:SAMPLES], data.y_train[:SAMPLES]


def network() -> MLP:
    """Return the network before training."""
    return MLP([784, 16, 3], activation="softplus", seed=0)


def descend() -> tuple[History, dict[int, DescentReport]]:
    """Train with the constant step and check the lemma on the way."""
    net = network()
    reports = {}

    def check(net: MLP, epoch: int) -> None:
        if epoch in CHECKED:
            reports[epoch] = report = verify_descent(net, X, y, ALPHA)
            print(
                f"{epoch:5}  {report.loss_before:9.5f}  {report.L:7.3f}  {2 / report.L:6.3f}  "
                f"{report.promised:11.3e}  {report.occurred:11.3e}  {report.holds}"
            )

    print("epoch       loss        L     2/L     promised     occurred  holds")
    check(net, 0)
    history = fit(
        net,
        X,
        y,
        optimizer=GradientDescent(ALPHA),
        epochs=EPOCHS,
        callbacks=[lambda training: check(training.net, training.epoch)],
    )
    accuracy = net.evaluate(data.X_test, data.y_test).accuracy
    print(f"test accuracy after {EPOCHS} steps: {accuracy:.1%}")
    return history, reports


def draw(history: History, lipschitz: History, reports: dict[int, DescentReport]) -> Figure:
    """Loss, 2 / L against the step, and promised against occurred decrease."""
    figure = Figure(figsize=(12, 3.6), layout="constrained", dpi=150)
    losses, bounds, decreases = figure.subplots(1, 3)
    losses.semilogy(history.loss, label=f"step {ALPHA}")
    losses.semilogy(lipschitz.loss, label="step 1 / L")
    losses.set_ylabel("loss")
    epochs = list(reports)
    bounds.plot(epochs, [2 / r.L for r in reports.values()], marker=".", label="2 / L")
    bounds.axhline(ALPHA, color="C1", label=f"step {ALPHA}")
    bounds.set_ylim(bottom=0)
    decreases.semilogy(epochs, [r.occurred for r in reports.values()], marker=".", label="occurred")
    kept = {epoch: r.promised for epoch, r in reports.items() if r.promised > 0}
    decreases.semilogy(list(kept), list(kept.values()), marker=".", label="promised")
    decreases.set_ylabel("decrease of the loss in a step")
    for axes in (losses, bounds, decreases):
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


if __name__ == "__main__":
    history, reports = descend()
    lipschitz = fit(network(), X, y, optimizer=GradientDescent("lipschitz"), epochs=EPOCHS)
    print(f"step 1/L: loss {lipschitz.loss[0]:.5f} to {lipschitz.loss[-1]:.5f}")
    draw(history, lipschitz, reports).savefig(sys.argv[1] if len(sys.argv) > 1 else "digits157.png")
