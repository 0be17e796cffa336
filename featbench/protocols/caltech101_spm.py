"""Caltech-101 as in Lazebnik, Schmid, Ponce 2006: photographs as they are, 30 training images per class."""

from __future__ import annotations

from featbench.data.maps import Preprocessing
from featbench.evaluation.protocol import Protocol
from featbench.hookspecs import hookimpl

CALTECH101_SPM = Protocol(
    name="caltech101-spm",
    summary="Caltech-101 without its background, photographs as they are, 30 labels, at most 50 tested per class",
    dataset="caltech101-objects",
    architecture="64F9-Rabs-N-PA10/5",
    preprocessing=Preprocessing(size=None, standardise=True),
    train_per_class=30,
    test_per_class=50,
    validation_fraction=5 / 30,
    test="rest",
    metric="mean-per-class-accuracy",
    features=("sift",),
    regimes=("fixed",),
    classifiers=("pmk-svm",),
    source="Lazebnik, Schmid, Ponce 2006, section 5.2",
)


@hookimpl
def featbench_protocols() -> list[Protocol]:
    """Register the protocol."""
    return [CALTECH101_SPM]
