"""Metrics: the contract that plugins fill, from predictions and labels to one number with a unit and a direction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Literal, get_args

from featbench.errors import PluginError

Needs = Literal["predictions", "scores"]
"""What a metric is computed from: the predicted classes alone, or the scores of all classes besides."""


@dataclass(frozen=True)
class Metric:
    """How predictions become one number, what unit it has, and whether a larger one is better.

    A protocol names the metric that it scores with. Tables, leaderboards and claims take the unit and the direction
    from here.

    Parameters
    ----------
    name : str
        What protocols and tables call it: a word without spaces, commas, slashes or brackets.
    function : Callable[..., float]
        `function(predictions, labels, classes)` returns the value, a finite float. `predictions` [m] are the predicted
        class indices of the m test images, int64; `labels` [m] are the true ones; `classes` is how many classes the
        data set has, some of which may have no test image. A metric that needs scores gets them as a fourth argument:
        float64 [m, classes], larger for likelier classes, minus infinity for one that is never predicted. Define it
        with `def` or `lambda` in a file: the source of that file is part of the key of every result, so that an edit
        computes them again.
    unit : str, default ""
        What stands behind its values: "%" for percent, "" for a number without unit. It does not scale the value: a
        metric in percent returns 91.3, not 0.913.
    larger_is_better : bool, default True
        False for errors and losses.
    summary : str, default ""
        What it measures, in one line for `featbench list metrics`.
    needs : {"predictions", "scores"}, default "predictions"
        "scores" for a metric that ranks classes. A cell whose classifier gives none fails.

    Raises
    ------
    PluginError
        If the function is not one that is defined in Python, `unit` or `larger_is_better` has another type, or `needs`
        is neither of the two.

    Notes
    -----
    The metric judges test images alone. Where a classifier or a learner leaves something open, validation images
    decide by their accuracy, whatever the protocol's metric: a choice must not change with what is printed.

    Examples
    --------
    >>> import featbench
    >>> def worst_class(predictions, labels, classes):
    ...     right = predictions == labels
    ...     return min(float(right[labels == label].mean()) for label in set(labels.tolist()))
    >>> summary = "recall of the class that is recognised least"
    >>> featbench.Metric("worst-class", worst_class, summary=summary).larger_is_better
    True
    """

    name: str
    function: Callable[..., float]
    unit: str = ""
    larger_is_better: bool = True
    summary: str = ""
    needs: Needs = "predictions"

    def __post_init__(self) -> None:
        # Only such a function leads to the file that it stands in, which the keys of results hash: a bound method or
        # a partial call also depends on an object that no file shows.
        if not isinstance(self.function, FunctionType):
            raise PluginError(f"metric {self.name}: define its function with def in a file, not as {self.function!r}")
        # Any text counts as true: "lower" would silently turn the order of every table round.
        if not isinstance(self.larger_is_better, bool) or not isinstance(self.unit, str):
            raise PluginError(
                f"metric {self.name}: unit is a text and larger_is_better is True or False, not {self.unit!r} and "
                f"{self.larger_is_better!r}"
            )
        if self.needs not in get_args(Needs):
            raise PluginError(
                f"metric {self.name} needs {self.needs!r}: it must be one of {', '.join(get_args(Needs))}"
            )
