"""Study of size: accuracy against the number of filters of the first stage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from featbench.studies.series import Row, compare_each, read_fingerprints, read_number
from featbench.studies.study import Findings, Study, StudySettings, Table, Value, option

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from featbench.comparison import Workbench
    from featbench.registry import Registry

SOURCE = (
    "Kavukcuoglu, Ranzato, LeCun 2008, section 3.2, as drawn in Kavukcuoglu's thesis (2011), figure 2.5c: Caltech-101, "
    "30 training images per class, PSD, read off the figure."
)

PUBLISHED = {"caltech101-30": {4: 32.0, 8: 46.0, 16: 50.0, 32: 52.0, 64: 54.0}}
"""Published accuracy in percent by the number of filters, by protocol."""


@dataclass(frozen=True)
class SizeSettings(StudySettings):
    """Settings of the study of the number of filters."""

    protocol: str = option("digits", "protocol, which gives data, preprocessing, splits and classifier")
    features: str = option("psd,random", "learners, as in random,psd(lam=0.5)")
    regimes: str = option("U,R,fixed", "among R,U,R+,U+,fixed,fixed+")
    filters: tuple[int, ...] = option((4, 8, 16, 32, 64, 128, 256, 512), "numbers of filters", least=1)
    stages: str = option("", "architecture in which the filters of the first stage vary; by default the protocol's own")
    draws: int = option(5, "draws of training images", least=1)
    device: str = option("auto", "where to compute: auto, cpu or cuda")
    unlabelled: str = option("", "folder of images, or data set, to learn filters from; by default the training images")


def run(settings: SizeSettings, workbench: Workbench) -> Findings:
    """Run a comparison for each number of filters. Cells that are in the store are not computed again."""
    from featbench.experiment.request import Request, split_list

    request = Request(
        protocol=settings.protocol,
        features=split_list(settings.features),
        regimes=split_list(settings.regimes),
        draws=settings.draws,
        seed=settings.seed,
        device=settings.device,
        unlabelled=settings.unlabelled or None,
    )
    architectures = {
        count: change_filters(settings.stages, settings.protocol, count, workbench.registry)
        for count in sorted(set(settings.filters))
    }
    requests = {count: replace(request, stages=text) for count, text in architectures.items()}
    rows = [row for row in compare_each(workbench, requests, "filters", "filters") if row["status"] != "skipped"]
    learned = [row for row in rows if not row["baseline"]]
    baselines = {str(row["learner"]): row for row in rows if row["baseline"]}
    published = PUBLISHED.get(settings.protocol, {})
    metric = workbench.registry.metric(workbench.registry.protocol(settings.protocol).metric)
    quantity = "Accuracy" if metric.name.endswith("accuracy") else metric.name
    return Findings(
        title=f"{quantity} against the number of filters: {settings.protocol}",
        source=SOURCE if published else "",
        tables=[_make_table(learned, list(baselines.values()), published)],
        notes=_write_notes(rows, list(architectures.values()), published),
        draw=lambda figure: _draw(figure, learned, baselines, published),
        size=(7.0, 4.5),
        data=read_fingerprints(workbench, learned),
        failed=any(row["status"] == "failed" for row in rows),
    )


def change_filters(stages: str, protocol: str, count: int, registry: Registry) -> str:
    """Return an architecture with `count` filters in its first stage.

    `stages` is an architecture, the protocol's name for one, or "" for the protocol's own.
    """
    from featbench.stages.architecture import Architecture

    declared = registry.protocol(protocol)
    text = declared.architectures.get(stages, stages) if stages else declared.architecture
    architecture = Architecture.parse(text)
    first, *others = architecture.stages
    # A stage has exactly one filter bank: equality finds it among its operations.
    operations = tuple(
        replace(operation, filters=count) if operation == first.bank else operation for operation in first.operations
    )
    return str(replace(architecture, stages=(replace(first, operations=operations), *others)))


def _name_curve(row: Row) -> str:
    return f"{row['learner']} {row['label']}"


def _make_table(learned: list[Row], baselines: list[Row], published: dict[int, float]) -> Table:
    rows: list[dict[str, Value]] = []
    seen: set[str] = set()
    for row in [*learned, *baselines]:
        baseline = row["baseline"]
        if baseline and row["learner"] in seen:
            continue
        seen.add(row["learner"])
        line: dict[str, Value] = {
            "features": str(row["learner"]).replace("raw-pixels", "raw pixels"),
            "regime": row["label"],
            "filters": None if baseline else row["filters"],
            _heading(row): read_number(row["mean"]),
            "±": read_number(row["std"]),
            "n": int(row["n"]),
            "status": row["status"],
        }
        if published:
            is_theirs = row["learner"].startswith("psd") and row["regime"] == "U"
            line["published %"] = published.get(row["filters"]) if is_theirs else None
        rows.append(line)
    percent = all(row["unit"] == "%" for row in learned)
    form = ".1f" if percent else ".4g"
    return Table("", rows, {"±": form, "published %": ".0f", **{_heading(row): form for row in learned}})


def _heading(row: Row) -> str:
    """Return the name of a row's metric with its unit."""
    return f"{row['metric']} {row['unit']}".rstrip()


def _write_notes(rows: list[Row], architectures: list[str], published: dict[int, float]) -> list[str]:
    from featbench.report.table import explain_deviation

    shown = architectures if len(architectures) == 1 else [architectures[0], architectures[-1]]
    failed = dict.fromkeys(
        f"{row['filters']} filters, {_name_curve(row)}: {row['message']}" for row in rows if row["message"]
    )
    theirs = (
        ["The published curve is of a linear SVM on features averaged down to 30×30 in each of the maps."]
        if published
        else []
    )
    return [f"Architecture: {' … '.join(shown)}.", explain_deviation(row["unit"] for row in rows), *theirs, *failed]


def _draw(figure: Figure, learned: list[Row], baselines: dict[str, Row], published: dict[int, float]) -> None:
    axis = figure.subplots()
    for label in dict.fromkeys(_name_curve(row) for row in learned):
        points = [row for row in learned if _name_curve(row) == label and read_number(row["mean"]) is not None]
        deviations = [read_number(row["std"]) or 0.0 for row in points]
        counts, means = [row["filters"] for row in points], [row["mean"] for row in points]
        axis.errorbar(counts, means, yerr=deviations, marker="o", markersize=4, capsize=3, label=label)
    if published:
        axis.plot(list(published), list(published.values()), "k--", marker="s", markersize=4, label="psd, published")
    pixels = baselines.get("raw-pixels")
    if pixels is not None and read_number(pixels["mean"]) is not None:
        axis.axhline(pixels["mean"], color="grey", linestyle=":", label="raw pixels")
    ticks = sorted({row["filters"] for row in learned})
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.set(xlabel="filters", ylabel=_heading(learned[0]) if learned else "")
    axis.legend(loc="best")


STUDY = Study("size", SizeSettings, run)
