"""The documentation: every Python block runs, and the reference has every public name.

A block is what a fence that says exactly ``python`` encloses. Later blocks of a file see the names
of earlier ones, as a reader does. The cells of notebooks, ``{code-cell}``, run when the site is
built: ``nox -s docs``.
"""

import inspect
import re
from pathlib import Path

import pytest

import fastmlp as fm

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def python_blocks(text: str) -> list[str]:
    """Return the blocks, each with blank lines before it so that its lines keep their numbers."""
    return ["\n" * text.count("\n", 0, m.start(1)) + m[1] for m in BLOCK.finditer(text)]


PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if python_blocks(page.read_text(encoding="utf-8"))
]


def test_blocks_are_found_with_their_line_numbers():
    text = "# A\n```python\na = 1\n```\n```sh\nls\n```\n```pycon\n>>> a\n```\n```python\nb = a\n```"
    assert python_blocks(text) == ["\n\na = 1\n", "\n" * 11 + "b = a\n"]


def test_readme_and_guides_have_code():
    names = {page.name for page in PAGES}
    assert {"README.md", "model.md", "training.md", "mathematics.md"} <= names


@pytest.mark.jit
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    namespace = {"__name__": "__main__"}
    for block in python_blocks(page.read_text(encoding="utf-8")):
        exec(compile(block, str(page), "exec"), namespace)


def test_reference_has_every_public_name():
    pages = (ROOT / "docs" / "reference").glob("*.rst")
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    listed = set(re.findall(r"^   ([\w.]+)$", text, re.MULTILINE))
    names = {name for name in fm.__all__ if not inspect.ismodule(getattr(fm, name))}
    assert names - listed == set()
    assert {name for name in fm.schedules.__all__ if name[0].isupper()} - listed == set()
    assert {*fm.initializers.NAMES} - listed == {"xavier_normal", "xavier_uniform"}
