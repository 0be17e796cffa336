"""Pages for a browser: one file each, which needs nothing beside it and no network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from featbench.system.printable import make_printable

STYLE = """
:root { color-scheme: light dark; --ink: #1c1f23; --soft: #5b626b; --ground: #fff; --panel: #f4f5f7;
  --line: #d5d9de; --right: #1f6fb4; --wrong: #b3460b; --mark: #fff4d6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #a0a8b2; --ground: #16181c; --panel: #22262c;
  --line: #3a4048; --right: #74b3ea; --wrong: #f0975a; --mark: #3a3320; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 68rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; border-bottom: 1px solid var(--line); }
p { max-width: 45rem; }
.soft { color: var(--soft); font-size: .9rem; }
.right { color: var(--right); }
.wrong { color: var(--wrong); }
a { color: var(--right); }
:focus-visible { outline: 3px solid var(--right); outline-offset: 2px; }
code, pre { font: .9rem/1.4 ui-monospace, monospace; }
pre { background: var(--panel); padding: .7rem; overflow-x: auto; white-space: pre-wrap; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; }
.scroll { overflow-x: auto; max-height: 40rem; border: 1px solid var(--line); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
caption { text-align: left; padding: .3rem .6rem; color: var(--soft); font-size: .9rem; }
th, td { padding: .2rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { position: sticky; top: 0; background: var(--panel); z-index: 1; }
td.number, th.number { text-align: right; white-space: nowrap; }
tr.chosen > * { background: var(--mark); }
table.matrix { font-size: .75rem; }
table.matrix td { text-align: right; padding: .1rem .3rem; border-left: 1px solid var(--line); }
table.matrix thead th { writing-mode: vertical-rl; padding: .3rem .1rem; }
table.matrix tbody th { position: sticky; left: 0; background: var(--panel); white-space: nowrap; }
table.matrix td.right, table.matrix td.wrong { font-weight: 600; }
.bar { display: block; position: relative; width: 9rem; height: 1rem; margin-top: .25rem; background: var(--panel);
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.bar i { position: absolute; inset: 0 auto 0 0; background: var(--right); }
.bar b { position: absolute; top: .45rem; height: .15rem; background: var(--ink); }
.bar u { position: absolute; top: -.15rem; bottom: -.15rem; width: 2px; background: var(--wrong); }
.picture { overflow: auto; max-height: 60rem; border: 1px solid var(--line); background: #fff; }
.picture img { display: block; max-width: none; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: 1rem; padding: 0; margin: 0;
  list-style: none; }
.sheet figure { margin: 0; }
.sheet img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: var(--panel); }
.sheet img.pixels { image-rendering: pixelated; }
.sheet figcaption { font-size: .85rem; line-height: 1.35; }
@media (max-width: 30rem) { body { padding: .6rem; } dl { grid-template-columns: 1fr; } dt { margin-top: .4rem; }
  .bar { width: 5rem; } th, td { padding: .2rem .35rem; } }
@media print { body { max-width: none; font-size: 10pt; } .scroll, .picture { overflow: visible; max-height: none;
  border: none; } .picture img { max-width: 100%; height: auto; } thead th { position: static; }
  figure, tr { break-inside: avoid; } details { display: none; } }
"""
"""One look for every page; it follows the browser's choice of dark and light."""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Nothing is loaded and no script runs, whatever a name on the page may hold."""


def quote(text: object) -> str:
    """Return a text as it may stand in a page, in an attribute as well."""
    return escape(make_printable(str(text)))


def render_document(title: str, body: Sequence[str]) -> str:
    """Return a whole page; `title` is plain text, `body` its parts as HTML."""
    parts = "\n".join(part for part in body if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{quote(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{parts}\n</main>\n"
        "</body>\n</html>\n"
    )


def render_table(
    caption: str, headings: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int = 0, chosen: int | None = None
) -> str:
    """Return a table that scrolls by itself where it is wide or long.

    caption, headings: plain text. rows: of HTML, the first column names the row. numbers: how many of the last columns
    are numbers. chosen: the row to mark.
    """
    words = len(headings) - numbers
    head = "".join(
        f'<th scope="col"{_classify(index >= words)}>{quote(text)}</th>' for index, text in enumerate(headings)
    )
    lines = []
    for number, row in enumerate(rows):
        first, *others = row
        cells = "".join(f"<td{_classify(index >= words)}>{cell}</td>" for index, cell in enumerate(others, start=1))
        mark = ' class="chosen" aria-current="true"' if number == chosen else ""
        lines.append(f'<tr{mark}><th scope="row"{_classify(words < 1)}>{first}</th>{cells}</tr>')
    return make_scrollable(
        caption,
        f"<table><caption>{quote(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n"
        + "\n".join(lines)
        + "\n</tbody></table>",
    )


def make_scrollable(label: str, inner: str, kind: str = "scroll") -> str:
    """Return HTML in a box that scrolls, by the keyboard as well; `label` is what a screen reader calls it."""
    return f'<div class="{kind}" role="region" tabindex="0" aria-label="{quote(label)}">{inner}</div>'


def embed_image(content: bytes, form: str, alt: str, attributes: str = "") -> str:
    """Return an image that is part of the page; form: png or jpeg. alt: what it shows, for those who do not see it."""
    data = base64.b64encode(content).decode("ascii")
    return f'<img src="data:image/{form};base64,{data}" alt="{quote(alt)}"{attributes and " " + attributes}>'


def render_definitions(pairs: Sequence[tuple[str, str]]) -> str:
    """Return terms with what they mean: plain text, and HTML."""
    return "<dl>" + "".join(f"<dt>{quote(term)}</dt><dd>{meaning}</dd>" for term, meaning in pairs) + "</dl>"


def _classify(number: bool) -> str:
    return ' class="number"' if number else ""
