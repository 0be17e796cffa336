"""A network of stages as a scikit-learn transformer."""

from featbench.extractor.extractor import Extractor

__all__ = ["Extractor"]
