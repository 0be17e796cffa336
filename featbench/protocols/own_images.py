"""Protocols for a folder of one's own images: photographs, and small images such as icons, digits and crops."""

from __future__ import annotations

from featbench.data.maps import Preprocessing
from featbench.evaluation.protocol import Protocol, Selection
from featbench.hookspecs import hookimpl

DRAWS = 10
"""More than other protocols have: filters and features serve all draws, and more of them tell rows apart."""

PHOTOS = Protocol(
    name="photos",
    summary="Your own photographs, one folder a class: 10 labels a class, tested on the half set apart, one stage",
    dataset="folder",
    architecture="64F9-Rabs-N-PA10/5",
    architectures={"two": "64F9-Rabs-N-PA10/5 > 256F9:16-Rabs-N-PA6/4"},
    preprocessing=Preprocessing(size=151, standardise=True, lcn=1.0, pad=True),
    train_per_class=10,
    validation_fraction=0.3,
    test="held-out",
    draws=DRAWS,
    features=("random", "gabor", "sift", "kmeans", "psd"),
    own_classifiers={"sift": ("pmk-svm",)},
    regimes=("R", "U", "fixed"),
    thorough=Selection(features=("sparse-coding", "ica"), regimes=("R+", "U+")),
    refinement="epochs=12,decay=0.1",
    source="featbench's own; images and stage as in Jarrett et al. 2009, section 4",
)

SMALL_SIFT = "sift(size=12,step=4)"
"""36 descriptors of an image of 32×32: enough for a codebook of 50 words, however few images train."""

SMALL_IMAGES = Protocol(
    name="small-images",
    summary="Your own small images, one folder a class: 10 labels a class, tested on the half set apart, one stage",
    dataset="folder",
    architecture="64F7-Rabs-N5-PA6/4",
    preprocessing=Preprocessing(size=32, pad=True),
    train_per_class=10,
    validation_fraction=0.3,
    test="held-out",
    draws=DRAWS,
    features=("random", "gabor", SMALL_SIFT, "kmeans", "psd"),
    own_classifiers={SMALL_SIFT: ("pmk-svm(codebook=50)",)},
    regimes=("R", "U", "fixed"),
    thorough=Selection(features=("sparse-coding", "ica"), regimes=("R+", "U+")),
    refinement="epochs=40,patience=12,rate=0.01,head_rate=0.03",
    source="featbench's own",
)


@hookimpl
def featbench_protocols() -> list[Protocol]:
    """Register the protocols."""
    return [PHOTOS, SMALL_IMAGES]
