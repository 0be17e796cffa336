"""Keys: what decides filters, networks, features and results, as canonical JSON, and its hash.

A key holds everything that may change what it names, the code included, and nothing else. So a change of the code, of
a plugin or of the data never finds what was computed before it, and what a cell shares with another is found by both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, get_args

from featbench.data.dataset import wrap_errors
from featbench.data.image_files import hash_image_folder
from featbench.data.maps import Preprocessing
from featbench.evaluation.metrics import Metric
from featbench.experiment.artifacts import Part
from featbench.experiment.cell import Cell
from featbench.experiment.unlabelled import get_pool_name, joins_training
from featbench.learning.learner import FeatureLearner
from featbench.parameters import Choice
from featbench.refinement.settings import Refinement
from featbench.registry import Registry
from featbench.system.hashing import code_hash, content_hash, file_hash
from featbench.system.source_files import read_source
from featbench.system.user_files import expand_user

Document = dict[str, Any]
"""What decides something, as plain JSON."""

PACKAGE = Path(__file__).parents[1]
"""The folder of featbench's own code; tests put a copy in its place."""

PREPARING = tuple(
    f"data/{name}.py"
    for name in (
        *("binary_files", "class_folders", "folder_listing", "image_files", "image_formats", "image_opening"),
        *("image_reader", "image_samples", "numbers", "orientation", "parallel", "prepare"),
    )
)
"""The code that decides how images are prepared: apart, since it serves every protocol that asks for the same size."""

NUMERICAL = (
    *("stages", "operations", "cuda", "devices", "sparse", "learning", "features"),
    *PREPARING,
    "data/maps.py",
    *(f"evaluation/{name}.py" for name in ("split", "task")),
    *(f"experiment/{name}.py" for name in ("artifacts", "run_cell", "steps", "unlabelled")),
    *("arguments.py", "parameters.py"),
    *(f"system/{name}.py" for name in ("memory", "seeds", "threads")),
)
"""The code that decides numbers, as rooms and single files: editing it makes every result out of date."""

REFINING = ("refinement",)
"""The code that decides what refinement makes of a network: editing it leaves R and U as they are."""

CLASSIFYING = ("classification", "evaluation/scoring.py")
"""The code that decides what is made of features: editing it leaves the features themselves as they are."""


def find_code_files(parts: tuple[str, ...]) -> dict[str, Path]:
    """Return the Python files of these rooms and files, by their paths inside featbench."""
    paths = [
        path for part in parts for path in ([PACKAGE / part] if part.endswith(".py") else (PACKAGE / part).glob("*.py"))
    ]
    return {path.relative_to(PACKAGE).as_posix(): path for path in sorted(paths)}


@cache
def compute_code_version(parts: tuple[str, ...] = NUMERICAL) -> str:
    """Return featbench's own version of the numerical code, or of a part of it."""
    # Hashes of the code, not a version number: nobody has to remember to raise it.
    return content_hash({name: code_hash(path.read_text("utf-8")) for name, path in find_code_files(parts).items()})


@dataclass(frozen=True)
class Key:
    """A document that decides something, and its hash: the name under which the store keeps that thing."""

    document: Document
    hash: str

    @classmethod
    def from_document(cls, document: Document) -> Key:
        """Return the key of a document."""
        return cls(document, content_hash(document))


class Keys:
    """Makes the keys of data sets and cells, each once.

    What it reads to do so, data files and the sources of plugins, is read once too: a file that changes while cells
    run does not give two of them different keys.
    """

    def __init__(self, registry: Registry, data_dir: Path | None) -> None:
        self.registry, self._data_dir = registry, data_dir
        self._fingerprints: dict[str, str] = {}
        self._sources: dict[tuple[str, str], str] = {}
        self._cells: dict[Cell, CellKeys] = {}

    def for_cell(self, cell: Cell) -> CellKeys:
        """Return the keys of all that a cell gives."""
        # Cells that are equal have equal keys: `skip`, by which they are not compared, is in none.
        if cell not in self._cells:
            self._cells[cell] = CellKeys(cell, self)
        return self._cells[cell]

    def prepared(self, dataset: str, preprocessing: Preprocessing) -> Key:
        """Return the key of the images of a data set as they are prepared."""
        wanted = {"size": preprocessing.size, "least": preprocessing.least, "channels": preprocessing.channels}
        return Key.from_document(
            {"dataset": self.dataset(dataset), **wanted, "numerics": compute_code_version(PREPARING)},
        )

    def survey_hash(self, dataset: str, preprocessing: Preprocessing) -> str:
        """Return the hash of what decides the sizes and the number of a data set's maps."""
        prepared = self.prepared(dataset, preprocessing).document
        return content_hash([prepared, asdict(preprocessing), compute_code_version()])

    def dataset(self, name: str) -> str:
        """Return the fingerprint of a data set, with the code of its loader."""
        if name not in self._fingerprints:
            dataset = self.registry.dataset(name)
            code = self._hash_code("datasets", name.partition(":")[0], dataset)
            with wrap_errors(name):
                self._fingerprints[name] = content_hash([dataset.name, code, dataset.fingerprint(self._data_dir)])
        return self._fingerprints[name]

    def unlabelled(self, name: str) -> str:
        """Return the fingerprint of unlabelled images: those of a data set, or of a folder."""
        if name in self.registry.names("datasets"):
            return self.dataset(name)
        if name not in self._fingerprints:
            self._fingerprints[name] = hash_image_folder(expand_user(name))
        return self._fingerprints[name]

    def source(self, kind: str, name: str) -> str:
        """Return the hash of the code of a learner, a classifier or a metric."""
        if (kind, name) not in self._sources:
            registry = self.registry
            find = {"learner": registry.learner, "classifier": registry.classifier, "metric": registry.metric}
            self._sources[kind, name] = self._hash_code(f"{kind}s", name, find[kind](name))
        return self._sources[kind, name]

    def _hash_code(self, kind: str, name: str, thing: object) -> str:
        """Return the hash of the code of what is known by a name: of all of a plugin's, or of a built-in file."""
        own = read_module_source(thing)  # raises where there is none
        return self.registry.code(kind, name) or code_hash(own)


