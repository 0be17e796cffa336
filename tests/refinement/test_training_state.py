import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbench.refinement.training_state import (
    NO_SCORE,
    REFIT,
    SEARCH,
    RefinementReport,
    TrainingState,
    ValidationScore,
)

REPORT = RefinementReport(
    epochs=7, best_epoch=4, rate=0.002, validation_before=61.25, validation_after=70.0, train_loss=None
)

numbers = st.floats(allow_nan=False)
states = st.builds(
    TrainingState,
    run=st.sampled_from([SEARCH, REFIT]),
    slowdown=st.floats(1, 64),
    search=st.none() | st.builds(RefinementReport, st.integers(1, 99), st.integers(0, 99), *3 * [st.floats(0, 100)]),
    epoch=st.integers(1, 10**6),
    batch=st.integers(0, 10**6),
    loss_sum=st.floats(0, 1e30),
    best_epoch=st.integers(0, 10**6),
    best_score=st.builds(ValidationScore, numbers, numbers),
    loss_scale=st.sampled_from([1.0, 2.0**13]),
    pieces=st.integers(1, 64),
    finished=st.booleans(),
    seconds=st.floats(0, 1e9),
)


@given(states)
def test_a_state_comes_back_from_json_as_it_was(state):
    text = json.dumps(state.to_document(), allow_nan=False)
    assert TrainingState.from_document(json.loads(text)) == state


def test_a_fresh_state_has_done_nothing():
    state = TrainingState(SEARCH)
    assert (state.is_fresh, state.has_score, state.best_score) == (True, False, NO_SCORE)
    assert TrainingState.from_document(state.to_document()) == state
    assert not TrainingState(SEARCH, batch=1).is_fresh
    assert not TrainingState(SEARCH, epoch=2).is_fresh


@pytest.mark.parametrize(
    "best_epoch, score, expected",
    [(0, NO_SCORE, False), (0, ValidationScore(0.0, -math.inf), True), (3, ValidationScore(0.5, -1.0), True)],
)
def test_a_state_has_a_score_once_the_start_was_scored(best_epoch, score, expected):
    assert TrainingState(SEARCH, best_epoch=best_epoch, best_score=score).has_score is expected


def test_the_mean_loss_is_that_of_the_batches_so_far():
    assert TrainingState(SEARCH, batch=4, loss_sum=6.0).mean_loss == 1.5


def test_scores_compare_by_accuracy_and_then_by_loss():
    better, worse = ValidationScore(0.6, -9.0), ValidationScore(0.5, -0.1)
    assert better > worse > ValidationScore(0.5, -0.2) > NO_SCORE


def test_a_report_leaves_out_what_there_was_not():
    document = REPORT.to_document()
    assert document == {
        "epochs": 7,
        "best_epoch": 4,
        "rate": 0.002,
        "validation_before": 61.25,
        "validation_after": 70.0,
    }
    assert RefinementReport.from_document(document) == REPORT
