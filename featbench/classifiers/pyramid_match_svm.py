"""The pyramid match in feature space and an SVM: Grauman and Darrell's kernel, which ignores positions in the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from featbench.classification.classifier import MapClassifier, MapPredictor
from featbench.classification.kernel_machine import (
    require_gram_memory,
    require_machine_parameters,
    train,
)
from featbench.classification.machines import KernelMachine, restore_machine
from featbench.classification.pyramid_match import FeatureSpace, Histogram, TrainingBins, sample_vectors, split_images
from featbench.features.rows import LocalMaps, LocalVectors
from featbench.hookspecs import hookimpl
from featbench.system.seeds import derive_seed
from featbench.types import FloatArray, IntArray, State


@dataclass(frozen=True)
class PyramidMatchSvm(MapClassifier):
    """The pyramid match kernel on local vectors, wherever in the image they lie, and a support vector machine.

    components: principal components that vectors are reduced to. levels: bins have sides from 1 to 2^(levels + 1); the
    last bin holds all vectors. samples: local vectors that the components are computed from. C, multiclass: of the
    SVM.
    """

    name: ClassVar[str] = "pyramid-match-svm"
    seed_bits: ClassVar[int] = 63  # numpy draws from all of them
    source: ClassVar[str] = "Grauman, Darrell 2005; the SVM is libsvm's"

    components: int = 10
    levels: int = 5
    C: float = 10.0
    multiclass: str = "ovr"
    samples: int = 100_000

    def __post_init__(self) -> None:
        if min(self.components, self.samples) < 1:
            raise ValueError("components and samples must be at least 1")
        if not 0 <= self.levels <= 12:
            raise ValueError(f"levels must be between 0 and 12, not {self.levels}")
        require_machine_parameters(self.C, self.multiclass)

    def fit(
        self, features: LocalMaps, labels: IntArray, validation: NDArray[np.bool_], classes: int, seed: int
    ) -> MapPredictor:
        """Fit the space of the local vectors, then train the machine, on all training images."""
        require_gram_memory(len(features))
        sample = sample_vectors(features, self.samples, derive_seed(seed, "sample"))
        space = FeatureSpace.fit(sample, self.components, self.levels, derive_seed(seed, "space"))
        histograms = [one for block in features.blocks() for one in _make_histograms(space, block)]
        bins = TrainingBins(histograms)
        machine = train(bins.match(histograms), labels, classes, C=self.C, multiclass=self.multiclass)
        return _PyramidMatchPredictor(space, bins, machine)

    def restore(self, state: State) -> MapPredictor:
        """Rebuild a predictor from its state."""
        return _PyramidMatchPredictor(FeatureSpace.restore(state), TrainingBins.restore(state), restore_machine(state))


class _PyramidMatchPredictor(MapPredictor):
    def __init__(self, space: FeatureSpace, bins: TrainingBins, machine: KernelMachine) -> None:
        self.space, self.bins, self.machine = space, bins, machine
        self.report = {**machine.report, "components": len(space.axes), "bins": len(bins.bins)}

    def predict(self, features: LocalVectors) -> IntArray:
        return self.machine.predict(self.bins.match(_make_histograms(self.space, features)))

    def scores(self, features: LocalVectors) -> FloatArray:
        return self.machine.compute_scores(self.bins.match(_make_histograms(self.space, features)))

    def state(self) -> State:
        return {**self.space.state(), **self.bins.state(), **self.machine.state()}


def _make_histograms(space: FeatureSpace, block: LocalVectors) -> list[Histogram]:
    return [space.make_histogram(vectors) for vectors in split_images(block)]


@hookimpl
def featbench_classifiers() -> list[MapClassifier]:
    """Register the pyramid match."""
    return [PyramidMatchSvm()]
