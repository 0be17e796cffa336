"""What the fields of a protocol must be: what makes no sense is refused when it registers, not when it runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, get_args

from featbench.data.maps import Preprocessing
from featbench.errors import FeatbenchError, PluginError, UnknownNameError
from featbench.evaluation.metrics import Metric
from featbench.evaluation.protocol import Baseline, Protocol, Selection
from featbench.evaluation.regimes import parse_regimes
from featbench.evaluation.task import TASKS
from featbench.parameters import Choice
from featbench.refinement.settings import Refinement
from featbench.stages.architecture import Architecture
from featbench.types import Test


class MissingMetricError(PluginError):
    """A protocol whose metric no plugin has given yet."""


def check_protocol(protocol: Protocol, metrics: Mapping[str, Metric]) -> None:
    """Refuse a protocol with a field of a wrong type or out of its range, and one that names an unknown metric."""
    try:
        _check_fields(protocol)
    except FeatbenchError as error:
        raise PluginError(f"protocol {protocol.name}: {error}") from error
    if protocol.metric not in metrics:
        raise MissingMetricError(f"protocol {protocol.name}: {UnknownNameError('metric', protocol.metric, metrics)}")


def _check_fields(protocol: Protocol) -> None:
    for name in ("summary", "refinement", "source"):
        _require_text(name, getattr(protocol, name), empty=True)
    for name in ("dataset", "metric", "task"):
        _require_text(name, getattr(protocol, name))
    if protocol.task not in TASKS:
        raise UnknownNameError("task", protocol.task, TASKS)
    if protocol.test not in get_args(Test):
        raise PluginError(f"test must be one of {', '.join(map(repr, get_args(Test)))}, not {protocol.test!r}")
    _require_count("train_per_class", protocol.train_per_class, least=2, none=True)
    _require_count("test_per_class", protocol.test_per_class, least=1, none=True)
    _require_count("draws", protocol.draws, least=1)
    fraction = protocol.validation_fraction
    if not _is_number(fraction) or not 0 < fraction < 1:
        raise PluginError(f"validation_fraction must lie between 0 and 1, not {fraction!r}")
    if not isinstance(protocol.preprocessing, Preprocessing):  # which checks its own fields
        raise PluginError(f"preprocessing must be a Preprocessing, not {protocol.preprocessing!r}")
    _check_rows(protocol)
    _check_texts(protocol)


def _check_rows(protocol: Protocol) -> None:
    """Check learners, regimes and classifiers, of which names alone can be known to be right."""
    for name in ("features", "regimes", "classifiers"):
        _require_names(name, getattr(protocol, name))
    parse_regimes(protocol.regimes)
    for learner, classifiers in _require_mapping("own_classifiers", protocol.own_classifiers).items():
        _require_names("own_classifiers", [learner])
        _require_names(f"own_classifiers of {learner}", classifiers)
    if protocol.thorough is not None:
        if not isinstance(protocol.thorough, Selection):
            raise PluginError(f"thorough must be a Selection or None, not {protocol.thorough!r}")
        for name in ("features", "regimes"):
            _require_names(f"thorough.{name}", getattr(protocol.thorough, name), empty=True)
        parse_regimes(protocol.thorough.regimes)
    for baseline in _require_list("baselines", protocol.baselines, empty=True):
        if not isinstance(baseline, Baseline):
            raise PluginError(f"baselines must hold instances of Baseline, not {baseline!r}")
        texts = (baseline.learner, baseline.otherwise, *([] if baseline.classifier is None else [baseline.classifier]))
        _require_names("baselines", texts)
        _require_names("baselines", [baseline.regime])
        parse_regimes([baseline.regime])


def _check_texts(protocol: Protocol) -> None:
    """Check what is written in the notations of architectures and of refinement."""
    _require_text("architecture", protocol.architecture)
    Architecture.parse(protocol.architecture)
    for name, text in _require_mapping("architectures", protocol.architectures).items():
        with _naming(f"architectures[{name!r}]"):
            _require_text("it", text)
            Architecture.parse(text)
    with _naming("refinement"):
        Refinement.read(protocol.refinement)
    for name, text in _require_mapping("refinements", protocol.refinements).items():
        with _naming(f"refinements[{name!r}]"):
            _require_text("it", text)
            Refinement.read(protocol.refinement, text)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Put the name of a field before an error."""
    try:
        yield
    except FeatbenchError as error:
        raise PluginError(f"{name}: {error}") from error


def _require_count(name: str, value: object, *, least: int, none: bool = False) -> None:
    if value is None and none:
        return
    # True counts as 1 to Python.
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise PluginError(f"{name} must be an int of at least {least}{' or None' if none else ''}, not {value!r}")


def _require_text(name: str, value: object, *, empty: bool = False) -> None:
    if not isinstance(value, str) or not (empty or value.strip()):
        raise PluginError(f"{name} must be a text{'' if empty else ' that is not empty'}, not {value!r}")


def _require_list(name: str, value: Any, *, empty: bool = False) -> Iterable[Any]:
    if not isinstance(value, tuple | list):
        hint = f": write ({value!r},)" if isinstance(value, str) else ""
        raise PluginError(f"{name} must be a tuple, not {value!r}{hint}")
    if not value and not empty:
        raise PluginError(f"{name} must not be empty")
    found: Iterable[Any] = value
    return found


def _require_names(name: str, value: object, *, empty: bool = False) -> None:
    for text in _require_list(name, value, empty=empty):
        _require_text(name, text)
        Choice.read(text)


def _require_mapping(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise PluginError(f"{name} must be a mapping of names, not {value!r}")
    for key in value:
        _require_text(f"{name}: a name", key)
    return value


def _is_number(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)
