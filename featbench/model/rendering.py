"""Predictions as text, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import math

from tabulate import tabulate

from featbench.model.inputs import NewImages
from featbench.model.model import Model, Predictions
from featbench.report.names import make_csv_safe


def render_predictions(model: Model, inputs: NewImages, found: Predictions, form: str) -> str:
    """Return the predictions as `text`, `csv` or `json`, ending with a newline.

    CSV and JSON have what the classifier says of every class, at full precision: nothing, or null, for a class that is
    never predicted.
    """
    names = [inputs.names[int(position)] for position in found.positions]
    labels = [model.classes[label] for label in found.labels]
    measures = None if found.scores is None else model.convert_scores(found.scores)
    own = [None] * len(names) if measures is None else measures[range(len(names)), found.labels].tolist()
    if form == "text":
        headings = ["image", "class", *([model.measure] if model.measure else [])]
        lines = [
            [name, label, *([f"{value:.4f}"] if value is not None else [])]
            for name, label, value in zip(names, labels, own, strict=True)
        ]
        return tabulate(lines, headers=headings, tablefmt="plain", disable_numparse=True) + "\n"
    rows = [[None] * len(model.classes)] * len(names) if measures is None else measures.tolist()
    every = [[_drop_infinite(value) for value in row] for row in rows]
    if form == "json":
        documents = [
            {
                "image": name,
                "class": label,
                **({model.measure: value} if model.measure else {}),
                **({"scores": dict(zip(model.classes, row, strict=True))} if measures is not None else {}),
            }
            for name, label, value, row in zip(names, labels, own, every, strict=True)
        ]
        return json.dumps(documents, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    measured = [f"{model.measure} of {name}" for name in model.classes] if measures is not None else []
    writer.writerow([make_csv_safe(one) for one in ("image", "class", model.measure, *measured) if one])
    for name, label, value, row in zip(names, labels, own, every, strict=True):
        numbers = [value, *row] if measures is not None else []
        writer.writerow([make_csv_safe(name), make_csv_safe(label), *numbers])
    return text.getvalue()


def _drop_infinite(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else value
