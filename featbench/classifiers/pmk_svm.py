"""Spatial pyramids of words and an SVM: what the papers call PMK-SVM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from featbench.classification.classifier import MapClassifier, MapPredictor
from featbench.classification.intersection_kernel import intersection_gram
from featbench.classification.kernel_machine import (
    require_gram_memory,
    require_machine_parameters,
    require_two_classes,
    train,
)
from featbench.classification.machines import KernelMachine, restore_machine
from featbench.classification.parameter_checks import require_one_of
from featbench.classification.row_space import ROWS, multiply_rows
from featbench.features.coding import Codebook, Coding
from featbench.features.rows import LocalMaps, LocalVectors
from featbench.features.spatial_pyramid import SpatialPyramid, encode_block, encode_images, learn_codebook
from featbench.hookspecs import hookimpl
from featbench.system.seeds import derive_seed
from featbench.types import FloatArray, IntArray, State

KERNELS = ("intersection", "linear")

CPU = torch.device("cpu")


@dataclass(frozen=True)
class PmkSvm(MapClassifier):
    """Lazebnik's spatial pyramid of K-means words, histogram intersection, and a support vector machine.

    Local vectors of the last maps are coded over a codebook that is learned from the training images. The codes are
    pooled over 1, 4, 16 … cells, and the levels weighed ¼ ¼ ½ (for L = 2). `features.spatial_pyramid` and
    `features.coding` describe the parameters. kernel: intersection or linear. weighted: false gives all levels the
    same weight. C, multiclass: of the SVM.
    """

    name: ClassVar[str] = "pmk-svm"
    seed_bits: ClassVar[int] = 63  # numpy draws from all of them
    source: ClassVar[str] = "Lazebnik, Schmid, Ponce 2006; the SVM is libsvm's"

    codebook: int = 200
    levels: int = 2
    single: bool = False
    coding: str = "hard"
    pooling: str = "sum"
    normalise: str = "count"
    weighted: bool = True
    kernel: str = "intersection"
    multiclass: str = "ovr"
    C: float = 10.0
    macro: int = 1
    samples: int = 100_000
    lam: float = 0.15
    softness: float = 0.5
    neighbours: int = 5
    beta: float = 1e-4

    def __post_init__(self) -> None:
        self.make_pyramid()  # refuses wrong parameters of its own
        require_one_of("kernel", self.kernel, KERNELS)
        require_machine_parameters(self.C, self.multiclass)
        if self.kernel == "intersection" and self.coding == "llc":
            raise ValueError("codes of llc can be negative, and histograms that intersect cannot: take kernel=linear")

    def make_pyramid(self) -> SpatialPyramid:
        """Return the spatial pyramid that turns local vectors into a row."""
        return SpatialPyramid(
            words=self.codebook,
            levels=self.levels,
            single=self.single,
            coding=Coding(self.coding, self.lam, self.softness, self.neighbours, self.beta),
            pooling=self.pooling,
            normalise=self.normalise,
            macro=self.macro,
            samples=self.samples,
        )

    def fit(
        self, features: LocalMaps, labels: IntArray, validation: NDArray[np.bool_], classes: int, seed: int
    ) -> MapPredictor:
        """Learn the codebook, then train the machine, on all training images."""
        require_two_classes(labels)
        pyramid = self.make_pyramid()
        require_gram_memory(len(features), pyramid.length)
        codebook = learn_codebook(features, pyramid, derive_seed(seed, "codebook"), CPU)
        rows = encode_images(features, pyramid, codebook) * self._make_weights(pyramid)
        machine = train(self._compute_gram(rows, rows), labels, classes, C=self.C, multiclass=self.multiclass)
        return _PmkPredictor(self, codebook, rows, machine)

    def restore(self, state: State) -> MapPredictor:
        """Rebuild a predictor from its state."""
        words = torch.from_numpy(state["words"])
        codebook = Codebook(self.make_pyramid().coding, words, float(state["spread"]))
        return _PmkPredictor(self, codebook, state["rows"], restore_machine(state))

    def compute_kernel(self, block: LocalVectors, codebook: Codebook, rows: FloatArray) -> NDArray[np.float64]:
        """Return the kernel values [b, t] between new images and the weighted rows [t, length] of training images."""
        pyramid = self.make_pyramid()
        new = encode_block(block, pyramid, codebook) * self._make_weights(pyramid)
        if self.kernel == "linear":
            return multiply_rows(new, rows.T)
        # Always as many images at once, so that an image's digits do not depend on the others.
        parts = [_fill_up(new[start : start + ROWS]) for start in range(0, len(new), ROWS)]
        return np.vstack([np.zeros((0, len(rows))), *(self._compute_gram(part, rows) for part in parts)])[: len(new)]

    def _make_weights(self, pyramid: SpatialPyramid) -> FloatArray:
        """Return the factor of each value of a row, [length], that gives its level the right weight in the kernel."""
        # w min(a, b) = min(w a, w b), but w a b = (√w a) (√w b).
        weights = pyramid.make_weights() if self.weighted else np.ones(pyramid.length, dtype=np.float32)
        return weights if self.kernel == "intersection" else np.sqrt(weights)

    def _compute_gram(self, a: FloatArray, b: FloatArray) -> NDArray[np.float64]:
        if self.kernel == "intersection":
            return intersection_gram(a, b)
        gram: NDArray[np.float64] = (a @ b.T).astype(np.float64)
        return gram


class _PmkPredictor(MapPredictor):
    def __init__(self, svm: PmkSvm, codebook: Codebook, rows: FloatArray, machine: KernelMachine) -> None:
        self.svm, self.codebook, self.rows, self.machine = svm, codebook, rows, machine
        self.report = {**machine.report, "words": len(codebook.words), "bins": rows.shape[1]}

    def predict(self, features: LocalVectors) -> IntArray:
        return self.machine.predict(self.svm.compute_kernel(features, self.codebook, self.rows))

    def scores(self, features: LocalVectors) -> FloatArray:
        return self.machine.compute_scores(self.svm.compute_kernel(features, self.codebook, self.rows))

    def state(self) -> State:
        learned = {"words": self.codebook.words.numpy(), "spread": np.array(self.codebook.spread)}
        return {**learned, "rows": self.rows, **self.machine.state()}


def _fill_up(rows: FloatArray) -> FloatArray:
    """Return rows [m, d] with zeros below them, [ROWS, d]."""
    return np.vstack([rows, np.zeros((ROWS - len(rows), rows.shape[1]), dtype=rows.dtype)])


@hookimpl
def featbench_classifiers() -> list[MapClassifier]:
    """Register PMK-SVM."""
    return [PmkSvm()]
