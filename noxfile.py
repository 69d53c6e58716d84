"""Every check of the project: ``nox -l`` lists them, ``nox -s NAME`` runs one.

Tests and type checks look at the built package, installed in the session's own environment, and
run away from the checkout: nothing passes because of a file that is not shipped.
"""

import re
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.default_venv_backend = "virtualenv"

ROOT = Path(__file__).parent
CONFIG = ROOT / "pyproject.toml"
EXTRAS = nox.project.load_toml(CONFIG)["project"]["optional-dependencies"]


def install_tools(session: nox.Session, *names: str) -> None:
    """Install tools at the versions that the extras ``dev`` and ``docs`` ask for."""
    by_name = {re.split(r"[^\w-]", text)[0]: text for text in (*EXTRAS["docs"], *EXTRAS["dev"])}
    session.install(*(by_name[name] for name in names))


def build_into(session: nox.Session, folder: Path) -> Path:
    """Build the source archive and from it the wheel, in the folder; return the wheel."""
    install_tools(session, "build")
    for old in (*folder.glob("fastmlp-*.tar.gz"), *folder.glob("fastmlp-*.whl")):
        old.unlink()
    session.run("python", "-m", "build", "--outdir", str(folder), str(ROOT), silent=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install_wheel(session: nox.Session, *extras: str) -> None:
    """Build the source archive and from it the wheel, and install that with the extras.

    By way of the archive, so that no leftover of an earlier build in the checkout gets in.
    """
    wheel = build_into(session, Path(session.create_tmp()))
    session.install(f"{wheel}[{','.join(extras)}]" if extras else str(wheel))
    # pip takes an installed wheel of the same version for this one, and nox -R installs nothing.
    session.run(
        *("python", "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps"), str(wheel)
    )


@nox.session
def lint(session: nox.Session) -> None:
    """Lint all Python files and check their format (ruff)."""
    install_tools(session, "ruff")
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the installed wheel (mypy, strict)."""
    install_wheel(session, "all")
    install_tools(session, "mypy")
    session.chdir(session.create_tmp())
    session.run("mypy", "--config-file", str(CONFIG), "-p", "fastmlp", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests and the doctests on the installed wheel (arguments after -- go to pytest)."""
    install_wheel(session, "all", "test")
    session.chdir(session.create_tmp())
    session.run("pytest", str(ROOT / "tests"), *session.posargs)
    session.run("pytest", "-c", str(CONFIG), "--doctest-modules", "--pyargs", "fastmlp")


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure the tests' coverage with the compiler off (slow; leaves out tests marked jit)."""
    install_wheel(session, "all", "test")
    install_tools(session, "pytest-cov")
    session.chdir(session.create_tmp())
    session.run(
        "pytest",
        *("--cov", f"--cov-config={CONFIG}", "-m", "not jit"),
        str(ROOT / "tests"),
        *session.posargs,
        env={"NUMBA_DISABLE_JIT": "1"},
    )


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Benchmark the current commit (asv run --quick; arguments after -- take --quick's place)."""
    install_wheel(session)
    install_tools(session, "asv", "threadpoolctl")
    commit = session.run("git", "rev-parse", "HEAD", external=True, silent=True).strip()
    session.chdir(ROOT / "benchmarks")
    session.run("asv", "machine", "--yes", silent=True)
    session.run(
        *("asv", "run", "--python", "same", "--set-commit-hash", commit, "--show-stderr"),
        *(session.posargs or ["--quick"]),
    )


@nox.session
def peers(session: nox.Session) -> None:
    """Compare with other libraries and write docs/peers.md (arguments after -- take its place).

    On Linux, set PIP_EXTRA_INDEX_URL to PyTorch's CPU index to be spared its CUDA libraries.
    """
    install_wheel(session, "peers")
    session.run("python", "benchmarks/peers/compare.py", *(session.posargs or ["--write", "docs"]))


@nox.session
def build(session: nox.Session) -> None:
    """Build dist/, check what is in it, and that it works without any extra."""
    install_tools(session, "twine")
    wheel = build_into(session, ROOT / "dist")
    session.run("twine", "check", "--strict", *map(str, sorted(wheel.parent.glob("fastmlp-*"))))
    session.run("python", str(ROOT / "tools" / "check_contents.py"), str(wheel.parent))
    fresh = Path(session.create_tmp(), "core")
    session.run("python", "-m", "venv", "--clear", str(fresh))
    python = str(fresh / ("Scripts" if sys.platform == "win32" else "bin") / "python")
    session.run(python, "-m", "pip", "install", "--quiet", str(wheel), external=True)
    session.chdir(fresh)
    session.run(python, "-I", str(ROOT / "tools" / "check_core.py"), external=True)


@nox.session
def changelog(session: nox.Session) -> None:
    """Show what the fragments say (towncrier; at a release: -- build --version 1.2.3)."""
    install_tools(session, "towncrier")
    session.run("towncrier", *(session.posargs or ["build", "--draft", "--version", "Unreleased"]))


@nox.session
def tables(session: nox.Session) -> None:
    """Compare preset="tabular" with other defaults and write docs/tables.md."""
    install_wheel(session, "sklearn")
    session.run(
        "python", "benchmarks/tables.py", *(session.posargs or ["--write", "docs/tables.md"])
    )


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site in build/site and run its notebooks; a warning is an error (Sphinx).

    The code blocks of all other pages run in the tests: ``nox -s tests -- -k test_docs``.
    """
    install_wheel(session, "docs")
    shutil.rmtree(ROOT / "docs" / "reference" / "api", ignore_errors=True)
    session.run(
        *("sphinx-build", "-q", "-W", "--keep-going", "-E", "-a", "-b", "html"),
        *(str(ROOT / "docs"), str(ROOT / "build" / "site"), *session.posargs),
    )
