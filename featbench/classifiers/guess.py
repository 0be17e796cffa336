"""A uniform guess, whose score is that of chance."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from featbench.classification.classifier import Classifier, Predictor
from featbench.hookspecs import hookimpl
from featbench.types import FloatArray, IntArray, State


class _GuessPredictor(Predictor):
    def __init__(self, classes: int, seed: int) -> None:
        self.classes, self.seed = classes, seed
        self.report = {}

    def predict(self, features: FloatArray) -> IntArray:
        return np.random.default_rng(self.seed).integers(self.classes, size=len(features))

    def scores(self, features: FloatArray) -> FloatArray:
        # The guess first, the others in random order: drawn from numbers of their own, which leave the guess as it is.
        scores = np.random.default_rng([self.seed, 1]).random((len(features), self.classes))
        scores[np.arange(len(features)), self.predict(features)] = 1.0  # random numbers lie below
        return scores

    def state(self) -> State:
        return {"classes": np.array(self.classes), "seed": np.array(self.seed, dtype=np.uint64)}


class Guess(Classifier):
    """A uniform guess among the classes, whatever the features: the row `chance` of a table."""

    name: ClassVar[str] = "guess"
    seed_bits: ClassVar[int] = 63  # numpy draws from all of them

    def fit(
        self, features: FloatArray, labels: IntArray, validation: NDArray[np.bool_], classes: int, seed: int
    ) -> Predictor:
        """Keep the number of classes and the seed; nothing is learned."""
        return _GuessPredictor(classes, seed)

    def restore(self, state: State) -> Predictor:
        """Rebuild a predictor from its state."""
        return _GuessPredictor(int(state["classes"]), int(state["seed"]))


@hookimpl
def featbench_classifiers() -> list[Classifier]:
    """Register the guess."""
    return [Guess()]
