"""Streams and graphs with stand-ins for CUDA's, so that their logic runs where there is no GPU."""

from contextlib import nullcontext

import pytest
import torch

from featbench.cuda import graphs as module
from featbench.cuda.graphs import WARM_UP, Graphed
from featbench.cuda.streams import Streamed


class Event:
    def __init__(self, log):
        self.log = log

    def synchronize(self):
        self.log.append("waited")


class Stream:
    """Notes who waits for whom."""

    names = ("upload", "compute", "download")
    made = 0

    def __init__(self, log, name=None):
        self.log = log
        self.name = name or self.names[Stream.made % 3]
        Stream.made += 1

    def wait_stream(self, other):
        self.log.append(f"{self.name} waits for {other.name}")

    def record_event(self):
        return Event(self.log)


class Graph:
    """Records by remembering what is to be computed again."""

    network = None

    def replay(self):
        graphed = Graph.network
        graphed._output.copy_(graphed.network(graphed._input))


@pytest.fixture
def log(monkeypatch):
    """Put stand-ins in the place of CUDA; returns what happens."""
    log = []
    empty = torch.empty
    monkeypatch.setattr(Stream, "made", 0)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(log))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: Stream(log, "caller"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, **options: nullcontext())
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: log.append(f"kept for {stream.name}"))
    monkeypatch.setattr(torch, "empty", lambda *sizes, pin_memory=False, **options: empty(*sizes, **options))
    return log


class Counting:
    """Doubles maps, and counts how often it was asked."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        return 2 * x


def test_a_batch_comes_is_computed_and_goes_in_this_order(log):
    x = torch.randn(4, 1, 3, 3)
    streamed = Streamed(Counting(), torch.device("cpu"))
    Graph.network = streamed.network
    wait = streamed.launch(x)
    assert log == [
        "upload waits for caller",
        "compute waits for upload",
        "kept for compute",
        "download waits for compute",
        "kept for download",
    ]
    assert torch.equal(wait(), 2 * x)
    assert log[-1] == "waited"


def test_batches_of_the_first_shape_are_replayed_and_others_are_not(log):
    network = Counting()
    Graph.network = graphed = Graphed(network)
    first, second, shorter = (torch.randn(count, 1, 3, 3) for count in (4, 4, 3))
    found = graphed(first)
    assert torch.equal(found, 2 * first)
    assert network.calls == WARM_UP + 2  # the recording, and the replay of the stand-in
    assert torch.equal(graphed(second), 2 * second)
    assert torch.equal(found, 2 * first)  # what was given is not overwritten
    assert torch.equal(graphed(shorter), 2 * shorter)


def test_a_network_that_cannot_be_recorded_runs_kernel_by_kernel_and_that_is_logged_once(log, monkeypatch, caplog):
    class Refusing:
        def __enter__(self):
            raise RuntimeError("operation not permitted when stream is capturing")

        def __exit__(self, *_):
            return False

    monkeypatch.setattr(module.torch.cuda, "graph", lambda graph, **options: Refusing())
    graphed, x = Graphed(Counting()), torch.randn(2, 1, 3, 3)
    for _ in range(3):
        assert torch.equal(graphed(x), 2 * x)
    assert caplog.text.count("cannot be recorded as a CUDA graph") == 1


def test_a_recording_that_does_not_fit_is_tried_again_with_a_smaller_batch(log, monkeypatch):
    sizes = []

    def network(x):
        sizes.append(len(x))
        if len(x) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return 2 * x

    Graph.network = graphed = Graphed(network)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        graphed(torch.randn(4, 1, 3, 3))
    x = torch.randn(2, 1, 3, 3)
    assert torch.equal(graphed(x), 2 * x)
    assert sizes.count(2) == WARM_UP + 2
