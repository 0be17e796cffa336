import json
import logging
import math

import numpy as np
import pytest
import torch
from torch import nn

from featbench.refinement.checkpoint import FORMAT, NoCheckpoint, Snapshot
from featbench.refinement.training_state import REFIT, SEARCH, RefinementReport, TrainingState, ValidationScore


class File:
    """A checkpoint that keeps its arrays apart, and its document as text."""

    def __init__(self):
        self.kept = None

    def read(self):
        return self.kept and (self.kept[0], json.loads(self.kept[1]))

    def write(self, arrays, document):
        self.kept = {name: array.copy() for name, array in arrays.items()}, json.dumps(document, allow_nan=False)


def snapshot(state):
    torch.manual_seed(0)
    network, layer = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), nn.Linear(4, 3)
    best = {name: tensor + 1 for name, tensor in network.state_dict().items()}
    optimizer = {0: {"step": torch.tensor(7.0), "exp_avg": torch.randn(2, 3)}, 11: {"exp_avg": torch.randn(4)}}
    return Snapshot(state, network.state_dict(), layer.state_dict(), best, optimizer)


STATES = [
    TrainingState(SEARCH),
    TrainingState(SEARCH, epoch=3, batch=2, best_score=ValidationScore(1 / 3, -math.inf), seconds=0.1, pieces=4),
    TrainingState(REFIT, slowdown=16, search=RefinementReport(5, 2, 1e-3, 10.0, 20.0), finished=True),
]


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype
        assert torch.equal(one[name], other[name])


@pytest.mark.parametrize("state", STATES)
def test_a_snapshot_is_read_as_it_was_written(state):
    written, file = snapshot(state), File()
    written.write(file)
    found = Snapshot.read(file)
    assert found.state == state
    assert_same(found.network, written.network)
    assert_same(found.layer, written.layer)
    assert_same(found.best_network, written.best_network)
    assert found.optimizer.keys() == written.optimizer.keys()
    for number in written.optimizer:
        assert_same(found.optimizer[number], written.optimizer[number])


def test_what_is_read_does_not_share_memory_with_the_checkpoint():
    file = File()
    snapshot(STATES[0]).write(file)
    found = Snapshot.read(file)
    for array in file.kept[0].values():
        array.fill(0)
    assert found.layer["weight"].any()


def test_nothing_is_read_where_nothing_was_written():
    assert Snapshot.read(File()) is None
    NoCheckpoint().write({}, {})
    assert Snapshot.read(NoCheckpoint()) is None


OF_FORMAT_1 = {
    "slowdown": 1,
    "run": "refining",
    "epoch": 2,
    "batch": 3,
    "loss": 1.5,
    "best_epoch": 1,
    "best": ["0.5", "-1.0"],
    "scale": 1.0,
    "finished": False,
    "seconds": 12.0,
    "pieces": 1,
}


@pytest.mark.parametrize("document", [OF_FORMAT_1, {"format": FORMAT + 1, "state": {}}, {}])
def test_a_checkpoint_in_another_format_is_not_read_which_is_logged(document, caplog):
    file = File()
    file.write({"network/weight": np.ones(3, np.float32)}, document)
    with caplog.at_level(logging.WARNING, "featbench"):
        assert Snapshot.read(file) is None
    assert "a checkpoint of another version of featbench is not read" in caplog.text
