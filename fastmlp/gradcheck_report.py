"""What a check of derivatives found: tensor by tensor, with the worst entries and a guess."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._html import html_table

Array = NDArray[Any]

FRACTION = 1e-2  # of the whole gradient: a smaller tensor is judged as if it had this norm
WORST = 3  # entries named of each tensor
SINGLE_TOLERANCE = 1e-3
ALIKE = 1e-2  # how well a guess must explain the difference


@dataclass(frozen=True)
class Entry:
    """One derivative: its index in the tensor, as computed and as it should be."""

    index: tuple[int, ...]
    analytic: float
    numeric: float


@dataclass(frozen=True)
class TensorCheck:
    """Comparison of the two gradients of one tensor of parameters.

    Attributes
    ----------
    name
        The parameter, as in saved files: ``layers.0.weight``, ``layers.0.bias`` and so on.
    shape
        Its shape, without padding.
    relative_error
        ``||numeric - analytic|| / max(||numeric|| + ||analytic||, floor)`` over the entries that
        are compared; for the floor see :func:`gradient_check`.
    max_abs_difference
        Largest ``|numeric - analytic|`` of one entry.
    worst
        The entries that differ most, the worst first. With directions, the index is that of the
        direction.
    excluded
        How many entries are left out, as their differences met a kink.
    guess
        What might be wrong, if the check failed; else empty.
    single_error
        How far the float32 gradient is from the float64 one, relative to the latter; None for a
        float64 network.
    """

    name: str
    shape: tuple[int, ...]
    relative_error: float
    max_abs_difference: float
    worst: tuple[Entry, ...]
    excluded: int
    guess: str
    single_error: float | None = None

    @property
    def worst_index(self) -> tuple[int, ...]:
        """Index of the entry that differs most."""
        return self.worst[0].index if self.worst else ()

    @property
    def analytic(self) -> float:
        """Its derivative by the backward pass; NaN if no entry is compared."""
        return self.worst[0].analytic if self.worst else float("nan")

    @property
    def numeric(self) -> float:
        """Its derivative by differences; NaN if no entry is compared."""
        return self.worst[0].numeric if self.worst else float("nan")


@dataclass(frozen=True)
class GradientCheckReport:
    """Result of :func:`gradient_check`; ``str(report)`` is a table.

    Attributes
    ----------
    tensors
        One comparison for each tensor, from the first layer to the last.
    relative_error
        The relative error over all parameters together.
    method, tolerance, epsilon
        How it was checked.
    n_parameters
        Number of parameters, those left out included.
    """

    tensors: tuple[TensorCheck, ...]
    relative_error: float
    method: str
    tolerance: float
    epsilon: float
    n_parameters: int

    @property
    def excluded(self) -> int:
        """How many entries of all tensors are left out, as their differences met a kink."""
        return sum(tensor.excluded for tensor in self.tensors)

    @property
    def ok(self) -> bool:
        """Whether every tensor, and all together, are below tolerance; False if all is left out."""
        return (
            any(tensor.worst for tensor in self.tensors)
            and self.relative_error < self.tolerance  # NaN compares as false
            and all(self._passes(tensor) for tensor in self.tensors)
        )

    def _passes(self, tensor: TensorCheck) -> bool:
        single = tensor.single_error
        is_close = single is None or single < SINGLE_TOLERANCE
        return tensor.relative_error < self.tolerance and is_close

    def _verdict(self) -> str:
        left_out = f", {self.excluded} left out at kinks" if self.excluded else ""
        return (
            f"gradient check {'passed' if self.ok else 'FAILED'}: {self.method}, "
            f"relative error {self.relative_error:.1e}, tolerance {self.tolerance:.0e}, "
            f"{self.n_parameters} parameters{left_out}, epsilon {self.epsilon:.0e}"
        )

    def _repr_html_(self) -> str:
        titles = ["", "tensor", "shape", "rel. error", "max. diff."]
        rows = [
            [
                "" if self._passes(tensor) else "!",
                tensor.name,
                str(tensor.shape),
                f"{tensor.relative_error:.1e}",
                f"{tensor.max_abs_difference:.1e}",
            ]
            for tensor in self.tensors
        ]
        failed = (tensor for tensor in self.tensors if not self._passes(tensor))
        details = [f"{tensor.name}: {line}" for tensor in failed for line in _details(tensor)]
        return html_table([titles, *rows], [self._verdict(), *details])

    def __str__(self) -> str:
        width = max(len(tensor.name) for tensor in self.tensors)
        lines = [
            self._verdict(),
            f"  {'tensor':<{width}}  {'shape':>12}  {'rel. error':>10}  "
            f"{'max. diff.':>10}  {'at':>12}  {'analytic':>13}  {'numeric':>13}",
        ]
        for tensor in self.tensors:
            mark = " " if self._passes(tensor) else "!"
            lines.append(
                f"{mark} {tensor.name:<{width}}  {tensor.shape!s:>12}  "
                f"{tensor.relative_error:>10.1e}  {tensor.max_abs_difference:>10.1e}  "
                f"{tensor.worst_index!s:>12}  {tensor.analytic:>13.6e}  {tensor.numeric:>13.6e}"
            )
            if mark == "!":
                lines += [f"    {entry}" for entry in _details(tensor)]
        return "\n".join(lines)


def _details(tensor: TensorCheck) -> list[str]:
    """What there is to say about a tensor that failed."""
    lines = [
        f"at {entry.index}: analytic {entry.analytic:.6e}, numeric {entry.numeric:.6e}"
        for entry in tensor.worst[1:]
    ]
    if tensor.guess:
        lines.insert(0, f"guess: {tensor.guess}")
    if tensor.single_error is not None and not tensor.single_error < SINGLE_TOLERANCE:
        lines.append(f"float32 gradient is off by {tensor.single_error:.1e}")
    return lines


@dataclass(frozen=True)
class Part:
    """The derivatives by one tensor: arrays of one shape, and those that are left out.

    `parameters` are the tensor's numbers, and `factors` what a wrong gradient may be off by;
    `single` is the float32 gradient minus the float64 one.
    """

    name: str
    shape: tuple[int, ...]
    analytic: Array
    numeric: Array
    excluded: Array
    parameters: Array
    factors: dict[str, float]
    single: Array | None = None

    @property
    def compared(self) -> tuple[Array, Array]:
        """Analytic and numeric derivatives of the entries that are not left out."""
        return self.analytic[~self.excluded], self.numeric[~self.excluded]


def relative_error(analytic: Array, numeric: Array, floor: float) -> float:
    """||numeric - analytic|| / max(||numeric|| + ||analytic||, floor), 0 if all of it is 0."""
    distance = float(np.linalg.norm(numeric - analytic))
    size = max(float(np.linalg.norm(numeric) + np.linalg.norm(analytic)), floor)
    return distance / size if size != 0 else distance


def judge(
    parts: list[Part], method: str, tolerance: float, epsilon: float, least: float
) -> GradientCheckReport:
    """Compare two gradients tensor by tensor; no entry counts as less than `least`."""
    # a loss that overflows gives inf - inf: no warning, the report shows the NaN
    with np.errstate(over="ignore", invalid="ignore"):
        pairs = [part.compared for part in parts]
        analytic, numeric = (np.concatenate(side) for side in zip(*pairs, strict=True))
        whole = float(np.linalg.norm(numeric))

        def floor(entries: int) -> float:
            return float(max(FRACTION * whole, least * np.sqrt(entries)))

        tensors = tuple(
            _judge_tensor(part, floor(len(pair[0])), tolerance, whole)
            for part, pair in zip(parts, pairs, strict=True)
        )
        return GradientCheckReport(
            tensors=tensors,
            relative_error=relative_error(analytic, numeric, floor(len(analytic))),
            method=method,
            tolerance=tolerance,
            epsilon=epsilon,
            n_parameters=sum(int(np.prod(part.shape)) for part in parts),
        )


def _judge_tensor(part: Part, floor: float, tolerance: float, whole: float) -> TensorCheck:
    error = relative_error(*part.compared, floor)
    # what is not finite comes first
    distance = np.where(part.excluded, -1.0, np.abs(part.numeric - part.analytic))
    order = np.argsort(np.where(np.isnan(distance), np.inf, distance), axis=None)[::-1]
    count = min(WORST, int((~part.excluded).sum()))
    worst = [np.unravel_index(place, distance.shape) for place in order[:count]]
    single = None
    if part.single is not None:
        size = max(float(np.linalg.norm(part.analytic)), FRACTION * whole)
        single = float(np.linalg.norm(part.single)) / (size or 1.0)
    return TensorCheck(
        name=part.name,
        shape=part.shape,
        relative_error=error,
        max_abs_difference=float(distance[worst[0]]) if worst else 0.0,
        worst=tuple(
            Entry(tuple(int(i) for i in at), float(part.analytic[at]), float(part.numeric[at]))
            for at in worst
        ),
        excluded=int(part.excluded.sum()),
        guess="" if error < tolerance else guess(part),
        single_error=single,
    )


def guess(part: Part) -> str:
    """What might be wrong with the analytic gradient of a tensor; empty if nothing fits."""
    a, n = part.compared
    size = float(np.linalg.norm(n))
    if not (np.isfinite(a).all() and np.isfinite(n).all()):
        return "not finite"

    def explains(what: Array) -> bool:
        return bool(np.linalg.norm(what) < ALIKE * np.linalg.norm(a - n))

    if size == 0 or np.linalg.norm(a) > 1e6 * size:
        return "it should be zero"
    if not a.any():
        return "it is zero: the gradient is missing"
    wrong = ~part.excluded & (np.abs(part.numeric - part.analytic) > 1e-6 * size)
    if part.analytic.ndim == 2 and 0 < wrong.sum() < wrong.size:
        rows, columns = np.flatnonzero(wrong.any(1)), np.flatnonzero(wrong.any(0))
        where = f"row {rows[0]}" if len(rows) == 1 else f"column {columns[0]}"
        if wrong.sum() == 1:
            return f"one entry alone, {where}, column {columns[0]}"
        if min(len(rows), len(columns)) == 1:
            return f"{where} alone"
    for name, factor in part.factors.items():
        if explains(a - factor * n):
            return name
    ratio = float(a @ n) / size**2
    if explains(a - ratio * n):
        return f"a factor of {ratio:.6g}"
    shape = part.analytic.shape
    if len(shape) == 2 and shape[0] == shape[1] and explains(part.analytic - part.numeric.T):
        return "transposed"
    if np.array_equal(part.parameters.shape, shape):
        w = part.parameters[~part.excluded]
        for name, term in (("l2", w), ("l1", np.sign(w))):
            square = float(term @ term)
            if square > 0 and explains(a - n - term * (float((a - n) @ term) / square)):
                return f"a wrong or missing {name} penalty"
    return "a term is wrong or missing"
