"""Which device a name stands for, and which implementation of the operations it gets."""

import pytest
import torch

from featbench.devices.selection import resolve_device, select_operations
from featbench.errors import DeviceError
from featbench.operations.host import HostOperations

CPU = torch.device("cpu")


@pytest.mark.parametrize("device", ["cpu", CPU])
def test_a_cpu_gets_its_operations_in_the_precision_that_is_asked_for(device):
    operations = select_operations(device, "bf16")
    assert type(operations) is HostOperations
    assert operations.precision == "bf16"
    assert select_operations(device).precision == "float32"


def test_a_device_that_is_neither_is_refused():
    with pytest.raises(DeviceError, match="it is cpu or cuda"):
        select_operations("mps")


def test_cuda_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="finds no CUDA device"):
        select_operations("cuda")


def test_cuda_without_triton_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("featbench.devices.selection.find_spec", lambda name: None)
    with pytest.raises(DeviceError, match="pip install triton"):
        select_operations("cuda")


def test_device_is_cuda_only_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == CPU
    with pytest.raises(DeviceError, match="no CUDA device"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda")
    assert resolve_device("cpu") == CPU


def test_unknown_device_is_refused_with_the_known_ones():
    with pytest.raises(DeviceError, match="unknown device 'gpu': it is auto, cpu or cuda"):
        resolve_device("gpu")
