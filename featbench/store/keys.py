"""Content hashes: what decides filters, networks, features and results, as canonical JSON."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import featbench
from featbench.data.dataset import reading
from featbench.data.image_files import folder_fingerprint
from featbench.data.maps import Preprocessing
from featbench.experiment.cell import Cell
from featbench.experiment.steps import Part
from featbench.experiment.unlabelled import joins_training, pool_name
from featbench.learning.learner import FeatureLearner
from featbench.parameters import Choice
from featbench.refinement.settings import Refinement
from featbench.registry import Registry
from featbench.system.hashing import code_hash, content_hash, file_hash
from featbench.system.source_files import class_source

Document = dict[str, Any]
"""What decides something, as plain JSON: its hash is the key in the store."""

PREPARING = tuple(f"data/{name}.py" for name in ("binary_files", "class_folders", "image_files", "prepare"))
"""The code that decides how images are made ready."""

NUMERICAL = (
    *("stages", "operations", "cuda", "devices", "sparse", "learning", "features"),
    *PREPARING,
    "data/maps.py",
    "evaluation/split.py",
    *(f"experiment/{name}.py" for name in ("run_cell", "steps", "unlabelled")),
    "parameters.py",
    *(f"system/{name}.py" for name in ("memory", "seeds", "threads")),
)
"""The code that decides numbers, as rooms and single files: editing it makes every result out of date."""

REFINING = ("refinement",)
"""The code that decides what refinement makes of a network: editing it leaves R and U as they are."""

CLASSIFYING = ("classification", "evaluation/scoring.py")
"""The code that decides what is made of features: editing it leaves the features themselves as they are."""


def code_files(parts: tuple[str, ...]) -> dict[str, Path]:
    """Return the Python files of these rooms and files, by their paths inside featbench."""
    folder = Path(featbench.__file__).parent
    paths = [
        path for part in parts for path in ([folder / part] if part.endswith(".py") else (folder / part).glob("*.py"))
    ]
    return {path.relative_to(folder).as_posix(): path for path in sorted(paths)}


@cache
def code_version(parts: tuple[str, ...] = NUMERICAL) -> str:
    """Return featbench's own version of the numerical code, or of a part of it."""
    return content_hash({name: code_hash(path.read_text("utf-8")) for name, path in code_files(parts).items()})


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
        wanted = {"size": preprocessing.size, "least": preprocessing.least, "channels": preprocessing.channels}
        return {"dataset": self.dataset(dataset), **wanted, "numerics": code_version(PREPARING)}

    def learned(self, cell: Cell) -> Document:
        """Return what decides a cell's network before the labels refine it."""
        learner = self._registry.learner(cell.learner.name).create(dict(cell.learner.parameters))
        return {
            "numerics": code_version(),
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
            "numerics": code_version(REFINING),
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
            "numerics": code_version(CLASSIFYING),
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


def module_source(thing: object) -> str:
    """Return the source text of the modules that define a learner, classifier or data set and what it inherits from.

    Raises `PluginError` where there is none (a class typed into a prompt): its results could not be told from those of
    another version.
    """
    cls = thing if isinstance(thing, type) else type(thing)
    bases = [base for base in cls.__mro__ if base.__module__ not in _CONTRACTS]
    return "\n".join(dict.fromkeys(class_source(base) for base in bases))


_CONTRACTS = (
    *("builtins", "abc", "typing"),
    *(
        "featbench.learning.learner",
        "featbench.classification.classifier",
        "featbench.data.dataset",
        "featbench.parameters",
    ),
)
"""Modules of base classes that belong to Python or to featbench's own numerical code."""
