"""Parameters inside parameters, `learner_params__lam`, as scikit-learn's searches set them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from featbench.data.maps import Preprocessing
from featbench.errors import UnknownNameError, UsageError
from featbench.learning.learner import FeatureLearner

DEFAULTS: Mapping[str, Callable[[], Any]] = {
    "learner_params": dict,
    "preprocessing": Preprocessing,
    "refinement": dict,
}
"""What makes a parameter that holds others where it is None."""

OUTER = ("learner", *DEFAULTS)
"""The parameters that hold others; a learner does if it is an instance."""


def list_inner(name: str, value: object) -> dict[str, Any]:
    """Return what a parameter holds, each under its full name: `{"learner_params__lam": 0.5}`."""
    if name not in OUTER:
        return {}
    return {f"{name}__{inner}": one for inner, one in _get_inner(value).items()}


def change_inner(name: str, value: object, changes: Mapping[str, Any]) -> object:
    """Return a parameter with some of what it holds changed; the one that is given stays as it is."""
    held = DEFAULTS[name]() if value is None and name in DEFAULTS else value
    if isinstance(held, Mapping):
        return {**held, **changes}
    if name == "learner" and not isinstance(held, FeatureLearner):
        raise UsageError(f"learner is no instance, which alone holds parameters: set learner_params__{min(changes)}")
    known = _get_inner(held)
    for inner in changes:
        if inner not in known:
            raise UnknownNameError(f"parameter of {name}", inner, known or ["none"])
    try:
        return replace(held, **changes)  # type: ignore[type-var]
    except (ValueError, TypeError) as error:
        raise UsageError(f"{name}: {error}") from error


def split_changes(parameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the parameters that stand for themselves, and those inside others, by the outer and the inner name.

    Raises a `UsageError` for one that would be inside a parameter that holds none.
    """
    plain: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for name, value in parameters.items():
        outer, separator, inner = name.partition("__")
        if separator and outer in OUTER:
            nested.setdefault(outer, {})[inner] = value
        elif separator:
            raise UsageError(f"Invalid parameter {name!r} for estimator Extractor: {outer} holds no parameters")
        else:
            plain[name] = value
    return plain, nested


def _get_inner(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {str(inner): one for inner, one in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return {}
