"""featbench: which way of getting features is better, by how much, at what cost, and is the difference real?"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featbench.architecture import Architecture
    from featbench.classifier import Classifier, Predictor
    from featbench.comparison import compare
    from featbench.dataset import Dataset
    from featbench.errors import FeatbenchError
    from featbench.extractor import Extractor
    from featbench.filters import Bank, Filters
    from featbench.hookspecs import hookimpl
    from featbench.learner import FilterLearner, NetworkLearner
    from featbench.preprocess import Preprocessing
    from featbench.protocol import Protocol
    from featbench.types import Images

__version__ = "0.1.0"

_HOMES = {
    "Architecture": "architecture",
    "Bank": "filters",
    "Classifier": "classifier",
    "Dataset": "dataset",
    "Extractor": "extractor",
    "FeatbenchError": "errors",
    "FilterLearner": "learner",
    "Filters": "filters",
    "Images": "types",
    "NetworkLearner": "learner",
    "Predictor": "classifier",
    "Preprocessing": "preprocess",
    "Protocol": "protocol",
    "compare": "comparison",
    "hookimpl": "hookspecs",
}
"""The public names, and the modules they are imported from when they are first used."""

__all__ = [
    "Architecture",
    "Bank",
    "Classifier",
    "Dataset",
    "Extractor",
    "FeatbenchError",
    "FilterLearner",
    "Filters",
    "Images",
    "NetworkLearner",
    "Predictor",
    "Preprocessing",
    "Protocol",
    "compare",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'featbench' has no attribute {name!r}")
    return getattr(import_module(f"featbench.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
