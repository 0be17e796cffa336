"""Content hashes: what decides filters, networks, features and results, as canonical JSON."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import featbench
from featbench.cell import Cell
from featbench.dataset import reading
from featbench.experiment import Part, joins_training, pool_name
from featbench.hashing import code_hash, content_hash, file_hash
from featbench.images import folder_fingerprint
from featbench.learner import FeatureLearner
from featbench.parameters import Choice
from featbench.preprocess import Preprocessing
from featbench.registry import Registry, module_source
from featbench.settings import Refinement

NUMERICAL_MODULES = (
    "ahead",
    "architecture",
    "binary",
    "class_folders",
    "coding",
    "connections",
    "cuda.bank_kernels",
    "cuda.batches",
    "cuda.descriptor_kernels",
    "cuda.failures",
    "cuda.fusion",
    "cuda.graphs",
    "cuda.grey",
    "cuda.host",
    "cuda.image_kernels",
    "cuda.kernel",
    "cuda.normalization_kernels",
    "cuda.pooling_kernels",
    "cuda.reference",
    "cuda.selection",
    "cuda.sparse_kernels",
    "cuda.streams",
    "cuda.triton_operations",
    "encoders",
    "experiment",
    "extraction",
    "filters",
    "images",
    "learner",
    "lloyd",
    "network",
    "normalization",
    "oriented",
    "parameters",
    "patch_matrix",
    "patches",
    "pooling",
    "predictive",
    "prepare",
    "preprocess",
    "pyramid",
    "seeds",
    "sift",
    "sparse.active_descent",
    "sparse.active_set",
    "sparse.coordinate_descent",
    "sparse.descent",
    "sparse.dictionary",
    "sparse.feature_sign",
    "sparse.fista",
    "sparse.inputs",
    "sparse.ista",
    "sparse.memory",
    "sparse.problem",
    "sparse.solution",
    "sparse.steps",
    "split",
    "stages",
    "unrolled",
)
"""Modules whose code decides numbers: editing one makes every result out of date."""

REFINING_MODULES = (
    "augmentation",
    "cuda.host_passes",
    "cuda.host_statistics",
    "cuda.host_training",
    "cuda.trained",
    "descent",
    "gradients",
    "head",
    "noise",
    "refine",
    "settings",
)
"""Modules that decide what refinement makes of a network: editing one leaves R and U as they are."""

Document = dict[str, Any]


PREPARING_MODULES = ("binary", "class_folders", "images", "prepare")
"""Those of them that decide how images are made ready."""


CLASSIFYING_MODULES = (
    "classifier",
    "feature_rows",
    "intersection",
    "kernel_machine",
    "pyramid_match",
    "row_space",
    "scoring",
    "softmax_lasso",
    "softmax_regression",
    "training",
)
"""Modules that decide what is made of features: editing one leaves the features themselves as they are."""


@cache
def modules_hash(modules: tuple[str, ...] = NUMERICAL_MODULES) -> str:
    """Return featbench's own version of the numerical code, or of a part of it."""
    folder = Path(featbench.__file__).parent
    paths = {name: folder / f"{name.replace('.', '/')}.py" for name in modules}
    return content_hash({name: code_hash(path.read_text("utf-8")) for name, path in paths.items()})


