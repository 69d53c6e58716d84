"""What the parts of the comparison have in common: their options, and where and when they ran.

A part is a module with two functions: `measure(options)` returns figures that JSON can hold, and
`section(figures)` makes Markdown of them. `report.PARTS` names all.
"""

import os
import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from work import Work

from fastmlp.kernels import machine

PACKAGES = ("fastmlp", "numba", "numpy", "torch", "jax", "scikit-learn", "onnxruntime", "mkl")
NUMBERS = (("family", "cpu family"), ("model", "model"))

Figures = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How to measure; `mnist` is the folder of MNIST's files, or None for synthetic data."""

    rounds: int
    threads: int
    samples: int
    mnist: str | None
    works: tuple[Work, ...]
    torch_compile: bool


@dataclass(frozen=True)
class About:
    """The machine, the day and the versions of a measurement."""

    rounds: int
    threads: int
    cpu: str = field(default_factory=lambda: cpu_name())
    cores: int = field(default_factory=lambda: os.cpu_count() or 1)
    vector_bits: int = 8 * machine.VECTOR_BYTES
    date: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%d}")
    python: str = field(default_factory=platform.python_version)
    versions: dict[str, str] = field(default_factory=lambda: installed())

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return (
            f"{self.cpu}, {self.cores} cores, {self.threads} used, vectors of {self.vector_bits} "
            f"bits; {self.date}; {self.rounds} rounds. Python {self.python}, {versions}."
        )


def cpu_name() -> str:
    """Return the CPU's name and model number; on a virtual machine the name may be a vague one."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor() or platform.machine()
    fields = (line.split(":", 1) for line in path.read_text(encoding="utf-8").splitlines() if line)
    found = {name.strip(): value.strip() for name, value in fields}
    numbers = [f"{key} {found[name]}" for key, name in NUMBERS if name in found]
    return f"{found.get('model name', platform.machine())} ({', '.join(numbers)})"


def installed() -> dict[str, str]:
    """Return the versions of what is compared, as far as it is installed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
