"""Input that cannot be coded, and the errors that name what is wrong with it."""

import numpy as np
import pytest
import torch

from featbench.errors import LearningError, UsageError
from featbench.sparse import coordinate_descent, feature_sign, fista, ista
from featbench.system.memory import available_memory

PATCHES, DICTIONARY = torch.ones(4, 6), torch.eye(6)[:, :5]


def changed(values, row, column, value):
    values = values.clone()
    values[row, column] = value
    return values


BAD = {
    "NaN in a patch": ((changed(PATCHES, 2, 1, np.nan), DICTIONARY, 1.0), LearningError, "patch 2 is not finite"),
    "infinite patch": ((changed(PATCHES, 3, 1, np.inf), DICTIONARY, 1.0), LearningError, "patch 3 is not finite"),
    "NaN in an atom": ((PATCHES, changed(DICTIONARY, 1, 4, np.nan), 1.0), LearningError, "atom 4 is not finite"),
    "too large": ((PATCHES.double() * 1e200, DICTIONARY, 1.0), LearningError, "patch 0 .* too large to be squared"),
    "λ = 0": ((PATCHES, DICTIONARY, 0.0), UsageError, "λ must be a finite number above 0, and this is 0.0"),
    "λ < 0": ((PATCHES, DICTIONARY, -1.0), UsageError, "λ must be"),
    "λ NaN": ((PATCHES, DICTIONARY, float("nan")), UsageError, "λ must be"),
    "λ infinite": ((PATCHES, DICTIONARY, float("inf")), UsageError, "λ must be"),
    "shapes": ((PATCHES, torch.ones(5, 7), 1.0), UsageError, r"\[4, 6\] and the dictionary \[5, 7\]"),
    "one patch as a vector": ((PATCHES[0], DICTIONARY, 1.0), UsageError, r"matrix, and this has the shape \[6\]"),
    "integers": ((PATCHES.long(), DICTIONARY, 1.0), UsageError, "float32 or float64, and this is int64"),
    "integer array": ((np.ones((4, 6), int), DICTIONARY, 1.0), UsageError, "float32 or float64, and this is int64"),
    "half": ((PATCHES.half(), DICTIONARY, 1.0), UsageError, "float32 or float64, and this is float16"),
    "words": ((np.array([["a"]]), DICTIONARY, 1.0), UsageError, "must hold numbers"),
    "a list": (([[1.0]], DICTIONARY, 1.0), UsageError, "a torch tensor or a numpy array, and this is a list"),
    "no patches": ((torch.ones(0, 6), DICTIONARY, 1.0), UsageError, r"patches of the shape \[0, 6\]"),
    "no atoms": ((PATCHES, torch.ones(6, 0), 1.0), UsageError, r"dictionary of the shape \[6, 0\]"),
}


@pytest.mark.parametrize("solver", [ista, fista, coordinate_descent, feature_sign], ids=lambda solver: solver.__name__)
@pytest.mark.parametrize("arguments, kind, message", BAD.values(), ids=BAD.keys())
def test_bad_input_is_named(solver, arguments, kind, message):
    with pytest.raises(kind, match=message):
        solver(*arguments)


START = {
    "shape": (torch.ones(4, 6), UsageError, r"start has the shape \[4, 6\], and codes have \[4, 5\]"),
    "negative": (-torch.ones(4, 5), UsageError, "start holds negative codes"),
    "not finite": (torch.full((4, 5), torch.nan), LearningError, "start is not finite"),
    "integers": (torch.ones(4, 5).int(), UsageError, "start must be float32"),
}


@pytest.mark.parametrize("start, kind, message", START.values(), ids=START.keys())
def test_bad_starts_are_named(start, kind, message):
    with pytest.raises(kind, match=message):
        fista(PATCHES, DICTIONARY, 1.0, start=start, nonnegative=True)


@pytest.mark.parametrize("options, message", [({"tolerance": -1.0}, "tolerance"), ({"iterations": 0}, "iterations")])
def test_bad_options_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        ista(PATCHES, DICTIONARY, 1.0, **options)


def test_two_devices_are_refused():
    with pytest.raises(UsageError, match="patches are on cpu and the dictionary is on meta"):
        fista(PATCHES, DICTIONARY.to("meta"), 1.0)


def test_what_does_not_fit_into_memory_is_refused_before_it_is_allocated(monkeypatch):
    monkeypatch.setattr("featbench.sparse.memory.available_memory", lambda device: 10**6)
    with pytest.raises(UsageError, match=r"100 patches over 1000 atoms need .* GiB .* fewer atoms"):
        fista(torch.ones(100, 2), torch.ones(2, 1000), 1.0)


def test_more_codes_than_any_memory_holds_are_refused():
    patches, dictionary = torch.ones(1, 1).expand(10**6, 1), torch.ones(1, 1).expand(1, 10**7)
    with pytest.raises(UsageError, match="1000000 patches over 10000000 atoms need"):
        feature_sign(patches, dictionary, 1.0)


def test_memory_is_known_without_proc(monkeypatch):
    monkeypatch.setattr("featbench.system.memory.Path.is_file", lambda path: False)
    assert available_memory(torch.device("cpu")) > 10**8
