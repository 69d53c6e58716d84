"""Check that a source archive and a wheel hold what they should, file for file, and nothing else.

Usage: python tools/check_contents.py FOLDER

FOLDER holds one of each. The source archive must have every file that git knows, and the wheel the
modules and data of ``fastmlp/`` and ``kernels/`` with both licences, no tests and no leftovers.
"""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA = {
    "fastmlp/py.typed",
    "fastmlp/datasets/MNIST-LICENSE.md",
    "fastmlp/datasets/mnist157.npz",
}
LICENSES = {"licenses/LICENSE", "licenses/fastmlp/datasets/MNIST-LICENSE.md"}
DIST_INFO = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt", *LICENSES}
MADE = {"PKG-INFO", "setup.cfg"}  # by the build, besides the folder fastmlp.egg-info


def tracked() -> set[str]:
    """Return the paths that git knows and that are in the folder."""
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return {path for path in listing.split("\0") if path and (ROOT / path).exists()}


def in_wheel(sources: set[str], dist_info: str) -> set[str]:
    """Return the files that the wheel of these sources must have."""
    modules = {path for path in sources if path.endswith(".py")}
    package = {path for path in modules if path.startswith("fastmlp/")}
    kernels = {f"fastmlp/{path}" for path in modules if path.startswith("kernels/")}
    return package | kernels | DATA | {f"{dist_info}/{name}" for name in DIST_INFO}


def differences(name: str, found: set[str], expected: set[str]) -> list[str]:
    """Return a line for each file that is missing or should not be there."""
    return [
        *(f"{name} lacks {path}" for path in sorted(expected - found)),
        *(f"{name} should not hold {path}" for path in sorted(found - expected)),
    ]


def main(folder: Path) -> int:
    """List and check both files; return the exit code."""
    (archive,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    sources = tracked()

    with tarfile.open(archive) as file:
        top = archive.name.removesuffix(".tar.gz")
        inside = {m.name.removeprefix(f"{top}/") for m in file.getmembers() if m.isfile()}
    inside = {path for path in inside if not path.startswith("fastmlp.egg-info/")}
    with zipfile.ZipFile(wheel) as file:
        sizes = {info.filename: info.file_size for info in file.infolist()}
    for path, size in sizes.items():
        print(f"{size:>9,}  {path}")

    dist_info = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    wrong = differences(archive.name, inside, sources | MADE)
    wrong += differences(wheel.name, set(sizes), in_wheel(sources, dist_info))
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"{archive.name}: {len(inside)} files; {wheel.name}: {len(sizes)} files")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
