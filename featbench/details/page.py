"""The page of a row: what was compared, its classes, its confusions and the images that it got wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from featbench.data.maps import Preprocessing
from featbench.details.classes import ClassAccuracy, rank_confusions
from featbench.details.collect import RowDetails
from featbench.details.mistakes import TOGETHER, Mistake, describe_frequency
from featbench.execution.stored_comparison import StoredComparison
from featbench.report.confusion_picture import NAMED
from featbench.report.html import (
    embed_image,
    make_scrollable,
    quote,
    render_definitions,
    render_document,
    render_table,
)
from featbench.report.table import add_unit, explain_deviation, format_score

PAIRS = 15
"""Confusions in the list of the most frequent ones."""


def render_page(details: RowDetails, picture: bytes, files: Sequence[tuple[str, str]], command: str) -> str:
    """Return the page of a row.

    picture: the confusion matrix as PNG. files: the names of the files beside the page, and what they hold. command:
    what exports the row.
    """
    row = details.row.columns
    score = describe_score(details)
    body = [
        f"<h1>{quote(details.row.name)}</h1>",
        f"<p>{quote(score)}</p>",
        *_render_context(details),
        *_render_classes(details),
        *_render_confusions(details, picture),
        *_render_mistakes(details),
        *_render_draws(details),
        "<h2>All rows of the comparison</h2>",
        render_rows(details.comparison.rows, details.comparison.stored_rows.index(details.row)),
        f'<p class="soft">{quote(explain_deviation([str(row["unit"])]))}</p>',
        *_render_next(files, command),
    ]
    return render_document(f"{details.row.name}: {score}", body)


def render_index(comparison: StoredComparison, links: Sequence[str | None]) -> str:
    """Return the page that lists the rows of a comparison; links: where the page of each lies, None if it has none."""
    first = comparison.rows.iloc[0]
    title = f"{first['protocol']} · {first['dataset']}"
    body = [
        f"<h1>{quote(title)}</h1>",
        render_definitions(
            [
                *describe_comparison(comparison.stored_rows[0].columns),
                ("comparison", f"<code>{comparison.key[:12]}</code>"),
            ]
        ),
        "<h2>Rows</h2>",
        "<p>Each complete row leads to a page of its own.</p>",
        render_rows(comparison.rows, links=links),
        f'<p class="soft">{quote(explain_deviation([str(first["unit"])]))}</p>',
    ]
    return render_document(title, body)


def describe_score(details: RowDetails) -> str:
    """Return the score of a row in words."""
    row, predictions = details.row.columns, details.predictions
    shown = format_score("ok", row["mean"], row["std"], row["unit"])
    draws = len(predictions.draws)
    over = f"mean ± standard deviation over {draws} draws" if draws > 1 else "one draw of training images"
    return f"{add_unit(shown, row['unit'])} {row['metric']} ({over})"


def render_rows(rows: pd.DataFrame, chosen: int | None = None, links: Sequence[str | None] = ()) -> str:
    """Return the table of a comparison's rows as HTML; links: where the page of each row lies, None where it has none.

    A row that failed or was skipped says why.
    """
    first = rows.iloc[0]
    headings = ("features", "regime", "classifier", add_unit(first["metric"], first["unit"]), "n", "fit s", "extract s")
    lines = []
    for number, row in enumerate(rows.to_dict("records")):
        learner = quote(row["learner"].replace("raw-pixels", "raw pixels"))
        if links and links[number] is not None:
            learner = f'<a href="{quote(links[number])}">{learner}</a>'
        score = quote(format_score(row["status"], row["mean"], row["std"], row["unit"]))
        if row["status"] != "ok":
            score += f'<br><span class="soft">{quote(row["message"])}</span>'
        seconds = [f"{row[name]:.2f}" if row["n"] else "" for name in ("fit_seconds", "extract_seconds")]
        lines.append([learner, quote(row["label"]), quote(row["classifier"]), score, str(row["n"]), *seconds])
    return render_table("rows, as the table of the comparison has them", headings, lines, numbers=4, chosen=chosen)


def describe_comparison(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a row, by its columns, has in common with those beside it: terms with their meaning in HTML."""
    asked = {"protocol": "protocol", "dataset": "data set", "train_per_class": "training images per class"}
    return [(term, quote(row[column])) for column, term in asked.items()]


