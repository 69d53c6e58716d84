"""Train the same network on the same batches in fastmlp, PyTorch, JAX and scikit-learn, in turn.

Every library starts from the same weights and sees the samples in the same order, in float32, and
each is used at its best; what that is, and why, is written in its module. After the first
measurement, which warms up and is not counted, the losses of those that train the same network must
agree; then they take turns, with a pause so that one library's spinning threads do not slow the
next. Ratios are taken within a round: what disturbs the machine for longer disturbs both sides.
"""

import gc
import importlib
import time
from dataclasses import asdict, dataclass, field
from statistics import median

from part import Figures, Options
from peer import Peer
from suite import fma_peak
from tables import duration, ratios, table, with_range
from work import Data, Order, Work

WORKS = (
    "784-128-10:32",
    "784-128-10:128",
    "784-128-10:32:Adam",
    "784-128-10:128:Adam",
    "784-512-512-10:256",
    "784-128-10:32:SGD:dense",
    "784-512-512-10:256:SGD:dense",
    "4-32-16-4:10000:Adam",
)
REFERENCE = "fastmlp"
COMPILED = "PyTorch compiled"
PEERS = {
    REFERENCE: ("peer_fastmlp", "Fastmlp"),
    "PyTorch": ("peer_torch", "TorchEager"),
    COMPILED: ("peer_torch", "TorchCompiled"),
    "JAX": ("peer_jax", "Jax"),
    "scikit-learn": ("peer_sklearn", "Sklearn"),
}
TOLERANCE = 1e-3  # relative, of the losses after the first measurement
PAUSE = 0.25  # seconds: a library's idle threads may go on spinning for some time
COLUMNS = ("library", "epoch", "times fastmlp (range)", "samples/s", "GFLOP/s", "of FMA peak")


@dataclass
class Result:
    """What was measured for one work: seconds of each round by library, GFLOP/s of the FMA peak."""

    title: str
    data: str
    samples: int
    epochs: int
    flops_per_sample: int
    seconds: dict[str, list[float]] = field(default_factory=dict)
    peaks: list[float] = field(default_factory=list)
    losses: dict[str, float] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def ratio(self, name: str) -> list[float]:
        """How many times as long as fastmlp a library took, in each round."""
        return ratios(self.seconds[name], self.seconds[REFERENCE])

    def limit(self, name: str) -> float:
        """The time that the products take at the FMA peak, as a share of a library's time."""
        work = self.samples * self.epochs * self.flops_per_sample / 1e9
        return median(
            work / peak / seconds
            for peak, seconds in zip(self.peaks, self.seconds[name], strict=True)
        )


def measure(options: Options) -> Figures:
    """Train every work with every library."""
    results = []
    names = [name for name in PEERS if options.torch_compile or name != COMPILED]
    for work in options.works or map(Work.parse, WORKS):
        print(f"  {work}", flush=True)
        data = Data.of(work, options.samples, options.mnist)
        result = Result(str(work), data.name, len(data), work.epochs, work.flops_per_sample)
        take_turns(start(names, work, data, options.threads, result), options, result)
        results.append(asdict(result))
    return {"results": results}


def start(names: list[str], work: Work, data: Data, threads: int, result: Result) -> list[Peer]:
    """Make the peers and train once with each, which compiles what is to be compiled.

    What is not installed or does not work here is left out, with the reason. Exits if the losses
    do not agree.
    """
    order, peers = Order.draw(len(data), 0), []
    for name in names:
        module, attribute = PEERS[name]
        try:
            peer = getattr(importlib.import_module(module), attribute)(work, data, threads)
            peer.train(order)
        except Exception as error:
            if name == REFERENCE:
                raise
            result.skipped[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        peers.append(peer)
    losses = {peer.name: peer.loss() for peer in peers if peer.same_network}
    for name, loss in losses.items():
        if not abs(loss / losses[REFERENCE] - 1.0) < TOLERANCE:
            raise SystemExit(f"{name} does not compute the same as others: losses {losses}")
    result.losses = losses
    return peers


def take_turns(peers: list[Peer], options: Options, result: Result) -> None:
    """Let the peers train in turn, the FMA peak first in each round."""
    result.seconds = {peer.name: [] for peer in peers}
    for number in range(1, options.rounds + 1):
        order = Order.draw(result.samples, number)
        result.peaks.append(fma_peak("float32", options.threads))
        for peer in peers:
            gc.collect()
            time.sleep(PAUSE)
            result.seconds[peer.name].append(peer.train(order))
    result.settings = {peer.name: peer.setting for peer in peers}


def section(figures: Figures) -> str:
    """Return a table for each work, and how each library was set."""
    blocks = ["## Training"]
    for result in (Result(**fields) for fields in figures["results"]):
        notes = [f"- {name}: {text}." for name, text in result.settings.items()]
        notes += [f"- {name}: left out, {text}" for name, text in result.skipped.items()]
        losses = ", ".join(f"{name} {loss:.5f}" for name, loss in result.losses.items())
        blocks += [
            f"### {result.title}",
            table(COLUMNS, rows(result)),
            f"{result.data[0].upper()}{result.data[1:]}, {result.samples:,} samples, float32. FMA "
            f"peak in this run: {median(result.peaks):.0f} GFLOP/s. Losses after the first "
            f"{'epoch' if result.epochs == 1 else f'{result.epochs} steps'}: {losses}.",
            "\n".join(notes),
        ]
    return "\n\n".join(blocks)


def rows(result: Result) -> list[tuple[str, ...]]:
    """Cells of a table, a row for each library."""
    cells: list[tuple[str, ...]] = []
    for name, seconds in result.seconds.items():
        rate = result.samples * result.epochs / median(seconds)
        cells.append(
            (
                name,
                duration(median(seconds) / result.epochs),
                "1" if name == REFERENCE else with_range(result.ratio(name)),
                f"{rate:,.0f}",
                f"{rate * result.flops_per_sample / 1e9:.1f}",
                f"{result.limit(name):.0%}",
            )
        )
    return cells
