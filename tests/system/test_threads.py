import threading
import time

import pytest
import torch

from featbench.system.threads import Workers, run_in_one_thread, use_threads


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_order(workers):
    def make(k):
        time.sleep(0.002 * (k % 3))
        return k * k

    assert list(Workers(workers).map(make, range(20))) == [k * k for k in range(20)]


def test_nothing_gives_nothing():
    assert list(Workers(2).map(lambda k: k, [])) == []


def test_a_few_are_made_before_they_are_asked_for_and_no_more():
    made, reached = [], threading.Event()

    def make(k):
        made.append(k)
        if k == 2:
            reached.set()
        return k

    results = Workers(1).map(make, range(100))
    assert next(results) == 0
    assert reached.wait(10)
    results.close()
    assert max(made) <= 3


def test_an_error_is_raised_where_its_result_is_due():
    def make(k):
        if k == 3:
            raise KeyError(k)
        return k

    results = Workers(1).map(make, range(9))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="3"):
        next(results)


def test_no_gradients_are_followed():
    weight = torch.ones(1, requires_grad=True)
    assert [result.requires_grad for result in Workers(1).map(lambda k: k * weight, range(3))] == [False] * 3


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_have_a_thread_each_and_others_theirs(workers):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert list(Workers(workers).map(lambda k: torch.get_num_threads(), range(6))) == [1] * 6
        found = []
        thread = threading.Thread(target=lambda: found.append(torch.ones(9).sum() and torch.get_num_threads()))
        thread.start()
        thread.join()
        assert (torch.get_num_threads(), found) == (2, [2])
    finally:
        torch.set_num_threads(before)


def test_the_same_threads_serve_again():
    workers = Workers(2)
    names = [set(workers.map(lambda k: threading.current_thread().name, range(9))) for _ in range(3)]
    assert len(set.union(*names)) <= 2


def test_who_stops_early_leaves_nothing_undone_behind():
    workers, made = Workers(1), []
    results = workers.map(lambda k: made.append(k) or time.sleep(0.01), range(100))
    next(results)
    results.close()
    assert list(workers.map(lambda k: k, range(3))) == [0, 1, 2]
    assert len(made) <= 4


def test_in_one_thread_what_is_made_is_given_back_with_a_thread_of_its_own():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        value, threads, here = run_in_one_thread(lambda: ("made", torch.get_num_threads(), threading.get_ident()))
        assert (value, threads, torch.get_num_threads()) == ("made", 1, 2)
        assert here != threading.get_ident()
    finally:
        torch.set_num_threads(before)


def test_in_one_thread_errors_are_raised_and_gradients_are_followed_where_they_are_asked_for():
    def fail():
        raise KeyError("made")

    with pytest.raises(KeyError, match="made"):
        run_in_one_thread(fail)

    weight = torch.ones(3, requires_grad=True)

    def learn():
        assert not torch.is_grad_enabled()
        with torch.enable_grad():
            weight.square().sum().backward()

    assert run_in_one_thread(learn) is None
    assert torch.is_grad_enabled()
    assert weight.grad.tolist() == [2, 2, 2]


def test_threads_are_given_back_after_a_block_even_if_it_fails():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), use_threads(5):
        assert torch.get_num_threads() == 5
        with use_threads(1):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 5
        raise KeyError
    assert torch.get_num_threads() == before
