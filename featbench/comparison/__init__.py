"""The workbench of every command, and the function `compare`."""

from featbench.comparison.python import compare
from featbench.comparison.workbench import Comparison, Workbench

__all__ = ["Comparison", "Workbench", "compare"]
