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
    MULTICLASS,
    KernelMachine,
    require_gram_memory,
    require_two_classes,
    train,
)
from featbench.features.coding import Codebook, Coding
from featbench.features.rows import LocalMaps, LocalVectors
from featbench.features.spatial_pyramid import SpatialPyramid, encode_block, encode_images, learn_codebook
from featbench.hookspecs import hookimpl
from featbench.system.seeds import derive_seed
from featbench.types import FloatArray, IntArray

KERNELS = ("intersection", "linear")

CPU = torch.device("cpu")


@dataclass(frozen=True)
class PmkSvm(MapClassifier):
    """Lazebnik's spatial pyramid of K-means words, histogram intersection, and a support vector machine.

    Local vectors of the last maps are coded over a codebook learned from those of the training images, the codes pooled
    over 1, 4, 16 … cells, and the levels weighed ¼ ¼ ½ (for L = 2); `features.spatial_pyramid` and `features.coding`
    say what the parameters mean. kernel: intersection or linear. weighted: false gives all levels the same weight. C:
    of the SVM. multiclass: ovr or ovo.
    """

    name: ClassVar[str] = "pmk-svm"
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
        self.pyramid()
        if self.kernel not in KERNELS:
            raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, not {self.kernel!r}")
        if self.multiclass not in MULTICLASS:
            raise ValueError(f"multiclass must be one of {', '.join(MULTICLASS)}, not {self.multiclass!r}")
        if not self.C > 0:
            raise ValueError(f"C must be positive, not {self.C}")
        if self.kernel == "intersection" and self.coding == "llc":
            raise ValueError("codes of llc can be negative, and histograms that intersect cannot: take kernel=linear")

    def pyramid(self) -> SpatialPyramid:
        """Return how a row is made of local vectors."""
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
        """Learn the codebook, then the machine, from all training images."""
        require_two_classes(labels)
        pyramid = self.pyramid()
        require_gram_memory(len(features), pyramid.length)
        codebook = learn_codebook(features, pyramid, derive_seed(seed, "codebook"), CPU)
        rows = encode_images(features, pyramid, codebook) * self._weights(pyramid)
        machine = train(self._gram(rows, rows), labels, classes, C=self.C, multiclass=self.multiclass)
        return _Trained(self, codebook, rows, machine)

    def kernel_values(self, block: LocalVectors, codebook: Codebook, rows: FloatArray) -> NDArray[np.float64]:
        """Return the kernel between new images and the weighted rows [t, length] of those of training, [b, t]."""
        pyramid = self.pyramid()
        return self._gram(encode_block(block, pyramid, codebook) * self._weights(pyramid), rows)

    def _weights(self, pyramid: SpatialPyramid) -> FloatArray:
        # min(wa, wb) = w min(a, b), and the linear kernel multiplies two of them.
        weights = pyramid.weights() if self.weighted else np.ones(pyramid.length, dtype=np.float32)
        return weights if self.kernel == "intersection" else np.sqrt(weights)

    def _gram(self, a: FloatArray, b: FloatArray) -> NDArray[np.float64]:
        if self.kernel == "intersection":
            return intersection_gram(a, b)
        gram: NDArray[np.float64] = (a @ b.T).astype(np.float64)
        return gram


class _Trained(MapPredictor):
    def __init__(self, svm: PmkSvm, codebook: Codebook, rows: FloatArray, machine: KernelMachine) -> None:
        self.svm, self.codebook, self.rows, self.machine = svm, codebook, rows, machine
        self.report = {**machine.report, "words": len(codebook.words), "bins": rows.shape[1]}

    def predict(self, features: LocalVectors) -> IntArray:
        return self.machine.predict(self.svm.kernel_values(features, self.codebook, self.rows))


@hookimpl
def featbench_classifiers() -> list[MapClassifier]:
    """Register PMK-SVM."""
    return [PmkSvm()]
