from pathlib import Path

import pytest
import torch

from featbench.system import memory
from featbench.system.memory import available_memory, require_memory

CPU = torch.device("cpu")


def test_free_memory_lies_between_a_little_and_what_the_machine_has():
    with Path("/proc/meminfo").open(encoding="ascii") as meminfo:
        total = 1024 * int(meminfo.readline().split()[1])
    assert 10**8 < available_memory(CPU) < total


def test_what_fits_is_granted_and_what_does_not_is_an_error(monkeypatch):
    monkeypatch.setattr(memory, "UNCHECKED_BYTES", 0)
    monkeypatch.setattr(memory, "available_memory", lambda device: 3 * 2**30)
    require_memory(3 * 2**30, CPU, "maps")
    with pytest.raises(MemoryError, match=r"^3\.5 GiB are needed for 7 maps$"):
        require_memory(7 * 2**29, CPU, "7 maps")


def test_small_requests_are_granted_without_asking_the_system(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda device: pytest.fail("the system was asked"))
    require_memory(2**30, CPU, "maps")
