"""What sections of the page are made of: tables, figures, lists of jobs that open on a click."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from tlc_jax.report.figures import Drawn


def details(names: Sequence[str]) -> str:
    """Names behind their number."""
    listing = "<br>".join(map(escape, names))
    return f"<details><summary>{len(names)}</summary>{listing}</details>"


def table(heading: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table of cells that are already HTML; headings that start with # are columns of numbers.

    Columns in which every cell is empty are left out.
    """
    rows = list(rows)
    kept = [place for place in range(len(heading)) if not rows or any(row[place] for row in rows)]
    heading, rows = (
        [heading[place] for place in kept],
        [[row[place] for place in kept] for row in rows],
    )
    classes = [" class='n'" if name.startswith("#") else "" for name in heading]
    head = "".join(
        f"<th{c}>{name.lstrip('#')}</th>" for name, c in zip(heading, classes, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{c}>{cell}</td>" for cell, c in zip(row, classes, strict=True))
        + "</tr>\n"
        for row in rows
    )
    return f"<div class='scroll'><table class='{kind}'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def figures(drawn: Sequence[Drawn]) -> str:
    """Images inside the page, with their captions."""
    return "<div class='figures'>" + "".join(map(_figure, drawn)) + "</div>"


def _figure(figure: Drawn) -> str:
    data = base64.b64encode(figure.path.read_bytes()).decode()
    wide = " class='wide'" if figure.wide else ""
    return (
        f"<figure{wide}><img src='data:image/png;base64,{data}' alt='{escape(figure.title, quote=True)}'>"
        f"<figcaption><strong>{escape(figure.title)}.</strong> {escape(figure.caption)}</figcaption></figure>\n"
    )
