import threading
import time

import pytest

from featbench.data.parallel import map_images


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 6, 7])
def test_images_come_in_order_however_long_each_takes(monkeypatch, threads, count):
    monkeypatch.setattr("featbench.data.parallel.BLOCK", 3)
    monkeypatch.setattr("os.cpu_count", lambda: threads)
    made = map_images(lambda index: time.sleep(0.002 * (count - index)) or index**2, count)
    assert made == [index**2 for index in range(count)]


def test_progress_counts_up_to_all_images(monkeypatch):
    monkeypatch.setattr("featbench.data.parallel.BLOCK", 3)
    told = []
    map_images(lambda index: index, 7, lambda done, count: told.append((done, count)))
    assert told == [(3, 7), (6, 7), (7, 7)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupt_drops_the_images_that_have_not_begun(monkeypatch, error):
    monkeypatch.setattr("featbench.data.parallel.BLOCK", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    started, made = threading.Event(), []

    def make(index):
        made.append(index)
        if index:  # all but the first wait until the work is ended
            started.wait(1)

    def stop(done, count):
        raise error

    with pytest.raises(error):
        map_images(make, 1000, stop)
    started.set()
    assert len(made) <= 3


def test_what_an_image_raises_is_raised(monkeypatch):
    monkeypatch.setattr("featbench.data.parallel.BLOCK", 2)
    with pytest.raises(ZeroDivisionError):
        map_images(lambda index: 1 // (3 - index), 5)
