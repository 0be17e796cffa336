"""Draws: which images train, which validate, which test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featbench.data.prepare import PreparedImages
from featbench.errors import SplitError
from featbench.evaluation.task import CLASSIFICATION, Task
from featbench.system.seeds import derive_seed
from featbench.types import Images, IntArray, Split, Test

LEFT_OVER: dict[Test, int] = {"rest": 1, "fixed": 0, "held-out": 2}
"""How many images of a class must be left when a draw has taken its training images.

One to test on, where they test; and where test images are set apart, one besides, as draws would be equal otherwise.
"""


@dataclass(frozen=True)
class Census:
    """How many images a data set has: of each class, and of those how many are its own test images."""

    classes: tuple[str, ...]
    images: tuple[int, ...]
    own_test: tuple[int, ...]
    has_test: bool

    @classmethod
    def of(cls, images: Images | PreparedImages) -> Census:
        """Count the images of a data set."""
        test = np.zeros(len(images.labels), dtype=bool) if images.test is None else images.test
        count = len(images.classes)
        everything = np.bincount(images.labels, minlength=count).tolist()
        return cls(
            images.classes,
            tuple(everything),
            tuple(np.bincount(images.labels[test], minlength=count).tolist()),
            bool(test.any()),
        )

    @classmethod
    def restore(cls, document: Mapping[str, Any]) -> Census:
        """Rebuild a census from JSON."""
        return cls(
            classes=tuple(document["classes"]),
            images=tuple(document["images"]),
            own_test=tuple(document["own_test"]),
            has_test=bool(document["has_test"]),
        )

    def require(self, train_per_class: int | None, test: Test) -> None:
        """Raise a `SplitError` if no draw is possible; it names the class with too few images, or what is missing."""
        if test == "fixed" and not self.has_test:
            raise SplitError("the protocol tests on the data set's own test images, but it has none")
        if train_per_class is not None and train_per_class < 2:
            raise SplitError(
                f"{train_per_class} training images per class are asked for: at least 2, one of them for validation"
            )
        if train_per_class is None and test != "fixed":
            raise SplitError(
                "training on all images leaves none to test on: this data set has no test split of its own"
            )
        for name, images, own_test in zip(self.classes, self.images, self.own_test, strict=True):
            available = images - own_test if test == "fixed" else images
            asked = 2 if train_per_class is None else train_per_class
            if available < asked + LEFT_OVER[test]:
                testing = f" and at least {LEFT_OVER[test]} for testing" if LEFT_OVER[test] else ""
                remedy = "ask for fewer with --train-per-class" if asked > 2 else "add images to it, or leave it out"
                raise SplitError(
                    f"class {name!r} has {available} images, but {asked} are asked for training{testing}: {remedy}"
                )


@dataclass(frozen=True)
class Survey:
    """What the store knows of a data set without reading its images: the sizes of its maps, and how many there are.

    least: channels, smallest height and smallest width. one_size: whether all maps have the same size.
    """

    least: tuple[int, int, int]
    one_size: bool
    census: Census


def draw_split(
    images: Images | PreparedImages,
    *,
    train_per_class: int | None,
    validation_fraction: float,
    test: Test,
    seed: int,
    draw: int,
    test_per_class: int | None = None,
    task: Task = CLASSIFICATION,
) -> Split:
    """Draw `train_per_class` images of each class (None: all), some of them for validation; the same for every learner.

    Test images are the data set's own ("fixed"), those that are set apart for all draws ("held-out"), or all that do
    not train ("rest"): all of them, or at most `test_per_class` of each class. Classes are the strata of the task.
    Raises `SplitError` naming the class that has too few images.
    """
    Census.of(images).require(train_per_class, test)
    strata = task.find_strata(images)
    reserved = _reserve(images, strata, test, train_per_class, seed)
    generator = np.random.default_rng(derive_seed(seed, "split", draw))
    train: list[IntArray] = []
    for stratum in range(strata.max() + 1):
        # All are shuffled, however few are taken: the images of a small training set are part of those of a larger one.
        pool = generator.permutation(np.flatnonzero((strata == stratum) & ~reserved))
        train.append(pool if train_per_class is None else pool[:train_per_class])
    # Sorted, as features lie on disk: they are read in the order of the images, whatever order they were drawn in.
    indices = np.sort(np.concatenate(train))
    tested = reserved.copy()
    if test == "rest":
        tested[:] = True
        tested[indices] = False
    # Each choice has a stream of random numbers of its own: a larger part for validation, or fewer test images, leave
    # the training images as they are.
    validation = hold_out(strata[indices], validation_fraction, derive_seed(seed, "validation", draw))
    if test_per_class is not None:
        tested = _keep_at_most(tested, strata, test_per_class, derive_seed(seed, "test", draw))
    # No image that is set apart trains in any draw: filters may be learned from all others, once for all draws.
    seen = np.flatnonzero(~reserved) if test == "held-out" else indices
    return Split(indices, validation, np.flatnonzero(tested), seen)


def _reserve(
    images: Images | PreparedImages, strata: IntArray, test: Test, train_per_class: int | None, seed: int
) -> NDArray[np.bool_]:
    """Mark the images that train in no draw."""
    reserved = np.zeros(len(images.labels), dtype=bool)
    if test == "fixed" and images.test is not None:
        return images.test
    if test == "held-out" and train_per_class is not None:
        generator = np.random.default_rng(derive_seed(seed, "held-out"))
        for stratum in range(strata.max() + 1):
            members = generator.permutation(np.flatnonzero(strata == stratum))
            # Half of a class, rounded down; fewer where training images are many, as draws must differ.
            left = max(-(-len(members) // 2), train_per_class + 1)
            reserved[members[left:]] = True
    return reserved


def _keep_at_most(marked: NDArray[np.bool_], labels: IntArray, count: int, seed: int) -> NDArray[np.bool_]:
    """Keep at most `count` of the marked images of each class, drawn at random."""
    generator = np.random.default_rng(seed)
    kept = np.zeros_like(marked)
    for label in np.unique(labels):
        kept[generator.permutation(np.flatnonzero(marked & (labels == label)))[:count]] = True
    return kept


def hold_out(labels: IntArray, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Mark about `fraction` of the images of each class for validation: at least one, and never all.

    Raises `SplitError` if a class has a single image.
    """
    generator = np.random.default_rng(seed)
    marked = np.zeros(len(labels), dtype=bool)
    # Class by class: of ten images of a class, a draw from all of them together may hold out none, or nearly all.
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        if len(members) < 2:
            raise SplitError(f"class {label} has a single training image: validation needs another")
        marked[members[: min(max(1, round(len(members) * fraction)), len(members) - 1)]] = True
    return marked