class Keys:
    """Computes the hashes of a cell; what it reads to do so (data files, plugin sources) is read once."""

    def __init__(self, registry: Registry, data_dir: Path | None) -> None:
        self._registry, self._data_dir = registry, data_dir
        self._fingerprints: dict[str, str] = {}
        self._sources: dict[tuple[str, str], str] = {}

    def dataset(self, name: str) -> str:
        """Return the fingerprint of a data set, with the code of its loader."""
        if name not in self._fingerprints:
            dataset = self._registry.dataset(name)
            code = code_hash(module_source(dataset))
            with reading(name):
                self._fingerprints[name] = content_hash([dataset.name, code, dataset.fingerprint(self._data_dir)])
        return self._fingerprints[name]

    def prepared(self, dataset: str, preprocessing: Preprocessing) -> Document:
        """Return what decides the images of a data set as they are made ready."""
        wanted = {"size": preprocessing.size, "least": preprocessing.least}
        return {"dataset": self.dataset(dataset), **wanted, "numerics": modules_hash(PREPARING_MODULES)}

    def learned(self, cell: Cell) -> Document:
        """Return what decides a cell's network before the labels refine it."""
        learner = self._registry.learner(cell.learner.name).create(dict(cell.learner.parameters))
        return {
            "numerics": modules_hash(),
            "dataset": self.dataset(cell.dataset),
            "preprocessing": asdict(cell.preprocessing),
            "architecture": cell.architecture,
            "learner": cell.learner.name,
            "parameters": learner.parameters(),
            "source": self._source("learner", cell.learner.name),
            **self._files(learner),
            "start": cell.regime.name.rstrip("+"),
            "seen": self._seen(cell),
            "seed": cell.seed,
            "device": cell.device,
            "dtype": "float32",
        }

    def network(self, cell: Cell) -> Document:
        """Return what decides a cell's network as features are extracted with it."""
        if not cell.regime.refined:
            return self.learned(cell)
        return {
            "learned": self.learned(cell),
            "split": _training(cell),
            "refinement": asdict(cell.refinement or Refinement()),
            "numerics": modules_hash(REFINING_MODULES),
            "precision": cell.precision if cell.device == "cuda" else "float32",
        }

    def features(self, cell: Cell, part: Part) -> Document:
        """Return what decides the features of one part of a draw; those of all or of test images serve every draw."""
        drawn = part == "train" or (part == "test" and cell.test_per_class is not None)
        split = _split(cell) if drawn else None
        return {"network": self.network(cell), "part": part, "split": split, "precision": cell.precision}

    def result(self, cell: Cell) -> Document:
        """Return what decides a cell's result."""
        networks = [self.network(replace(cell, learner=learner)) for learner in cell.learner.alternatives()]
        return {
            "network": networks[0] if len(networks) == 1 else networks,
            "split": _split(cell),
            "precision": cell.precision,
            "classifier": cell.classifier,
            "source": self._source("classifier", Choice.read(cell.classifier).name),
            "numerics": modules_hash(CLASSIFYING_MODULES),
            "metric": cell.metric,
        }

    def _seen(self, cell: Cell) -> Document | None:
        """Return which images a learner looked at, if any."""
        if not self._registry.learner(cell.learner.name).looks():
            return None
        if cell.unlabelled is None:
            return _training(cell)
        pool = {"unlabelled": self._unlabelled(pool_name(cell.unlabelled))}
        return {**pool, "training": _training(cell)} if joins_training(cell.unlabelled) else pool

    def _unlabelled(self, name: str) -> str:
        if name in self._registry.names("datasets"):
            return self.dataset(name)
        if name not in self._fingerprints:
            self._fingerprints[name] = folder_fingerprint(Path(name))
        return self._fingerprints[name]

    def _files(self, learner: FeatureLearner) -> Document:
        """Return the hashes of the files that a learner is made from, if any."""
        hashes = [file_hash(path) for path in learner.files()]
        return {"files": hashes} if hashes else {}

    def _source(self, kind: str, name: str) -> str:
        if (kind, name) not in self._sources:
            thing: object = self._registry.learner(name) if kind == "learner" else self._registry.classifier(name)
            self._sources[kind, name] = code_hash(module_source(thing))
        return self._sources[kind, name]


def _split(cell: Cell) -> Document:
    return {**_training(cell), "test_per_class": cell.test_per_class}


def _training(cell: Cell) -> Document:
    return {
        "train_per_class": cell.train_per_class,
        "validation_fraction": cell.validation_fraction,
        "test": cell.test,
        "seed": cell.seed,
        "draw": cell.draw,
    }
