"""Caltech-101 as in Jarrett et al. 2009: 30 training images per class, the ten architectures of their table 1."""

from __future__ import annotations

from featbench.data.maps import Preprocessing
from featbench.evaluation.protocol import Protocol
from featbench.hookspecs import hookimpl

ARCHITECTURES = {
    "one:Rabs-N-PA": "64F9-Rabs-N-PA10/5",
    "one:Rabs-PA": "64F9-Rabs-PA10/5",
    "one:N-PM": "64F9-N-PM5",
    "one:N-PA": "64F9-N-PA10/5",
    "one:PA": "64F9-PA10/5",
    "two:Rabs-N-PA": "64F9-Rabs-N-PA10/5 > 256F9:16-Rabs-N-PA6/4",
    "two:Rabs-PA": "64F9-Rabs-PA10/5 > 256F9:16-Rabs-PA6/4",
    "two:N-PM": "64F9-N-PM5 > 256F9:16-N-PM4",
    "two:N-PA": "64F9-N-PA10/5 > 256F9:16-N-PA6/4",
    "two:PA": "64F9-PA10/5 > 256F9:16-PA6/4",
    "one:PMK": "64F9-Rabs-N-PA10/5",
    "two:PMK": "64F9-Rabs-N-PA10/5 > 256F9:16-Rabs-N",
}
"""One stage and two, in the columns of the table, and what a PMK-SVM is given; maximum pooling is over windows that do
not overlap."""

CALTECH101_30 = Protocol(
    name="caltech101-30",
    summary="Caltech-101, 102 classes, 30 labels per class, tested on all the rest, mean of the classes' accuracies",
    dataset="caltech101",
    architecture=ARCHITECTURES["one:Rabs-N-PA"],
    architectures=ARCHITECTURES,
    preprocessing=Preprocessing(size=151, standardise=True, lcn=1.0, pad=True),
    train_per_class=30,
    validation_fraction=5 / 30,
    test="rest",
    metric="mean-per-class-accuracy",
    features=("random", "gabor"),
    regimes=("R", "fixed"),
    refinement="epochs=12,decay=0.1",
    refinements={"quick": "epochs=4"},
    source="Jarrett et al. 2009, section 4",
)


@hookimpl
def featbench_protocols() -> list[Protocol]:
    """Register the protocol."""
    return [CALTECH101_30]
