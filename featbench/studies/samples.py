"""Samples: learning curves, the test error against the number of training images of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featbench.errors import SplitError, UsageError
from featbench.studies.series import BASELINES, Row, compare_each, fingerprints, number
from featbench.studies.study import Findings, Table, Value, option
from featbench.studies.study import Settings as StudySettings

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from featbench.comparison import Workbench
    from featbench.evaluation.protocol import Protocol
    from featbench.experiment.request import Request

ALL = "all"

PRINTED = ", published"
"""What ends the names of published curves in the legend, where they stand last."""

SOURCE = (
    "Jarrett, Kavukcuoglu, Ranzato, LeCun 2009, figure 3, with two more curves of Kavukcuoglu's thesis (2011), figure "
    "4.3: NORB, two stages, read off the figure."
)


def _norb(*errors: float) -> dict[int, float]:
    return dict(zip((20, 50, 100, 200, 500, 1000, 2000, 4860), errors, strict=True))


PUBLISHED = {
    "norb": {
        "R+R+ F-P_A": _norb(46.3, 31.4, 20.5, 12.6, 8.1, 7.8, 7.0, 6.9),
        "RR abs-N": _norb(35.9, 24.2, 20.1, 16.6, 15.2, 14.7, 14.2, 13.8),
        "UU abs-N": _norb(30.0, 19.0, 16.0, 13.0, 12.0, 11.0, 11.0, 10.0),
        "R+R+ abs-N": _norb(28.3, 17.5, 11.0, 8.9, 7.9, 5.7, 5.9, 5.6),
        "U+U+ abs-N": _norb(24.5, 15.5, 10.9, 8.5, 6.6, 6.8, 6.2, 5.3),
    }
}
"""Test error in percent by training images of each class, for each curve of the protocols it was published for."""

Curves = Mapping[tuple[str, str, str], Mapping[int | str, Row]]
"""Rows by number of training images, for each learner, regime and classifier."""


@dataclass(frozen=True)
class Settings(StudySettings):
    """Settings of the study of the number of training images."""

    protocol: str = option("mnist", "protocol, which gives data, preprocessing, splits and classifier")
    samples: tuple[int | str, ...] = option(
        ("10", "30", "100", "300", "1000", ALL), "training images of each class: numbers, and all"
    )
    features: str = option("random,psd,convnet", "learners, as in random,psd(lam=0.5)")
    regimes: str = option("R,U,R+,U+", "among R,U,R+,U+,fixed,fixed+")
    classifiers: str = option("", "classifiers; by default the protocol's own")
    stages: str = option("", "architecture; by default the protocol's own")
    refine: str = option("", "settings of R+ and U+, as in epochs=30; by default the protocol's own")
    draws: int = option(3, "draws of training images; all of them make one draw", least=1)
    device: str = option("auto", "where to compute: auto, cpu or cuda")
    unlabelled: str = option("", "folder of images, or data set, to learn filters from; by default the training images")

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes(self.samples)


def sizes(samples: Sequence[int | str]) -> list[int | str]:
    """Return numbers of training images in ascending order, each once, "all" last; a `UsageError` names a wrong one."""
    texts = {str(sample).strip() for sample in samples}
    for text in texts - {ALL}:
        if not text.isdecimal() or int(text) < 2:
            raise UsageError(f"--samples takes all, and numbers of at least 2 (one image validates), not {text!r}")
    return [*sorted(int(text) for text in texts - {ALL}), *texts & {ALL}]


def run(settings: Settings, workbench: Workbench) -> Findings:
    """Run a comparison for each number of training images; what the store holds is read."""
    protocol = workbench.registry.protocol(settings.protocol)
    asked = sizes(settings.samples)
    if ALL in asked and protocol.test == "rest":
        raise UsageError(f"--samples all leaves no image of {protocol.name} to test on: give numbers alone")
    requests = {size: _request(settings, size) for size in asked}
    try:
        rows = compare_each(workbench, requests, "samples", "training images of each class")
    except SplitError as error:
        raise SplitError(str(error).replace("--train-per-class", "--samples")) from error
    curves = _curves([row for row in rows if row["status"] != "skipped"])
    positions = {size: _per_class(workbench, protocol) if size == ALL else float(size) for size in asked}
    published = PUBLISHED.get(settings.protocol, {})
    return Findings(
        title=f"Learning curves: {settings.protocol}",
        source=SOURCE if published else "",
        tables=[_summary(curves, positions, published), _points(curves, positions)],
        notes=_notes(rows, protocol),
        draw=lambda figure: _draw(figure, curves, positions, published),
        size=(7.5, 4.5),
        data=fingerprints(workbench, rows),
        failed=any(row["status"] == "failed" for row in rows),
    )


def _request(settings: Settings, size: int | str) -> Request:
    from featbench.experiment.request import Request, split_list

    return Request(
        protocol=settings.protocol,
        features=split_list(settings.features),
        regimes=split_list(settings.regimes),
        classifiers=split_list(settings.classifiers) or None,
        stages=settings.stages or None,
        train_per_class=size,
        draws=None if size == ALL else settings.draws,
        seed=settings.seed,
        device=settings.device,
        unlabelled=settings.unlabelled or None,
        refine=settings.refine or None,
    )


def _per_class(workbench: Workbench, protocol: Protocol) -> float:
    """Return how many training images a class has in the mean, of a data set with test images of its own."""
    census = workbench.steps.survey(protocol.dataset, protocol.preprocessing).census
    return (sum(census.images) - sum(census.own_test)) / len(census.classes)


def _curves(rows: Sequence[Row]) -> Curves:
    """Return the curves in the order of the rows, baselines last."""
    curves: dict[tuple[str, str, str], dict[int | str, Row]] = {}
    for row in sorted(rows, key=lambda row: row["learner"] in BASELINES):
        features = str(row["learner"]).replace("raw-pixels", "raw pixels")
        curves.setdefault((features, row["label"], row["classifier"]), {})[row["samples"]] = row
    return curves


def _error(row: Row) -> float | None:
    score = number(row["mean"])
    return None if score is None else 100 - score


def _name(curve: tuple[str, str, str], several: bool) -> dict[str, Value]:
    """Return the columns that name a curve; the classifier only where there are several."""
    named = dict(zip(("features", "regime", "classifier"), curve, strict=True))
    return {column: text for column, text in named.items() if several or column != "classifier"}


def _several(curves: Curves) -> bool:
    return len({classifier for features, _, classifier in curves if features != "chance"}) > 1


def _summary(
    curves: Curves, positions: Mapping[int | str, float], published: Mapping[str, Mapping[int, float]]
) -> Table:
    several = _several(curves)
    rows: list[dict[str, Value]] = [
        {**_name(curve, several), **{str(size): _text(row) for size, row in points.items()}}
        for curve, points in curves.items()
    ]
    for theirs, errors in published.items():
        values = {str(size): errors.get(round(place)) for size, place in positions.items()}
        rows.append({**_name(("published", theirs, ""), several), **values})
    return Table("Test error in %, by training images of each class", rows)


def _text(row: Row) -> str:
    error, deviation = _error(row), number(row["std"])
    if error is None:
        return "–"
    form = ".1f" if error >= 10 else ".2f"
    return format(error, form) + ("" if deviation is None else f" ± {deviation:{form}}")


def _points(curves: Curves, positions: Mapping[int | str, float]) -> Table:
    several = _several(curves)
    rows: list[dict[str, Value]] = [
        {
            **_name(curve, several),
            "images of each class": positions[size],
            "error %": _error(row),
            "±": number(row["std"]),
            "n": int(row["n"]),
            "status": row["status"],
        }
        for curve, points in curves.items()
        for size, row in points.items()
    ]
    return Table("Point by point", rows, {"images of each class": ".0f", "error %": ".2f", "±": ".2f"})


def _notes(rows: Sequence[Row], protocol: Protocol) -> list[str]:
    from featbench.report.table import DEVIATION

    architectures = dict.fromkeys(row["architecture"] for row in rows if row["architecture"])
    tested = "the data set's own test images" if protocol.test == "fixed" else "images that were not trained on"
    drawn = (
        f"The error is 100 less the {rows[0]['metric']}, on {tested}. The smaller training sets of a draw are part of "
        f"its larger ones; {protocol.validation_fraction:.0%} of each are held out while something is chosen."
    )
    failed = [
        f"{row['samples']} images of each class, {row['learner']} {row['label']}: {row['message']}"
        for row in rows
        if row["message"] and row["status"] != "skipped"
    ]
    reasons = [*dict.fromkeys(_forgotten(rows)), *dict.fromkeys(failed)]
    return [*(f"Architecture: {text}." for text in architectures), DEVIATION, drawn, *reasons]


def _forgotten(rows: Sequence[Row]) -> list[str]:
    """Return why a learner or a regime that was named has no curve at all."""
    learned = [row for row in rows if row["status"] != "skipped" and row["learner"] not in BASELINES]
    present = {row[column] for row in learned for column in ("learner", "regime")}
    return [
        f"{row['learner']} {row['label']} was left out: {row['message']}"
        for row in rows
        if row["status"] == "skipped" and not {row["learner"], row["regime"]} <= present
    ]


def _draw(
    figure: Figure,
    curves: Curves,
    positions: Mapping[int | str, float],
    published: Mapping[str, Mapping[int, float]],
) -> None:
    axis = figure.subplots()
    axis.set(xscale="log", yscale="log", xlabel="training images of each class", ylabel="test error %")
    several = _several(curves)
    for curve, points in curves.items():
        found = [(positions[size], _error(row), number(row["std"]) or 0.0) for size, row in points.items()]
        shown = [point for point in found if point[1]]  # a logarithmic axis has no place for no error
        if curve[0] == "chance" or not shown:
            continue
        places, errors, deviations = zip(*shown, strict=True)
        style: dict[str, Any] = {"color": "grey", "linestyle": ":"} if curve[0] == "raw pixels" else {}
        label = " ".join(str(text) for text in _name(curve, several).values() if text != "–")
        axis.errorbar(places, errors, yerr=deviations, marker="o", markersize=4, capsize=3, label=label, **style)
    for (theirs, values), marker in zip(published.items(), "sv^D*", strict=False):
        label = theirs + PRINTED
        axis.plot(list(values), list(values.values()), "--", color="0.6", marker=marker, markersize=4, label=label)
    axis.set_xticks(list(positions.values()), [str(size) for size in positions])
    axis.minorticks_off()
    _plain_ticks(axis.yaxis)
    entries = sorted(zip(*axis.get_legend_handles_labels(), strict=True), key=lambda entry: entry[1].endswith(PRINTED))
    figure.legend(*zip(*entries, strict=True), loc="outside right upper")


def _plain_ticks(axis: Axis) -> None:
    """Write plain numbers along a logarithmic axis, several in a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