def _render_context(details: RowDetails) -> list[str]:
    cell, row = details.predictions.cell, details.row.columns
    tested = {index for draw in details.predictions.draws for index in draw.test.tolist()}
    left_out = int(row["images_left_out"])
    pairs = [
        *describe_comparison(row),
        ("test images", f"{_count_tests(details)}, {len(tested)} different ones" + _describe_test(cell.test)),
        ("classes", str(len(details.predictions.classes))),
        ("images are made", quote(_describe_preprocessing(cell.preprocessing))),
        *([("architecture", f"<code>{quote(cell.architecture)}</code>")] if cell.architecture else []),
        *([("unlabelled images", quote(cell.unlabelled))] if cell.unlabelled else []),
        *([("images left out", f"{left_out}, which could not be used")] if left_out else []),
        ("seed", str(cell.seed)),
        ("device", quote(f"{cell.device}, {cell.precision}")),
        ("comparison", f"<code>{details.comparison.key[:12]}</code>"),
    ]
    return ["<h2>What was compared</h2>", render_definitions(pairs)]


def _describe_preprocessing(preprocessing: Preprocessing) -> str:
    colour = {"grey": "grey", "rgb": "red, green and blue", "opponent": "opponent colours"}[preprocessing.colour]
    size = "their own size" if preprocessing.size is None else f"{preprocessing.size} pixels at their longest side"
    return f"{colour}, {size}"


def _count_tests(details: RowDetails) -> str:
    sizes = sorted({len(draw.test) for draw in details.predictions.draws})
    draws = len(details.predictions.draws)
    shown = " to ".join(str(size) for size in dict.fromkeys((sizes[0], sizes[-1])))
    return f"{shown} in each of {draws} draws" if draws > 1 else f"{shown} in one draw"


def _describe_test(test: str) -> str:
    return {
        "rest": ": all that did not train, in each draw others",
        "fixed": ": the data set's own, the same in every draw",
        "held-out": ": set apart once, the same in every draw",
    }[test]


def _render_classes(details: RowDetails) -> list[str]:
    names, chance = details.predictions.classes, 100 / len(details.predictions.classes)
    ordered = sorted(details.classes, key=lambda one: (one.accuracy is None, one.accuracy, one.label))
    lines = [[quote(names[one.label]), *_make_class_line(one, chance)] for one in ordered]
    headings = ("class", "", "accuracy %", "95 % interval", "right", "tests", "images")
    metric = details.row.columns["metric"]
    other = f" The comparison's score is {metric}; everything from here on counts first predictions alone."
    text = (
        "The part of each class's tests whose first prediction is right; ± is the standard deviation over the draws. A "
        f"guess among {len(names)} classes is right in {chance:.1f} % (the upright line in the bars). The interval is "
        "Wilson's; an image counts once in it, however often it tested."
    )
    return [
        "<h2>Classes</h2>",
        f"<p>{quote(text + (other if metric != 'accuracy' else ''))}</p>",
        render_table("the class that is recognised least comes first", headings, lines, numbers=5),
    ]


def _make_class_line(one: ClassAccuracy, chance: float) -> list[str]:
    if one.accuracy is None or one.low is None or one.high is None:
        return ["", "no image tested", "", "0", "0", "0"]
    bar = (
        f'<span class="bar" aria-hidden="true"><i style="width:{one.accuracy:.1f}%"></i>'
        f'<b style="left:{one.low:.1f}%;width:{one.high - one.low:.1f}%"></b><u style="left:{chance:.1f}%"></u></span>'
    )
    shown = f"{one.accuracy:.1f}" if one.deviation is None else f"{one.accuracy:.1f} ± {one.deviation:.1f}"
    return [bar, shown, f"{one.low:.1f} to {one.high:.1f}", str(one.right), str(one.tests), str(one.images)]


def _render_confusions(details: RowDetails, picture: bytes) -> list[str]:
    names, pairs = details.predictions.classes, rank_confusions(details.counts)
    total = sum(pair.count for pair in pairs)
    text = f"{total} of {details.counts.sum()} predictions over all draws are wrong."
    parts = ["<h2>What is taken for what</h2>", f"<p>{text}</p>"]
    if pairs:
        lines = [
            [quote(names[one.truth]), quote(names[one.taken_for]), str(one.count), f"{one.share:.1f}"]
            for one in pairs[:PAIRS]
        ]
        rest = len(pairs) - len(lines)
        caption = "the most frequent confusions" + (f"; {rest} more are in confusion.csv" if rest else "")
        headings = ("true class", "predicted class", "times", "% of the class's tests")
        parts.append(render_table(caption, headings, lines, numbers=2))
    alt = f"Confusion matrix of {len(names)} classes; confusion.csv has its numbers."
    return [
        *parts,
        '<p class="soft">True classes by rows, predicted ones by columns; right predictions are blue, wrong ones '
        "orange, the darker the larger their part of the row.</p>",
        make_scrollable("confusion matrix, picture", embed_image(picture, "png", alt), "picture"),
        f"<details><summary>The same as a table of numbers</summary>{_render_matrix(details)}</details>"
        if len(names) <= NAMED
        else "<p>There are too many classes for their names, and for a table of numbers: confusion.csv has both.</p>",
    ]