@dataclass(frozen=True)
class CellKeys:
    """The keys of what a cell gives, each made when it is first asked for.

    A cell whose learner leaves parameters open has a `result` alone: each of the learner's alternatives is a cell of
    its own, which has filters, a network and features.
    """

    cell: Cell
    keys: Keys

    @cached_property
    def learned(self) -> Key:
        """The key of the network before the labels refine it: R and R+ share it, as U and U+ do."""
        cell = self.cell
        learner = self.keys.registry.learner(cell.learner.name).create(dict(cell.learner.parameters))
        return Key.from_document(
            {
                "numerics": compute_code_version(),
                "dataset": self.keys.dataset(cell.dataset),
                "preprocessing": asdict(cell.preprocessing),
                "architecture": cell.architecture,
                "learner": cell.learner.name,
                # All of them, those at their defaults too: a plugin may change a default.
                "parameters": learner.parameters(),
                "source": self.keys.source("learner", cell.learner.name),
                **_describe_files(learner),
                # Without the +, which is refinement's: so U+ finds what U has learned.
                "start": cell.regime.name.rstrip("+"),
                "seen": self._describe_seen(),
                "seed": cell.seed,
                "device": cell.device,
                "dtype": "float32",
            }
        )

    @cached_property
    def network(self) -> Key:
        """The key of the network that features are extracted with."""
        cell = self.cell
        if not cell.regime.refined:
            return self.learned
        return Key.from_document(
            {
                "learned": self.learned.document,
                "split": _describe_training(cell),
                "refinement": asdict(cell.refinement or Refinement()),
                "numerics": compute_code_version(REFINING),
                # A CPU refines in single precision whatever is asked for.
                "precision": cell.precision if cell.device == "cuda" else "float32",
            }
        )

    @cached_property
    def features(self) -> Mapping[Part, Key]:
        """The keys of the features of each part of a draw."""
        return {part: self._features_of(part) for part in get_args(Part)}

    @cached_property
    def result(self) -> Key:
        """The key of the result."""
        cell = self.cell
        # A list of networks, in the order that they were asked for: of two that validate alike, the first is taken.
        alternatives = [replace(cell, learner=learner) for learner in cell.learner.alternatives()]
        networks = [self.keys.for_cell(one).network.document for one in alternatives]
        return Key.from_document(
            {
                "network": networks[0] if len(networks) == 1 else networks,
                "split": _describe_split(cell),
                "precision": cell.precision,
                "classifier": cell.classifier,
                "source": self.keys.source("classifier", Choice.read(cell.classifier).name),
                "numerics": compute_code_version(CLASSIFYING),
                "metric": cell.metric,
                "metric_source": self.keys.source("metric", cell.metric),
            }
        )

    def _features_of(self, part: Part) -> Key:
        cell = self.cell
        # Features of all images, or of all test images, are the same in every draw: with a network that does not
        # depend on the draw either, all draws share one file.
        drawn = part == "train" or (part == "test" and cell.test_per_class is not None)
        split = _describe_split(cell) if drawn else None
        return Key.from_document(
            {"network": self.network.document, "part": part, "split": split, "precision": cell.precision}
        )

    def _describe_seen(self) -> Document | None:
        """Return which images the learner looks at, if any."""
        # None for most, whose filters then serve every draw and every number of training images.
        cell = self.cell
        if not self.keys.registry.learner(cell.learner.name).looks():
            return None
        if cell.unlabelled is None:
            return _describe_own_images(cell)
        pool = {"unlabelled": self.keys.unlabelled(get_pool_name(cell.unlabelled))}
        return {**pool, "training": _describe_own_images(cell)} if joins_training(cell.unlabelled) else pool


def _describe_files(learner: FeatureLearner) -> Document:
    """Return the hashes of the files that a learner is made from, if any."""
    hashes = [file_hash(path) for path in learner.files()]
    return {"files": hashes} if hashes else {}


def _describe_split(cell: Cell) -> Document:
    return {**_describe_training(cell), "test_per_class": cell.test_per_class}


def _describe_training(cell: Cell) -> Document:
    return {
        "task": cell.task,
        "train_per_class": cell.train_per_class,
        "validation_fraction": cell.validation_fraction,
        "test": cell.test,
        "seed": cell.seed,
        "draw": cell.draw,
    }


def _describe_own_images(cell: Cell) -> Document:
    """Return which images of its data set a learner looks at."""
    training = _describe_training(cell)
    if cell.test != "held-out":
        return training
    # All that do not test, in every draw the same: draws share the filters.
    return {name: value for name, value in training.items() if name not in ("draw", "validation_fraction")}


def read_module_source(thing: object) -> str:
    """Return the source text of the modules that define a learner, classifier or data set and what it inherits from.

    For a metric it is the text of the module that defines its function.

    Raises `PluginError` where there is none (a class typed into a prompt): its results could not be kept apart
    from those of another version.
    """
    if isinstance(thing, Metric):
        return read_source(thing.function)
    cls = thing if isinstance(thing, type) else type(thing)
    bases = [base for base in cls.__mro__ if base.__module__ not in _CONTRACTS]
    return "\n".join(dict.fromkeys(read_source(base) for base in bases))


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
