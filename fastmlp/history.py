"""What one training run did, epoch by epoch."""

from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["History"]

SERIES = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")
"""The attributes of a `History` that have a number for each epoch."""

_SHOWN = 20
"""Most epochs that ``str(history)`` shows; of a longer run it leaves out the middle."""


@dataclass(repr=False)
class History:
    """Losses, accuracies and times of one run of :func:`fastmlp.fit`.

    ``len(history)`` is the number of finished epochs, ``str(history)`` a table of them.

    Attributes
    ----------
    loss
        Mean training loss of each finished epoch.
    accuracy
        Share of training samples classified correctly in each epoch, from 0 to 1.
        Empty for a regression.
    val_loss
        Mean loss on the validation samples after each epoch. Empty without validation.
    val_accuracy
        Share of validation samples classified correctly after each epoch, from 0 to 1.
        Empty without validation and for a regression.
    learning_rate
        That of the last step of each epoch. Empty for `LBFGS`, which has none.
    seconds
        Time spent training, in seconds, without compilation.
    compile_seconds
        Time spent compiling kernels or loading them from the cache, in seconds.
    samples_per_second
        Training samples processed per second of training.
    interrupted
        Whether Ctrl-C ended the run early.
    stopped_early
        Whether `EarlyStopping` or a callback ended it before its last epoch.
    best_epoch
        With `EarlyStopping`, the epoch, from 1, whose value was the best.

    Examples
    --------
    >>> history = History(loss=[0.5, 0.25], val_loss=[0.6, 0.3], seconds=0.2)
    >>> len(history)
    2
    >>> print(history)
    epoch    loss  val_loss
        1  0.5000    0.6000
        2  0.2500    0.3000
    >>> history
    History(2 epochs in 0.20 s, loss=0.2500, val_loss=0.3000)
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    val_accuracy: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    seconds: float = 0.0
    compile_seconds: float = 0.0
    samples_per_second: float = 0.0
    interrupted: bool = False
    stopped_early: bool = False
    best_epoch: int | None = None

    def __len__(self) -> int:
        return len(self.loss)

    def __repr__(self) -> str:
        epochs = "1 epoch" if len(self) == 1 else f"{len(self)} epochs"
        last = [f"{name}={format_number(values[-1])}" for name, values in self._series() if values]
        state = ["interrupted"] if self.interrupted else []
        return f"History({', '.join([f'{epochs} in {self.seconds:.2f} s', *last, *state])})"

    def __str__(self) -> str:
        return "\n".join(format_table(self._rows()))

    def _repr_html_(self) -> str:
        from ._html import html_table  # only notebooks need it

        return html_table(self._rows(), [repr(self)])

    def _rows(self) -> list[list[str]]:
        columns = [(name, values) for name, values in self._series() if values]
        rows = [["epoch", *(name for name, _ in columns)]]
        for epoch in range(len(self)):
            rows.append([str(epoch + 1), *(format_number(values[epoch]) for _, values in columns)])
        if len(self) > _SHOWN:
            rows[1 + _SHOWN // 2 : -(_SHOWN // 2)] = [["..."] * len(rows[0])]
        return rows

    def _series(self) -> tuple[tuple[str, list[float]], ...]:
        return (
            ("loss", self.loss),
            ("accuracy", self.accuracy),
            ("val_loss", self.val_loss),
            ("val_accuracy", self.val_accuracy),
        )


def format_table(rows: Sequence[Sequence[str]], left: int = 0) -> list[str]:
    """Return a line for each row: its cells in columns, so many of them aligned on the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    forms = [f"{'<' if number < left else '>'}{width}" for number, width in enumerate(widths)]
    return [
        "  ".join(f"{cell:{form}}" for cell, form in zip(row, forms, strict=True)) for row in rows
    ]


def format_number(value: float) -> str:
    """Format a loss or an accuracy: four decimals, or an exponent where those would say little."""
    return f"{value:.4f}" if value == 0.0 or 1e-3 <= abs(value) < 1e4 else f"{value:.1e}"
