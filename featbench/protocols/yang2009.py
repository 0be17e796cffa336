"""Caltech-101 in Yang, Yu, Gong, Huang 2009 (ScSPM) and Wang et al. 2010 (LLC): codes of SIFT in spatial pyramids."""

from __future__ import annotations

from featbench.evaluation.published import Claim, Contrast, PublishedRow, PublishedTable
from featbench.hookspecs import hookimpl

COLUMN = "30 per class"

LINEAR = "linear-svm(C=10.0,standardise=false)"


def _row(
    name: str, learner: str, regime: str, classifier: str, value: float, deviation: float | None = None
) -> PublishedRow:
    deviations = {} if deviation is None else {COLUMN: deviation}
    return PublishedRow(name, learner, regime, "", {COLUMN: value}, deviations, classifier)


YANG2009 = PublishedTable(
    name="yang2009",
    summary="Caltech-101, 30 per class: words, sparse codes and LLC of SIFT in spatial pyramids",
    protocol="caltech101-spm",
    columns=(COLUMN,),
    rows=(
        _row("KSPM", "sift", "fixed", "pmk-svm", 63.99, 0.88),
        _row("ScSPM", "scspm", "U", LINEAR, 73.2, 0.54),
        _row("LLC", "llc", "U", LINEAR, 73.44),
    ),
    tolerance={COLUMN: 2.2},
    claims=(
        Claim(
            "Sparse codes with a linear SVM beat words with an intersection kernel.",
            (Contrast.between("ScSPM", "KSPM", COLUMN),),
        ),
    ),
    notes=(
        "LLC is of Wang et al. 2010, which has codes of HOG of three sizes; here it is coded SIFT of one size.",
        "The papers do not say whether the background counts as a class; here it does not, and at most 50 images of a "
        "class are tested.",
    ),
    source="Yang, Yu, Gong, Huang 2009, Linear spatial pyramid matching using sparse coding for image classification, "
    "table 1; Wang, Yang, Yu, Lv, Huang, Gong 2010, Locality-constrained linear coding for image classification, "
    "table 1",
)


@hookimpl
def featbench_tables() -> list[PublishedTable]:
    """Register the table."""
    return [YANG2009]
