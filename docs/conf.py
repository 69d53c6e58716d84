"""The documentation site: ``nox -s docs`` builds it."""

import ast
import inspect
import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import mathjax
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.typing import ExtensionMetadata

import fastmlp

DOCS = Path(__file__).parent
ROOT = DOCS.parent
# Pages that are written elsewhere in the repository, where they belong to what lies beside them.
ELSEWHERE = {
    "changelog": "CHANGELOG.md",
    "fragments": "changelog.d/README.md",
    "contributing": "CONTRIBUTING.md",
    "kernels": "kernels/README.md",
    "measuring": "benchmarks/README.md",
}

project = "fastmlp"
author = "The fastmlp developers"
copyright = author
version = release = fastmlp.__version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_templates"]
templates_path = ["_templates"]
default_role = "py:obj"
suppress_warnings = ["config.cache"]  # the functions below cannot be pickled with the rest

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "force"
nb_execution_show_tb = True
nb_execution_timeout = 300
nb_merge_streams = True

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = "fastmlp"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_sidebars = {name: [] for name in ("index", "start", "mathematics")}
mathjax_path = "mathjax/tex-chtml.js"
mathjax3_config = {"chtml": {"scale": 0.93}}
html_theme_options = {
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "show_nav_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}


def read_elsewhere(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the text of a page that lies elsewhere in its place, and turn links to where they lead.

    A link to a file that is a page of the site leads to the page; one to any other file of the
    repository offers the file.
    """
    page = ROOT / ELSEWHERE[docname] if docname in ELSEWHERE else DOCS / f"{docname}.md"
    if not page.is_file():  # not Markdown
        return
    if docname in ELSEWHERE:
        source[0] = page.read_text(encoding="utf-8")
        app.env.note_dependency(str(page))
    if docname == "changelog":
        source[0] += unreleased()
    pages = {ROOT / path: DOCS / f"{name}.md" for name, path in ELSEWHERE.items()}
    pages[ROOT / "README.md"] = DOCS / "index.md"

    def turned(link: re.Match[str]) -> str:
        text, path, anchor = link[1], link[2], link[3] or ""
        target = (page.parent / path).resolve()
        target = pages.get(target, target)
        if path.endswith(text) and target.suffix == ".md":
            text = ""  # the title of the page or section takes the place of the file's name
        return f"[{text}]({os.path.relpath(target, (DOCS / docname).parent)}{anchor})"

    source[0] = re.sub(r"(?<!!)\[([^\]]*)\]\(((?!\w+:)[^)#\s]+)(#[^)\s]+)?\)", turned, source[0])


def unreleased() -> str:
    """Return what the fragments of the changelog give together."""
    command = ["towncrier", "build", "--draft", "--version", "Unreleased"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def signature_of_source(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str, returns: str
) -> tuple[str, str] | None:
    """Write annotations as the source does: ArrayLike, and not the union that it stands for."""
    if what == "property":
        return None
    function = obj.__init__ if inspect.isclass(obj) else obj
    try:
        text = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):  # the __init__ that a dataclass was given
        return None
    definition = ast.parse(text).body[0]
    if not isinstance(definition, ast.FunctionDef):
        return None
    arguments = definition.args
    if what in ("class", "method", "exception") and arguments.args[0].arg in ("self", "cls"):
        del arguments.args[0]
    result = "" if definition.returns is None else ast.unparse(definition.returns).strip("'")
    return f"({ast.unparse(arguments)})", "" if what in ("class", "exception") else result


def skip_foreign(
    app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out what an estimator inherits from scikit-learn."""
    return True if str(getattr(obj, "__module__", "")).startswith("sklearn") else None


def keep_initials(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Keep an author's initial at the start of a line from being read as the letter of a list."""
    lines[:] = [re.sub(r"^(\s*(?:\.\. \[\S+\] )?[A-Z])\. ", r"\1\\. ", line) for line in lines]


class LinkNames(SphinxTransform):
    """Make a link of a public name in backticks: `fm.fit`, `MLP.save`, `EarlyStopping`."""

    default_priority = 400

    def apply(self, **kwargs: Any) -> None:
        """Wrap each literal that is such a name."""
        for literal in list(self.document.findall(nodes.literal)):
            name = literal.astext().removeprefix("fm.").removeprefix("fastmlp.").removesuffix("()")
            plain = name.split("(")[0]
            if plain.split(".")[0] not in fastmlp.__all__ or isinstance(
                literal.parent, (nodes.reference, addnodes.pending_xref)
            ):
                continue
            link = addnodes.pending_xref(
                "", refdomain="py", reftype="obj", reftarget=f"fastmlp.{plain}", refexplicit=True
            )
            literal.replace_self(link)
            link += literal


def copy_mathjax(app: Sphinx) -> None:
    """Put MathJax into the site, which then needs no other host to be read."""
    source = Path(mathjax.__file__).parent / "static" / "mathjax" / "es5"
    target = app.outdir / "_static" / "mathjax"
    fonts = Path("output", "chtml", "fonts", "woff-v2")
    shutil.copytree(source / fonts, target / fonts, dirs_exist_ok=True)
    shutil.copy(source / "tex-chtml.js", target)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register what is above."""
    app.add_transform(LinkNames)
    app.connect("autodoc-skip-member", skip_foreign)
    app.connect("builder-inited", copy_mathjax)
    app.connect("source-read", read_elsewhere)
    app.connect("autodoc-process-docstring", keep_initials, priority=900)  # after numpydoc
    app.connect("autodoc-process-signature", signature_of_source)
    return {"parallel_read_safe": True}
