"""The figures of a comparison, as tables in Markdown and as JSON."""

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

from work import Work

from fastmlp.kernels import machine

PACKAGES = ("fastmlp", "numba", "numpy", "torch", "jax", "scikit-learn")
REFERENCE = "fastmlp"
COLUMNS = (
    "library",
    "s/epoch",
    "times fastmlp (range)",
    "samples/s",
    "GFLOP/s",
    "of FMA peak",
    "loss",
)


@dataclass
class Result:
    """What was measured for one work: seconds of each round by library, GFLOP/s of the FMA peak."""

    work: Work
    samples: int
    seconds: dict[str, list[float]] = field(default_factory=dict)
    peaks: list[float] = field(default_factory=list)
    losses: dict[str, float] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, ...]]:
        """Cells of the table, a row for each library.

        Medians over the rounds; the ratio is the median of the ratios within a round.
        """
        rows: list[tuple[str, ...]] = []
        for name, seconds in self.seconds.items():
            ratios = sorted(
                peer / ours for peer, ours in zip(seconds, self.seconds[REFERENCE], strict=True)
            )
            ratio = f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            rate = self.samples / median(seconds)
            gigaflops = rate * self.work.flops_per_sample / 1e9
            rows.append(
                (
                    name,
                    f"{median(seconds):.3f}",
                    "1" if name == REFERENCE else ratio,
                    f"{rate:,.0f}",
                    f"{gigaflops:.1f}",
                    f"{gigaflops / median(self.peaks):.0%}",
                    f"{self.losses[name]:.4f}",
                )
            )
        return rows


@dataclass
class Comparison:
    """All results of a run, and where and when it was."""

    data: str
    samples: int
    threads: int
    rounds: int
    results: list[Result] = field(default_factory=list)
    cpu: str = field(default_factory=lambda: cpu_name())
    cores: int = field(default_factory=lambda: os.cpu_count() or 1)
    vector_bytes: int = machine.VECTOR_BYTES
    date: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%d}")
    versions: dict[str, str] = field(default_factory=lambda: installed())

    def markdown(self) -> str:
        """Return the tables, what they were measured on, and how each library was set."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        blocks = [
            f"{self.data}, {self.samples:,} samples, float32; medians of {self.rounds} rounds, the "
            "libraries in turn in each.",
            f"{self.cpu}, {self.cores} cores, {self.threads} used, vectors of "
            f"{8 * self.vector_bytes} bits; {self.date}. Python {platform.python_version()}, "
            f"{versions}.",
        ]
        for result in self.results:
            peak = median(result.peaks)
            notes = [f"- {name}: {text}." for name, text in result.settings.items()]
            notes += [f"- {name}: left out, {text}" for name, text in result.skipped.items()]
            blocks += [
                f"## {result.work}",
                table(COLUMNS, result.rows()),
                f"FMA peak in this run: {peak:.0f} GFLOP/s. Loss: of all samples at the end.",
                "\n".join(notes),
            ]
        return "\n\n".join(blocks) + "\n"

    def write_json(self, path: Path) -> None:
        """Write the raw figures."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table in Markdown, aligned: the first column left, numbers right."""
    lines = [columns, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]

    def text(cells: tuple[str, ...]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return f"| {first[0]:<{first[1]}} | " + "".join(f"{c:>{w}} | " for c, w in others).rstrip()

    rule = f"|{'-' * (widths[0] + 2)}|" + "".join(f"{'-' * (w + 1)}:|" for w in widths[1:])
    return "\n".join([text(columns), rule, *map(text, rows)])


def cpu_name() -> str:
    """Return the CPU's name as the system gives it; on a virtual machine it may be a vague one."""
    with_names = Path("/proc/cpuinfo")
    if with_names.exists():
        for line in with_names.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def installed() -> dict[str, str]:
    """Return the versions of what is compared, as far as it is installed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except ModuleNotFoundError:
            continue
    return versions