def _render_matrix(details: RowDetails) -> str:
    names = [quote(name) for name in details.predictions.classes]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    lines = []
    for row, counts in enumerate(details.counts.tolist()):
        cells = "".join(
            f'<td class="{"right" if row == column else "wrong"}">{count}</td>' if count else "<td></td>"
            for column, count in enumerate(counts)
        )
        lines.append(f'<tr><th scope="row">{names[row]}</th>{cells}</tr>')
    table = (
        '<table class="matrix"><caption>true classes by rows, predicted ones by columns</caption>\n'
        f"<thead><tr><td></td>{head}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody></table>"
    )
    return make_scrollable("confusion matrix, numbers", table)


def _render_mistakes(details: RowDetails) -> list[str]:
    count, shown = len(details.mistakes), details.shown
    if not count:
        return ["<h2>Wrong images</h2>", "<p>No test image was predicted wrong in any draw.</p>"]
    images = f"{count} images were" if count > 1 else "1 image was"
    rest = f" The first {len(shown)} are shown; predictions.csv has all." if count > len(shown) else ""
    text = (
        f"{images} predicted wrong in at least one draw. Those that were wrong most often come first, and among them "
        f"those of the most frequent confusions, {TOGETHER} of each at a time.{rest}"
    )
    items = "\n".join(_render_mistake(details, number, one) for number, one in enumerate(shown))
    return ["<h2>Wrong images</h2>", f"<p>{quote(text)}</p>", f'<ul class="sheet">\n{items}\n</ul>']


def _render_mistake(details: RowDetails, number: int, mistake: Mistake) -> str:
    names, thumbnail = details.predictions.classes, details.thumbnails[number]
    file, truth, taken_for = details.name_image(mistake.index), names[mistake.truth], names[mistake.taken_for]
    content, form = thumbnail.encode()
    # Loaded when it comes into view: a page has about a hundred of them.
    attributes = 'class="pixels" loading="lazy"' if thumbnail.is_small else 'loading="lazy"'
    image = embed_image(content, form, f"{file}: {truth}, taken for {taken_for}", attributes)
    return (
        f'<li><figure>{image}<figcaption><span class="right">{quote(truth)}</span> → '
        f'<span class="wrong">{quote(taken_for)}</span><br><span class="soft">{quote(file)}<br>'
        f"{describe_frequency(mistake)}</span></figcaption></figure></li>"
    )


def _render_draws(details: RowDetails) -> list[str]:
    row = details.row.columns
    reports = [run.result.report for run in details.row.runs]
    chosen = any("learner" in report for report in reports)
    lines = []
    for draw, report in zip(details.predictions.draws, reports, strict=True):
        wrong = int((draw.predicted != details.predictions.labels[draw.test]).sum())
        learner = [quote(report.get("learner", ""))] if chosen else []
        score = format_score("ok", draw.score, None, row["unit"])
        lines.append([str(draw.draw), *learner, score, str(len(draw.test)), str(wrong)])
    headings = ("draw", *(["chosen on validation images"] if chosen else []), add_unit(row["metric"], row["unit"]))
    table = render_table("each draw takes other training images", (*headings, "tests", "wrong"), lines, numbers=3)
    return ["<h2>Draws</h2>", table]


def _render_next(files: Sequence[tuple[str, str]], command: str) -> list[str]:
    links = [(name, f'{quote(what)} (<a href="{quote(name)}">open</a>)') for name, what in files]
    return [
        "<h2>How to go on</h2>",
        "<p>Keep the fitted pipeline in a folder, and classify new images with it:</p>",
        f"<pre>{quote(command)}\nfeatbench predict model PATHS</pre>",
        "<p>The files beside this page:</p>",
        render_definitions(links),
    ]
