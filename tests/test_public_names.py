"""The public names: which they are, and that each docstring says in numpydoc form what it takes, gives and raises."""

import inspect
import re
from importlib import import_module

import pytest

import featbench
from featbench import sparse

CLASSES = (
    *("Architecture", "Augmentation", "Bank", "Baseline", "Claim", "Classifier", "Command", "Contrast", "DataError"),
    *(
        "Dataset",
        "Download",
        "Extractor",
        "FeatbenchError",
        "FileDataset",
        "FilterLearner",
        "Filters",
        "Images",
        "LocalMaps",
    ),
    *(
        "LocalVectors",
        "MapClassifier",
        "MapPredictor",
        "Metric",
        "Model",
        "NetworkLearner",
        "Predictor",
        "Preprocessing",
    ),
    *("Protocol", "PublishedRow", "PublishedTable", "Refinement", "Selection", "Updates"),
)

FUNCTIONS = ("compare", "explain", "generator", "hookimpl", "load", "read_image")

SOLVERS = (
    *("Dictionary", "Solution", "active_descent", "coordinate_descent", "feature_sign", "fista", "ista"),
    "learn_dictionary",
)

SECTIONS = ("Parameters", "Attributes", "Returns", "Yields", "Raises", "See Also", "Notes", "References", "Examples")

CONTRACTS = (
    *("classification.classifier.BaseClassifier", "classification.classifier.Classifier"),
    *("classification.classifier.MapClassifier", "classification.classifier.MapPredictor"),
    *("classification.classifier.Predictor", "data.dataset.Dataset", "data.dataset.FileDataset"),
    *(
        "evaluation.task.Task",
        "execution.listeners.Listener",
        "experiment.artifacts.Artifacts",
        "features.rows.LocalMaps",
    ),
    *("learning.learner.FeatureLearner", "learning.learner.FilterLearner", "learning.learner.NetworkLearner"),
    *("operations.reference.Reference", "parameters.Parametrised", "refinement.checkpoint.Checkpoint"),
)
"""Classes that others fill, plugins or rooms above: each method that may be overridden has a docstring of the form."""


def sections_of(thing):
    """Return the sections of a numpydoc docstring: heading -> text; the summary stands under ""."""
    lines, found, heading = (inspect.getdoc(thing) or "").splitlines(), {"": []}, ""
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if following and set(following) == {"-"}:
            assert len(following) == len(line), f"{thing}: the line below {line!r} is not as long"
            assert line in SECTIONS, f"{thing}: {line!r} is not a section of numpydoc"
            heading = line
            found[heading] = []
        elif not (line and set(line) == {"-"}):
            found[heading].append(line)
    return {heading: "\n".join(text).strip() for heading, text in found.items()}


def names_in(section):
    """Return the names that a section of parameters describes: `name : type`, or `a, b : type`."""
    found = re.findall(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*) :", section, re.MULTILINE)
    return {name.lstrip("*") for names in found for name in names.split(", ")}


def parameters_of(thing):
    """Return the names of the parameters of a function, or of those that make a class."""
    parameters = list(inspect.signature(thing).parameters.values())
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {p.name for p in parameters if p.kind not in kinds and p.name not in ("self", "cls")}


def methods_of(contract):
    """Return the public methods that a contract defines itself, as functions."""
    members = [getattr(member, "__func__", member) for member in vars(contract).values()]
    return [one for one in members if inspect.isfunction(one) and not one.__name__.startswith("_")]


def test_the_public_names_are_these():
    assert sorted(featbench.__all__) == sorted([*CLASSES, *FUNCTIONS])
    assert sorted(sparse.__all__) == sorted(SOLVERS)


@pytest.mark.parametrize("name", CLASSES)
def test_a_public_class_describes_what_makes_it(name):
    cls = getattr(featbench, name)
    found = sections_of(cls)
    assert found[""].splitlines()[0].endswith((".", ":"))
    described = names_in(found.get("Parameters", "")) | names_in(found.get("Attributes", ""))
    if not inspect.isabstract(cls) and not issubclass(cls, Exception):
        assert parameters_of(cls) <= described


@pytest.mark.parametrize("path", CONTRACTS)
def test_a_contract_describes_every_method_that_may_be_overridden(path):
    module, _, name = f"featbench.{path}".rpartition(".")
    for method in methods_of(getattr(import_module(module), name)):
        found = sections_of(method)
        assert parameters_of(method) == names_in(found.get("Parameters", "")), (name, method.__name__)
        returned = inspect.signature(method).return_annotation
        gives = {"Returns", "Yields"} & found.keys()
        assert returned in (None, "None") or gives, (name, method.__name__)


DOCUMENTED = (*(getattr(featbench, n) for n in FUNCTIONS if n != "hookimpl"), *(getattr(sparse, n) for n in SOLVERS))


@pytest.mark.parametrize("function", DOCUMENTED, ids=lambda function: function.__name__)
def test_a_public_function_describes_its_parameters(function):
    found = sections_of(function)
    assert parameters_of(function) == names_in(found["Parameters"] if "Parameters" in found else found["Attributes"])
    assert inspect.isclass(function) or "Returns" in found
