import math

import pytest

from featbench.refinement import progress as module
from featbench.refinement.progress import Throughput, TrainingProgress, format_duration
from featbench.refinement.training_state import REFIT, SEARCH, TrainingState, ValidationScore


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is set."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def reports(epochs=10, images=90, batch_size=30):
    found = []
    return found, TrainingProgress(lambda *report: found.append(report), epochs, images, batch_size)


def test_loss_pace_and_the_time_that_remains_are_reported(clock):
    found, progress = reports()
    progress.after_batch(TrainingState(SEARCH, epoch=1, batch=1, loss_sum=2.5), 3, 30)
    clock.now += 2
    progress.after_batch(TrainingState(SEARCH, epoch=1, batch=2, loss_sum=4.0), 3, 30)
    # 15 images a second, and 30 + 9 × 90 images to go.
    assert found == [
        ("refining: loss 2.500, epoch", 1, 10),
        ("refining: loss 2.000, 15 images/s, 56 s left, epoch", 1, 10),
    ]


def test_the_best_validation_score_is_reported_and_a_refit_has_none(clock):
    found, progress = reports()
    score = ValidationScore(0.7125, -1.0)
    progress.after_batch(TrainingState(SEARCH, batch=3, loss_sum=3.0, best_score=score), 3, 30)
    progress.after_batch(TrainingState(REFIT, batch=3, loss_sum=3.0), 3, 30)
    assert found[0][0] == "refining: loss 1.000, validation 71.2 %, epoch"
    assert found[1][0].startswith("refining on all: loss 1.000, ")


def test_reports_are_half_a_second_apart_but_for_the_last_of_an_epoch(clock):
    found, progress = reports(images=270)
    for epoch in (1, 2):
        for batch in range(1, 10):
            # The mean loss names the batch.
            progress.after_batch(TrainingState(SEARCH, epoch=epoch, batch=batch, loss_sum=float(batch**2)), 9, 30)
            clock.now += 0.2
    reported = [(epoch, what.split(",")[0].removeprefix("refining: loss ")) for what, epoch, _ in found]
    first = [(1, "1.000"), (1, "4.000"), (1, "7.000"), (1, "9.000")]
    assert reported == [*first, (2, "3.000"), (2, "6.000"), (2, "9.000")]


def test_the_first_batch_is_not_counted(clock):
    throughput = Throughput()
    clock.now += 100
    assert math.isnan(throughput.count(50))
    clock.now += 2
    assert throughput.count(30) == 15
    clock.now += 1
    assert throughput.count(30) == 20


@pytest.mark.parametrize(
    "seconds, text",
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (187, "3 min 07 s"), (7322, "122 min 02 s")],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text
