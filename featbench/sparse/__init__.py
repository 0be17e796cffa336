"""Sparse coding: minimise ½‖y - Dz‖² + λ‖z‖₁ for many patches at once, and learn the dictionary D."""

from featbench.sparse.active_descent import active_descent
from featbench.sparse.coordinate_descent import coordinate_descent
from featbench.sparse.dictionary import Dictionary, learn_dictionary
from featbench.sparse.feature_sign import feature_sign
from featbench.sparse.fista import fista
from featbench.sparse.ista import ista
from featbench.sparse.solution import Solution

__all__ = [
    "Dictionary",
    "Solution",
    "active_descent",
    "coordinate_descent",
    "feature_sign",
    "fista",
    "ista",
    "learn_dictionary",
]
