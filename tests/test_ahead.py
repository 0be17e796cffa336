import threading
import time

import pytest
import torch

from featbench.ahead import ahead


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_order(workers):
    def make(k):
        time.sleep(0.002 * (k % 3))
        return k * k

    assert list(ahead(make, range(20), workers)) == [k * k for k in range(20)]


def test_nothing_gives_nothing():
    assert list(ahead(lambda k: k, [])) == []


def test_a_few_are_made_before_they_are_asked_for_and_no_more():
    made, reached = [], threading.Event()

    def make(k):
        made.append(k)
        if k == 2:
            reached.set()
        return k

    results = ahead(make, range(100))
    assert next(results) == 0
    assert reached.wait(10)
    results.close()
    assert max(made) <= 3


def test_an_error_is_raised_where_its_result_is_due():
    def make(k):
        if k == 3:
            raise KeyError(k)
        return k

    results = ahead(make, range(9))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="3"):
        next(results)


def test_no_gradients_are_followed():
    weight = torch.ones(1, requires_grad=True)
    assert [result.requires_grad for result in ahead(lambda k: k * weight, range(3))] == [False] * 3


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_have_a_thread_each_and_others_theirs(workers):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert list(ahead(lambda k: torch.get_num_threads(), range(6), workers)) == [1] * 6
        found = []
        thread = threading.Thread(target=lambda: found.append(torch.ones(9).sum() and torch.get_num_threads()))
        thread.start()
        thread.join()
        assert (torch.get_num_threads(), found) == (2, [2])
    finally:
        torch.set_num_threads(before)
