"""Study of samples: learning curves, the test error against the number of training images of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featbench.errors import SplitError, UsageError
from featbench.studies.series import Row, compare_each, read_fingerprints, read_number
from featbench.studies.study import Findings, Study, StudySettings, Table, Value, option

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from featbench.comparison import Workbench
    from featbench.evaluation.metrics import Metric
    from featbench.evaluation.protocol import Protocol
    from featbench.experiment.request import Request

ALL = "all"

PRINTED = ", published"
"""Ends the names of published curves, which come last in the legend."""

SOURCE = (
    "Jarrett, Kavukcuoglu, Ranzato, LeCun 2009, figure 3, with two more curves of Kavukcuoglu's thesis (2011), figure "
    "4.3: NORB, two stages, read off the figure."
)


def _make_norb_curve(*errors: float) -> dict[int, float]:
    return dict(zip((20, 50, 100, 200, 500, 1000, 2000, 4860), errors, strict=True))


PUBLISHED = {
    "norb": {
        "R+R+ F-P_A": _make_norb_curve(46.3, 31.4, 20.5, 12.6, 8.1, 7.8, 7.0, 6.9),
        "RR abs-N": _make_norb_curve(35.9, 24.2, 20.1, 16.6, 15.2, 14.7, 14.2, 13.8),
        "UU abs-N": _make_norb_curve(30.0, 19.0, 16.0, 13.0, 12.0, 11.0, 11.0, 10.0),
        "R+R+ abs-N": _make_norb_curve(28.3, 17.5, 11.0, 8.9, 7.9, 5.7, 5.9, 5.6),
        "U+U+ abs-N": _make_norb_curve(24.5, 15.5, 10.9, 8.5, 6.6, 6.8, 6.2, 5.3),
    }
}
"""Published test error in percent by training images of each class, by protocol and curve."""

Curves = Mapping[tuple[str, str, str], Mapping[int | str, Row]]
"""Rows by number of training images, for each curve: (learner, regime, classifier)."""


@dataclass(frozen=True)
class SamplesSettings(StudySettings):
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
    draws: int = option(3, "draws of training images; with all of them there is one draw", least=1)
    device: str = option("auto", "where to compute: auto, cpu or cuda")
    unlabelled: str = option("", "folder of images, or data set, to learn filters from; by default the training images")

    def __post_init__(self) -> None:
        super().__post_init__()
        read_sizes(self.samples)


def read_sizes(samples: Sequence[int | str]) -> list[int | str]:
    """Return the numbers of training images in ascending order, each once, with "all" last.

    Raises `UsageError` for anything but "all" and whole numbers of at least 2.
    """
    texts = {str(sample).strip() for sample in samples}
    for text in texts - {ALL}:
        if not text.isdecimal() or int(text) < 2:
            raise UsageError(f"--samples takes all, and numbers of at least 2 (one image validates), not {text!r}")
    return [*sorted(int(text) for text in texts - {ALL}), *texts & {ALL}]


def run(settings: SamplesSettings, workbench: Workbench) -> Findings:
    """Run a comparison for each number of training images. Cells that are in the store are not computed again."""
    protocol = workbench.registry.protocol(settings.protocol)
    asked = read_sizes(settings.samples)
    if ALL in asked and protocol.test == "rest":
        raise UsageError(f"--samples all leaves no image of {protocol.name} to test on: give numbers alone")
    requests = {size: _make_request(settings, size) for size in asked}
    try:
        rows = compare_each(workbench, requests, "samples", "training images of each class")
    except SplitError as error:
        # The message advises `featbench compare`; the option of this command has another name.
        raise SplitError(str(error).replace("--train-per-class", "--samples")) from error
    quantity = _choose_quantity(workbench.registry.metric(protocol.metric))
    curves = _group_curves([row for row in rows if row["status"] != "skipped"])
    positions = {size: _count_per_class(workbench, protocol) if size == ALL else float(size) for size in asked}
    published = PUBLISHED.get(settings.protocol, {})
    return Findings(
        title=f"Learning curves: {settings.protocol}",
        source=SOURCE if published else "",
        tables=[_make_summary(curves, positions, published, quantity), _make_points(curves, positions, quantity)],
        notes=_write_notes(rows, protocol, quantity),
        draw=lambda figure: _draw(figure, curves, positions, published, quantity),
        size=(7.5, 4.5),
        data=read_fingerprints(workbench, rows),
        failed=any(row["status"] == "failed" for row in rows),
    )


def _make_request(settings: SamplesSettings, size: int | str) -> Request:
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


def _count_per_class(workbench: Workbench, protocol: Protocol) -> float:
    """Return the mean number of training images of a class, for a data set with its own test images."""
    census = workbench.steps.survey(protocol.dataset, protocol.preprocessing).census
    return (sum(census.images) - sum(census.own_test)) / len(census.classes)


def _group_curves(rows: Sequence[Row]) -> Curves:
    """Group rows into curves, in the order of the rows but with baselines last."""
    curves: dict[tuple[str, str, str], dict[int | str, Row]] = {}
    for row in sorted(rows, key=lambda row: bool(row["baseline"])):
        features = str(row["learner"]).replace("raw-pixels", "raw pixels")
        curves.setdefault((features, row["label"], row["classifier"]), {})[row["samples"]] = row
    return curves


@dataclass(frozen=True)
class Quantity:
    """What the curves show: the test error, or the metric itself where it is not a percentage of successes.

    name, unit: as headings have them. origin: what it is, as in "100 less the accuracy". is_error: whether it is 100
    less the score.
    """

    name: str
    unit: str
    origin: str
    is_error: bool

    @property
    def heading(self) -> str:
        """The name with its unit."""
        return f"{self.name} {self.unit}".rstrip()

    def compute(self, row: Row) -> float | None:
        """Return the value of a row, or None if it has no mean."""
        score = read_number(row["mean"])
        return 100 - score if score is not None and self.is_error else score


def _choose_quantity(metric: Metric) -> Quantity:
    """Return the error for a percentage that is better if larger: a logarithmic axis shows its last small gains."""
    if metric.unit == "%" and metric.larger_is_better:
        return Quantity("error", "%", f"100 less the {metric.name}", is_error=True)
    return Quantity(metric.name, metric.unit, "the protocol's metric", is_error=False)


ERROR = Quantity("error", "%", "100 less the accuracy", is_error=True)


def _name_curve(curve: tuple[str, str, str], several: bool) -> dict[str, Value]:
    """Return the columns that name a curve; the classifier is one of them only if the study has several."""
    named = dict(zip(("features", "regime", "classifier"), curve, strict=True))
    return {column: text for column, text in named.items() if several or column != "classifier"}


def _has_several_classifiers(curves: Curves) -> bool:
    return len({classifier for features, _, classifier in curves if features != "chance"}) > 1


def _make_summary(
    curves: Curves,
    positions: Mapping[int | str, float],
    published: Mapping[str, Mapping[int, float]],
    quantity: Quantity,
) -> Table:
    several = _has_several_classifiers(curves)
    rows: list[dict[str, Value]] = [
        {**_name_curve(curve, several), **{str(size): _format(row, quantity) for size, row in points.items()}}
        for curve, points in curves.items()
    ]
    for theirs, errors in published.items():
        values = {str(size): errors.get(round(place)) for size, place in positions.items()}
        rows.append({**_name_curve(("published", theirs, ""), several), **values})
    unit = f" in {quantity.unit}" if quantity.unit else ""
    return Table(f"Test {quantity.name}{unit}, by training images of each class", rows)


def _format(row: Row, quantity: Quantity) -> str:
    value, deviation = quantity.compute(row), read_number(row["std"])
    if value is None:
        return "–"
    form = ".1f" if abs(value) >= 10 else ".2f" if quantity.unit == "%" else ".4g"
    return format(value, form) + ("" if deviation is None else f" ± {deviation:{form}}")


def _make_points(curves: Curves, positions: Mapping[int | str, float], quantity: Quantity) -> Table:
    several = _has_several_classifiers(curves)
    rows: list[dict[str, Value]] = [
        {
            **_name_curve(curve, several),
            "images of each class": positions[size],
            quantity.heading: quantity.compute(row),
            "±": read_number(row["std"]),
            "n": int(row["n"]),
            "status": row["status"],
        }
        for curve, points in curves.items()
        for size, row in points.items()
    ]
    form = ".2f" if quantity.unit == "%" else ".4g"
    return Table("Point by point", rows, {"images of each class": ".0f", quantity.heading: form, "±": form})


def _write_notes(rows: Sequence[Row], protocol: Protocol, quantity: Quantity) -> list[str]:
    from featbench.report.table import explain_deviation

    architectures = dict.fromkeys(row["architecture"] for row in rows if row["architecture"])
    tested = "the data set's own test images" if protocol.test == "fixed" else "images that were not trained on"
    drawn = (
        f"The {quantity.name} is {quantity.origin}, on {tested}. The smaller training sets of a draw are part of "
        f"its larger ones; {protocol.validation_fraction:.0%} of each are held out while something is chosen."
    )
    failed = [
        f"{row['samples']} images of each class, {row['learner']} {row['label']}: {row['message']}"
        for row in rows
        if row["message"] and row["status"] != "skipped"
    ]
    reasons = [*dict.fromkeys(_explain_missing(rows)), *dict.fromkeys(failed)]
    return [*(f"Architecture: {text}." for text in architectures), explain_deviation([quantity.unit]), drawn, *reasons]


def _explain_missing(rows: Sequence[Row]) -> list[str]:
    """Return the reasons why a learner or a regime that the settings name has no curve at all."""
    learned = [row for row in rows if row["status"] != "skipped" and not row["baseline"]]
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
    quantity: Quantity = ERROR,
) -> None:
    axis = figure.subplots()
    axis.set(xscale="log", yscale="log" if quantity.is_error else "linear")
    axis.set(xlabel="training images of each class", ylabel=f"test {quantity.heading}")
    several = _has_several_classifiers(curves)
    for curve, points in curves.items():
        found = [
            (positions[size], quantity.compute(row), read_number(row["std"]) or 0.0) for size, row in points.items()
        ]
        # An error of 0 does not exist on a logarithmic axis.
        shown = [point for point in found if (point[1] if quantity.is_error else point[1] is not None)]
        if curve[0] == "chance" or not shown:
            continue
        places, errors, deviations = zip(*shown, strict=True)
        style: dict[str, Any] = {"color": "grey", "linestyle": ":"} if curve[0] == "raw pixels" else {}
        label = " ".join(str(text) for text in _name_curve(curve, several).values() if text != "–")
        axis.errorbar(places, errors, yerr=deviations, marker="o", markersize=4, capsize=3, label=label, **style)
    for (theirs, values), marker in zip(published.items(), "sv^D*", strict=False):
        label = theirs + PRINTED
        axis.plot(list(values), list(values.values()), "--", color="0.6", marker=marker, markersize=4, label=label)
    axis.set_xticks(list(positions.values()), [str(size) for size in positions])
    axis.minorticks_off()
    if quantity.is_error:
        _set_plain_ticks(axis.yaxis)
    entries = sorted(zip(*axis.get_legend_handles_labels(), strict=True), key=lambda entry: entry[1].endswith(PRINTED))
    figure.legend(*zip(*entries, strict=True), loc="outside right upper")


def _set_plain_ticks(axis: Axis) -> None:
    """Label a logarithmic axis with plain numbers, several in a decade, in place of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


STUDY = Study("samples", SamplesSettings, run)
