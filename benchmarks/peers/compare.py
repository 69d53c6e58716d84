"""Measure fastmlp against its peers, part by part, and write the report.

Each part runs in a process of its own, so that no library's threads, settings or memory are there
in the next, and its figures go into a JSON file at once: parts measured at different times come
together in one report.
"""

import argparse
import importlib
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

from part import About, Figures, Options
from report import PARTS, write
from training import WORKS
from work import Work

from fastmlp.threads import resolve


def main() -> None:
    arguments = parse_arguments()
    threads = resolve(arguments.threads)
    use_cores(threads)
    options = Options(
        rounds=arguments.rounds,
        threads=threads,
        samples=arguments.samples,
        mnist=arguments.mnist,
        works=tuple(arguments.work),
        torch_compile=arguments.torch_compile,
    )
    path: Path = arguments.json
    figures = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for part in arguments.only:
        print(part, flush=True)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            try:
                measured = process.submit(measure, part, options).result()
            except ModuleNotFoundError as error:
                print(f"  left out: {error}")
                continue
        figures[part] = {"about": asdict(About(options.rounds, threads)), "figures": measured}
        path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if arguments.write:
        write(figures, arguments.write)


def measure(part: str, options: Options) -> Figures:
    """Measure one part; runs in the part's own process."""
    figures: Figures = importlib.import_module(PARTS[part]).measure(options)
    return figures


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only",
        type=parse_parts,
        default=list(PARTS),
        metavar="PART,...",
        help=f"parts to measure; default: {','.join(PARTS)}",
    )
    parser.add_argument(
        "--work",
        action="append",
        default=[],
        type=Work.parse,
        metavar="SIZES:BATCH[:OPTIMIZER]",
        help=f"what is trained, repeatable; default: {' '.join(WORKS)}",
    )
    parser.add_argument("--rounds", type=int, default=7, help="default: 7")
    parser.add_argument("--samples", type=int, default=60_000, help="default: 60000")
    parser.add_argument("--threads", type=int, help="default: all cores this process may use")
    parser.add_argument("--mnist", metavar="FOLDER", help="train on MNIST's files in this folder")
    parser.add_argument("--no-torch-compile", dest="torch_compile", action="store_false")
    parser.add_argument(
        "--json",
        type=Path,
        default=Path("peers.json"),
        metavar="FILE",
        help="the raw figures; parts not measured now are kept (default: peers.json)",
    )
    parser.add_argument(
        "--write", type=Path, metavar="FOLDER", help="write peers.md and its pictures there"
    )
    return parser.parse_args()


def parse_parts(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in PARTS:
            raise argparse.ArgumentTypeError(f"no part {name!r}: there are {', '.join(PARTS)}")
    return names


def use_cores(threads: int) -> None:
    """Keep to as many cores as there are threads, in all processes: JAX takes what it gets."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    elif threads < (os.cpu_count() or 1):
        raise SystemExit("--threads below the number of cores needs Linux: JAX would use them all")


if __name__ == "__main__":
    main()
