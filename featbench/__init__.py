"""featbench: which way of getting features is better, by how much, at what cost, and is the difference real?"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featbench.built_in import Command
    from featbench.classification.classifier import Classifier, MapClassifier, MapPredictor, Predictor
    from featbench.comparison import compare
    from featbench.data.dataset import Dataset, Download, FileDataset
    from featbench.data.image_reader import read_image
    from featbench.data.maps import Preprocessing
    from featbench.details.explain import explain
    from featbench.errors import DataError, FeatbenchError
    from featbench.evaluation.metrics import Metric
    from featbench.evaluation.protocol import Baseline, Protocol, Selection
    from featbench.evaluation.published import Claim, Contrast, PublishedRow, PublishedTable
    from featbench.extractor import Extractor
    from featbench.features.rows import LocalMaps, LocalVectors
    from featbench.hookspecs import hookimpl
    from featbench.learning.learner import FilterLearner, NetworkLearner
    from featbench.model.loading import load
    from featbench.model.model import Model
    from featbench.refinement.augmentation import Augmentation
    from featbench.refinement.random_numbers import generator
    from featbench.refinement.settings import Refinement
    from featbench.stages.architecture import Architecture
    from featbench.stages.filters import Bank, Filters
    from featbench.system.updates import Updates
    from featbench.types import Images

__version__ = "0.1.0"

_HOMES = {
    "Architecture": "stages.architecture",
    "Augmentation": "refinement.augmentation",
    "Bank": "stages.filters",
    "Baseline": "evaluation.protocol",
    "Claim": "evaluation.published",
    "Classifier": "classification.classifier",
    "Command": "built_in",
    "Contrast": "evaluation.published",
    "DataError": "errors",
    "Dataset": "data.dataset",
    "Download": "data.dataset",
    "Extractor": "extractor",
    "FeatbenchError": "errors",
    "FileDataset": "data.dataset",
    "FilterLearner": "learning.learner",
    "Filters": "stages.filters",
    "Images": "types",
    "LocalMaps": "features.rows",
    "LocalVectors": "features.rows",
    "MapClassifier": "classification.classifier",
    "MapPredictor": "classification.classifier",
    "Metric": "evaluation.metrics",
    "Model": "model.model",
    "NetworkLearner": "learning.learner",
    "Predictor": "classification.classifier",
    "Preprocessing": "data.maps",
    "Protocol": "evaluation.protocol",
    "PublishedRow": "evaluation.published",
    "PublishedTable": "evaluation.published",
    "Refinement": "refinement.settings",
    "Selection": "evaluation.protocol",
    "Updates": "system.updates",
    "compare": "comparison",
    "explain": "details.explain",
    "generator": "refinement.random_numbers",
    "hookimpl": "hookspecs",
    "load": "model.loading",
    "read_image": "data.image_reader",
}
"""The public names, and the modules they are imported from when they are first used."""

__all__ = [
    "Architecture",
    "Augmentation",
    "Bank",
    "Baseline",
    "Claim",
    "Classifier",
    "Command",
    "Contrast",
    "DataError",
    "Dataset",
    "Download",
    "Extractor",
    "FeatbenchError",
    "FileDataset",
    "FilterLearner",
    "Filters",
    "Images",
    "LocalMaps",
    "LocalVectors",
    "MapClassifier",
    "MapPredictor",
    "Metric",
    "Model",
    "NetworkLearner",
    "Predictor",
    "Preprocessing",
    "Protocol",
    "PublishedRow",
    "PublishedTable",
    "Refinement",
    "Selection",
    "Updates",
    "compare",
    "explain",
    "generator",
    "hookimpl",
    "load",
    "read_image",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'featbench' has no attribute {name!r}")
    return getattr(import_module(f"featbench.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
