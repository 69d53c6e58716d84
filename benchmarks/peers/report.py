"""Put the figures of all parts together: docs/peers.md, or one of another machine, and pictures."""

import argparse
import importlib
import json
from pathlib import Path

import picture
from part import About, Figures

# A module for each part, in the order of the report.
PARTS = {
    "training": "training",
    "variants": "variants",
    "gemm": "products",
    "elementwise": "part_elementwise",
    "predict": "part_predict",
    "startup": "startup",
    "roofline": "roofline",
    "scale": "scale",
}
HEAD = """\
<!-- written by `nox -s peers`; do not edit -->
# Against its peers

Each library at its best, in turn within each round; medians, and of ratios the lowest and the
highest round. What the columns mean and how each library is used is in
[benchmarks/README.md](../benchmarks/README.md#other-libraries-peers).

![Training time of each library as a multiple of fastmlp's]({name}.svg)"""
GROWTH = "![Seconds of an epoch against multiply-adds]({name}-scale.svg)"


def write(figures: Figures, folder: Path, name: str = "peers") -> None:
    """Write NAME.md and the pictures of the parts that there are into a folder."""
    measured = {part: figures[part] for part in PARTS if part in figures}
    blocks = [HEAD.format(name=name)]
    before = ""
    for part, content in measured.items():
        module = importlib.import_module(PARTS[part])
        about = str(About(**content["about"]))
        if about != before:
            blocks.append(about)
        blocks.append(module.section(content["figures"]))
        before = about
    if "scale" in measured:
        blocks.append(GROWTH.format(name=name))
        picture.draw_growth(measured["scale"]["figures"], folder / f"{name}-scale.svg")
    (folder / f"{name}.md").write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    if "training" in measured:
        picture.draw_training(measured["training"]["figures"], folder / f"{name}.svg")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("figures", type=Path, help="the JSON file that compare.py wrote")
    parser.add_argument("folder", type=Path, help="where to")
    parser.add_argument("name", nargs="?", default="peers", help="of the report (default: peers)")
    arguments = parser.parse_args()
    figures = json.loads(arguments.figures.read_text(encoding="utf-8"))
    write(figures, arguments.folder, arguments.name)


if __name__ == "__main__":
    main()
