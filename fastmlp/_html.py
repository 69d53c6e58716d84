"""Tables for notebooks: escaped text, no scripts, no styles of their own."""

import html
from collections.abc import Sequence


def html_table(rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """Return a table of text, titles first, and lines below it."""
    titles, *others = rows
    body = "".join(_row("td", row) for row in others)
    lines = "".join(f"<div>{html.escape(note)}</div>" for note in notes)
    return f"<table><thead>{_row('th', titles)}</thead><tbody>{body}</tbody></table>{lines}"


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
