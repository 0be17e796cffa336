"""Draws: which images train, which validate, which test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from featbench.data.prepare import PreparedImages
from featbench.errors import SplitError
from featbench.system.seeds import derive_seed
from featbench.types import Images, IntArray, Split


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

    def require(self, train_per_class: int | None, test: Literal["rest", "fixed"]) -> None:
        """Raise a `SplitError` that names the class with too few images for a draw, or says what else is missing."""
        if test == "fixed" and not self.has_test:
            raise SplitError("the protocol tests on the data set's own test images, but it has none")
        if train_per_class is not None and train_per_class < 2:
            raise SplitError(
                f"{train_per_class} training images per class are asked for: at least 2, one of them for validation"
            )
        if train_per_class is None and test == "rest":
            raise SplitError(
                "training on all images leaves none to test on: this data set has no test split of its own"
            )
        for name, images, own_test in zip(self.classes, self.images, self.own_test, strict=True):
            available = images - own_test if test == "fixed" else images
            asked = 2 if train_per_class is None else train_per_class
            testing = " and at least 1 for testing" if test == "rest" else ""
            if available < asked + bool(testing):
                raise SplitError(
                    f"class {name!r} has {available} images, but {asked} are asked for training{testing}: "
                    "ask for fewer with --train-per-class"
                )


@dataclass(frozen=True)
class Survey:
    """What is known of a data set before its images are read: the sizes of its maps, and how many images there are.

    least: maps, smallest height and smallest width. one_size: whether all images come out alike.
    """

    least: tuple[int, int, int]
    one_size: bool
    census: Census


def draw_split(
    images: Images | PreparedImages,
    *,
    train_per_class: int | None,
    validation_fraction: float,
    test: Literal["rest", "fixed"],
    seed: int,
    draw: int,
    test_per_class: int | None = None,
) -> Split:
    """Draw `train_per_class` images of each class (None: all), some of them for validation; the same for every learner.

    Test images are the data set's own ("fixed") or those that are left ("rest"): all of them, or at most
    `test_per_class` of each class. Raises `SplitError` naming the class that has too few images.
    """
    Census.of(images).require(train_per_class, test)
    own_test = images.test if test == "fixed" and images.test is not None else np.zeros(len(images.labels), dtype=bool)
    generator = np.random.default_rng(derive_seed(seed, "split", draw))
    train: list[IntArray] = []
    for label in range(len(images.classes)):
        pool = generator.permutation(np.flatnonzero((images.labels == label) & ~own_test))
        train.append(pool if train_per_class is None else pool[:train_per_class])
    indices = np.sort(np.concatenate(train))
    tested = own_test.copy()
    if test == "rest":
        tested[:] = True
        tested[indices] = False
    validation = hold_out(images.labels[indices], validation_fraction, derive_seed(seed, "validation", draw))
    if test_per_class is not None:
        tested = _at_most(tested, images.labels, test_per_class, derive_seed(seed, "test", draw))
    return Split(indices, validation, np.flatnonzero(tested))


def _at_most(marked: NDArray[np.bool_], labels: IntArray, count: int, seed: int) -> NDArray[np.bool_]:
    """Keep at most `count` of the marked images of each class, chosen at random."""
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
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        if len(members) < 2:
            raise SplitError(f"class {label} has a single training image: validation needs another")
        marked[members[: min(max(1, round(len(members) * fraction)), len(members) - 1)]] = True
    return marked
