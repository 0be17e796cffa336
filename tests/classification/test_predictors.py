"""Predictors that classifiers share, against the same computed row by row."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from featbench.classification.predictors import LinearPredictor, ModelPredictor, predict_classes, prepare_rows
from featbench.classification.row_space import Standardiser
from featbench.errors import FeatureError


def features(n=30, d=7, dtype=np.float32):
    return (5 + np.random.default_rng(0).standard_normal((n, d))).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_largest_score_of_standardised_rows_wins(dtype):
    x, generator = features(dtype=dtype), np.random.default_rng(1)
    standardiser, weight, bias = Standardiser.fit(x), generator.standard_normal((7, 4)), generator.standard_normal(4)
    bias[2] = -np.inf
    predicted = LinearPredictor(standardiser, weight, bias, {}).predict(x)
    expected = [int(np.argmax(standardiser.apply(row[None])[0] @ weight + bias)) for row in x]
    assert predicted.dtype == np.int64
    assert predicted.tolist() == expected
    assert 2 not in predicted


@pytest.mark.parametrize("standardise", [True, False])
def test_a_model_predicts_what_it_says_of_prepared_rows(standardise):
    x = features()
    standardiser = Standardiser.fit(x) if standardise else None
    rows = prepare_rows(x, standardiser)
    np.testing.assert_allclose(rows, Standardiser.fit(x).apply(x) if standardise else x, rtol=1e-6, atol=1e-6)
    assert rows.dtype == np.float32
    labels = np.arange(30) % 3
    predictor = ModelPredictor(standardiser, KNeighborsClassifier(1).fit(rows, labels), 3, {"k": 1})
    assert predictor.predict(x).tolist() == labels.tolist()
    assert predictor.predict(x).dtype == np.int64
    assert predictor.report == {"k": 1}


def test_no_rows_have_no_predictions():
    model = KNeighborsClassifier(1).fit(features(), np.arange(30) % 3)
    assert predict_classes(model, features()[:0]).tolist() == []
    assert predict_classes(model, features()[:0]).dtype == np.int64


def test_features_that_are_not_finite_are_refused():
    x = features()
    standardiser = Standardiser.fit(x)
    linear = LinearPredictor(standardiser, np.ones((7, 2)), np.zeros(2), {})
    model = ModelPredictor(standardiser, KNeighborsClassifier(1).fit(x, np.arange(30) % 2), 2, {})
    x[4, 2] = np.nan
    for predictor in (linear, model):
        for method in (predictor.predict, predictor.scores):
            with pytest.raises(FeatureError, match="feature 2 of row 4 is nan"):
                method(x)
