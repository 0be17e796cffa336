"""Labels of any kind become indices of classes; what are no labels is refused with its place or its shape."""

import datetime
import re

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from featbench.errors import DataError, SplitError
from featbench.evaluation.labels import read_labels

Y = np.array([2, 0, 1, 0, 2, 1, 1])
NAMES = np.array(["ant", "beaver", "crab"])[Y]


def with_label(label, place=3):
    return [label if index == place else one for index, one in enumerate(Y.tolist())]


@pytest.mark.parametrize(
    "given",
    [
        Y,
        Y.tolist(),
        tuple(Y.tolist()),
        Y.astype(np.uint8),
        Y.astype(float),
        Y.astype(np.float16),
        Y.astype(object),
        Y.astype(float).astype(object),
        -2 + Y,
        Y * 10**12,
        NAMES,
        NAMES.tolist(),
        NAMES.astype(object),
        NAMES.astype("S"),
        pd.Series(Y),
        pd.Series(Y).astype("Int64"),
        pd.Series(NAMES),
        pd.Series(NAMES).astype("category"),
        pd.Series(NAMES).astype("string"),
        pd.Categorical(NAMES),
        pd.Index(NAMES),
        torch.tensor(Y),
        np.ma.masked_greater(Y, 9),
    ],
    ids=lambda given: type(given).__name__,
)
def test_labels_come_in_many_forms(given):
    classes, indices = read_labels(given, 7)
    assert indices.dtype == np.int64
    assert indices.tolist() == Y.tolist()
    assert len(classes) == 3


def test_classes_are_the_labels_themselves_in_ascending_order():
    assert read_labels(NAMES, 7)[0].tolist() == ["ant", "beaver", "crab"]
    assert read_labels([True, False, True, False], 4)[0].tolist() == [False, True]
    assert read_labels([5.0, -1, 5, -1.0], 4)[0].tolist() == [-1.0, 5.0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            np.eye(3)[Y],
            "y has shape [7, 3], but one label an image is needed, [n]: of one-hot rows use y.argmax(axis=1)",
        ),
        (Y[:, None], "y has shape [7, 1], but one label an image is needed, [n]: use y.ravel()"),
        (Y[None], "y has shape [1, 7], but one label an image is needed, [n]: use y.ravel()"),
        ([[one] for one in Y], "y has shape [7, 1]"),
        (pd.DataFrame({"a": Y}), "y has shape [7, 1]"),
        (np.zeros((7, 2, 2)), "y has shape [7, 2, 2]"),
        (3, "y has shape []"),
        (np.array(None), "y has shape []"),
        (Y[:-1], "there are 7 images but 6 labels"),
        ([], "there are 7 images but 0 labels"),
        (Y.astype(float) + 0.5, "y holds 2.5 at 0: continuous values are no classes"),
        (with_label(0.25), "y holds 0.25 at 3: continuous values are no classes"),
        (with_label(np.nan), "y holds nan at 3: a label is missing"),
        (np.where(Y == 1, np.nan, Y), "y holds NaN at 2: a label is missing"),
        (np.where(Y == 1, np.inf, Y), "y holds inf at 2: a label is missing"),
        (with_label(None), "y holds None at 3: a label is missing"),
        ([*NAMES[:6], None], "y holds None at 6: a label is missing"),
        (np.array([*NAMES[:6], np.nan], dtype=object), "y holds nan at 6: a label is missing"),
        (pd.Series([*NAMES[:6], pd.NA]), "at 6: a label is missing"),
        (pd.Series(with_label(pd.NA), dtype="Int64"), "at 3: a label is missing"),
        (with_label("ant"), "y mixes kinds of labels, such as 2 and 'ant'"),
        (with_label("1"), "y mixes kinds of labels, such as 2 and '1'"),
        (with_label(b"1"), "y mixes kinds of labels, such as 2 and b'1'"),
        (Y + 0j, "y holds complex128: labels are integers or texts"),
        (with_label(1j), "y holds 1j: labels are integers or texts"),
        (with_label([1]), "y holds [1]: labels are integers or texts"),
        (Y.astype("datetime64[D]"), "y holds datetime64[D]: labels are integers or texts"),
        ([datetime.date(2000, 1, 1)] * 7, "y holds datetime.date(2000, 1, 1): labels are integers or texts"),
        (np.ma.masked_equal(Y, 1), "y is a masked array"),
        (sparse.csr_matrix(Y), "Sparse data was passed for y"),
        (set(Y.tolist()), "y is a set: give a list or an array of labels"),
        (dict(enumerate(Y)), "y is a dict"),
        ("aabbcca", "y is a str"),
        (iter(Y.tolist()), "y is a list_iterator"),
        ([4] * 7, "y has one class alone, 4"),
        (["ant"] * 7, "y has one class alone, 'ant'"),
    ],
    ids=lambda given: given if isinstance(given, str) else type(given).__name__,
)
def test_what_are_no_labels_is_refused(given, message):
    with pytest.raises(DataError, match=re.escape(message)):
        read_labels(given, 7)


@pytest.mark.parametrize(("given", "name"), [(with_label(99, 2), "99"), ([*NAMES[:6], "zebra"], "'zebra'")])
def test_a_class_of_a_single_image_is_named_as_its_label(given, name):
    with pytest.raises(SplitError, match=f"class {name} of y has a single image"):
        read_labels(given, 7)
