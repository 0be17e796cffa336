"""Loops of updates that can be watched."""

import pytest
import torch

from featbench.system import updates
from featbench.system.updates import Updates, format_seconds, watch_updates


class Clock:
    """Time that passes only when a test says so."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(updates, "time", clock)
    return clock


def watched(loop):
    heard = []
    with watch_updates(lambda *report: heard.append(report)):
        loop()
    return heard


def test_updates_are_the_numbers_of_a_range_whether_they_are_watched_or_not():
    assert list(Updates(5)) == list(range(5))
    gone_through = []
    watched(lambda: gone_through.extend(Updates(5)))
    assert gone_through == list(range(5))


def test_reports_say_what_is_done_at_which_energy_and_how_long_the_rest_takes(clock):
    def loop():
        steps = Updates(10)
        for update in steps:
            clock.now += 2.0
            steps.energy = torch.tensor(10.0 / (update + 1))

    heard = watched(loop)
    assert heard[0] == ("learning filters, energy 10, 18 s left, update", 1, 10)
    assert heard[4] == ("learning filters, energy 2, 10 s left, update", 5, 10)
    assert heard[-1] == ("learning filters, energy 1, 0 s left, update", 10, 10)
    assert len(heard) == 10


def test_reports_come_twice_a_second_at_most_and_once_at_the_end(clock):
    def loop():
        for _ in Updates(1000):
            clock.now += 0.01

    done = [report[1] for report in watched(loop)]
    assert len(done) == pytest.approx(20, abs=1)
    assert done[-1] == 1000


def test_an_energy_is_computed_only_where_it_is_shown(clock):
    computed = []

    def loop():
        steps = Updates(100)
        for _ in steps:
            clock.now += 0.1
            steps.energy = lambda: computed.append(1) or 3.0

    assert len(computed) == 0
    heard = watched(loop)
    assert len(computed) == len(heard) < 100
    assert heard[0][0].startswith("learning filters, energy 3, ")


def test_nobody_hears_of_updates_outside_the_block():
    heard = watched(lambda: None)
    list(Updates(3))
    assert heard == []


def test_updates_that_something_else_runs_are_counted_and_never_more_than_there_are(clock):
    def loop():
        steps = Updates(2, "solving")
        for _ in range(4):
            clock.now += 1
            steps.advance()

    assert [report[1:] for report in watched(loop)] == [(1, 2), (2, 2), (2, 2), (2, 2)]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (3600, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_durations_in_words(seconds, text):
    assert format_seconds(seconds) == text
