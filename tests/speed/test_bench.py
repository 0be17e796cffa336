import sys
from itertools import product

import numpy as np
import pytest
import torch
from torch.nn import functional

from featbench.errors import ArchitectureError, DeviceError, UsageError
from featbench.speed import bench, peak_memory
from featbench.speed.bench import Bench, Case, Row, find_devices, make_noise, make_random_network, plain_torch, plan
from featbench.speed.convolutions import choose_fastest, find_convolutions
from featbench.speed.peak_memory import measure_peak
from featbench.speed.report import format_machine, make_json_row
from featbench.stages.architecture import Architecture

ONE, TWO = "8F3-Rabs-N-PA4/2", "8F3-Rabs-N-PA4/2 > 32F3:4-Rabs-PM2"

CPU = torch.device("cpu")

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")


def case(stages=ONE, batch=2, size=16, precision="float32", device="cpu"):
    return Case(Architecture.parse(stages), device, precision, batch, size)


@pytest.fixture
def convolved(monkeypatch):
    """What conv2d was given: shape and strides of maps, shape of weight, groups, type."""
    calls = []

    def conv2d(x, weight, bias=None, **options):
        calls.append((tuple(x.shape), x.stride(), tuple(weight.shape), options.get("groups", 1), x.dtype, bias))
        return real(x, weight, bias, **options)

    real = functional.conv2d
    monkeypatch.setattr(functional, "conv2d", conv2d)
    return calls


def test_the_convolutions_are_those_of_the_network():
    # 16 - 3 + 1 = 14; pooled by 4 every 2: 6. Two groups of 16 filters, each over 4 maps.
    first, second = find_convolutions(make_random_network(case(TWO)), torch.zeros(1, 1, 16, 16))
    assert (first.maps, tuple(first.weight.shape), first.groups) == ((1, 16, 16), (8, 1, 3, 3), 1)
    assert (second.maps, tuple(second.weight.shape), second.groups) == ((8, 6, 6), (32, 4, 3, 3), 2)


@pytest.mark.parametrize("batch", [1, 3])
def test_each_convolution_is_tried_in_every_way_and_then_done_once(convolved, batch):
    found = find_convolutions(make_random_network(case(TWO)), torch.zeros(1, 1, 16, 16))
    convolved.clear()
    run = choose_fastest(found, batch, CPU, torch.float32)
    strides = {(shape[0], stride[1:]) for shape, stride, *_ in convolved if shape[1:] == (1, 16, 16)}
    # Of one map too, the strides say which side is last in memory.
    assert strides == set(product({1, batch}, [(256, 16, 1), (1, 16, 1)]))
    convolved.clear()
    run()
    for maps, weight, groups in (((1, 16, 16), (8, 1, 3, 3), 1), ((8, 6, 6), (32, 4, 3, 3), 2)):
        mine = [call for call in convolved if call[0][1:] == maps]
        assert {(call[2], call[3], call[4], call[5]) for call in mine} == {(weight, groups, torch.float32, None)}
        assert sum(call[0][0] for call in mine) == batch


def test_convolutions_run_in_the_type_that_is_asked_for(convolved):
    found = find_convolutions(make_random_network(case()), torch.zeros(1, 1, 16, 16))
    convolved.clear()
    choose_fastest(found, 2, CPU, torch.bfloat16)()
    assert {call[4] for call in convolved} == {torch.bfloat16}


def test_the_bytes_that_have_to_move():
    one = 16 * 16 + 2 * 8 * 14 * 14 + 8 * 6 * 6
    assert case(batch=5).moved_bytes == 5 * 4 * one
    # 6 - 3 + 1 = 4; the largest of 2: 2. What lies between the stages is written and read.
    assert case(TWO, batch=1).moved_bytes == 4 * (one + 8 * 6 * 6 + 2 * 32 * 4 * 4 + 32 * 2 * 2)
    assert case(batch=1, precision="bf16").moved_bytes == 4 * (16 * 16 + 8 * 6 * 6) + 2 * 2 * 8 * 14 * 14
    # Twice what comes in is read by a stage that normalises first, but has to move once.
    assert case("N-8F3-PA4/2", batch=1).moved_bytes == 4 * one


def test_what_a_row_says_follows_from_its_seconds():
    seconds = {"ours": 0.004, "convolution": 0.001, "reference": 0.020, "compiled": 0.010}
    row = make_json_row(Row(case(batch=8), seconds, 1000, 1e-6))
    assert row["images_per_second"] == pytest.approx(2000)
    assert row["gigabytes_per_second"] == pytest.approx(case(batch=8).moved_bytes / 0.004 / 1e9)
    assert (row["times_convolution"], row["times_reference"], row["times_compiled"]) == pytest.approx((4, 5, 2.5))
    assert row["milliseconds"] == pytest.approx({"ours": 4, "convolution": 1, "reference": 20, "compiled": 10})
    bare = make_json_row(Row(case(batch=8), {"ours": 0.004}, None, 1e-6))
    missing = ("times_convolution", "times_reference", "times_compiled", "peak_bytes")
    assert [bare[name] for name in missing] == [None] * 4
    assert bare["milliseconds"] == {"ours": 4.0, "convolution": None, "reference": None, "compiled": None}


def test_features_are_compared_with_those_in_float64():
    exact, rounded = (
        Bench(1, compiles=False).measure(case(TWO, 3, precision=name)).error for name in ("float32", "bf16")
    )
    assert 0 < exact < 1e-5
    assert exact < rounded < 4 * 2**-8


def test_calls_take_turns_and_the_median_counts(monkeypatch):
    # One line a round: ours, convolution, reference, compiled.
    rounds = iter([*(9.0, 1.0, 5.0, 7.0), *(2.0, 3.0, 4.0, 8.0), *(1.0, 2.0, 6.0, 90.0)])

    class Told:
        def __init__(self, device):
            assert device == CPU

        def seconds(self):
            return next(rounds)

    monkeypatch.setattr(bench, "Clock", Told)
    monkeypatch.setattr(torch, "compile", lambda network, **options: network)
    row = Bench(3).measure(case())
    assert row.seconds == {"ours": 2.0, "convolution": 2.0, "reference": 5.0, "compiled": 8.0}


def fail(error):
    def act(*arguments, **options):
        raise error

    return act


def test_a_network_that_cannot_be_compiled_is_noted(monkeypatch):
    monkeypatch.setattr(torch, "compile", fail(RuntimeError("no C++\n   compiler is found")))
    measuring = Bench(1)
    rows = [measuring.measure(case(batch=batch)) for batch in (1, 2)]
    assert all(row.times_as_fast_as("compiled") is None and row.times_as_fast_as("reference") for row in rows)
    assert measuring.notes == ["torch.compile was left out: RuntimeError: no C++ compiler is found"]


def test_what_does_not_fit_into_the_memory_is_noted(monkeypatch):
    monkeypatch.setattr(bench, "choose_fastest", fail(MemoryError("300 GB")))
    measuring = Bench(1, compiles=False)
    row = measuring.measure(case())
    assert row.times_convolution is None and row.times_as_fast_as("reference")
    assert "convolution was left out: MemoryError: 300 GB" in measuring.notes


def test_other_failures_are_not_hidden(monkeypatch):
    monkeypatch.setattr(bench, "choose_fastest", fail(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        Bench(1, compiles=False).measure(case())


def test_emulation_on_a_cpu_is_noted():
    measuring = Bench(1, compiles=False)
    measuring.measure(case())
    assert bench.EMULATED not in measuring.notes
    measuring.measure(case(precision="fp16"))
    assert bench.EMULATED in measuring.notes


def test_maps_are_noise_of_which_a_smaller_batch_has_the_first():
    maps = make_noise(case(batch=40, size=32))
    assert maps.shape == (40, 1, 32, 32) and maps.dtype == torch.float32
    assert abs(float(maps.mean())) < 0.02 and abs(float(maps.std()) - 1) < 0.02
    assert torch.equal(make_noise(case(batch=2, size=32)), maps[:2])


def test_every_case_is_planned_with_each_devices_own_batches(monkeypatch):
    monkeypatch.setattr(bench, "select_operations", lambda device, precision: None)
    cases = plan([ONE, TWO, ONE], ["cpu", "cuda"], None, 16, ["float32", "bf16"])
    batches = [("cpu", 1), ("cpu", 32), ("cuda", 1), ("cuda", 256)]
    expected = [(s, d, n, p) for s in (ONE, TWO) for d, n in batches for p in ("float32", "bf16")]
    assert [(str(c.architecture), c.device, c.batch, c.precision) for c in cases] == expected
    assert [c.batch for c in plan([ONE], ["cpu"], [3, 2, 3], 16, ["float32"])] == [3, 2]


@pytest.mark.parametrize(
    "changed, error, message",
    [
        ({"stages": ["8F3-Foo"]}, ArchitectureError, "cannot read 'Foo' at position 5"),
        ({"size": 5}, ArchitectureError, "PA4/2 in stage 1 needs maps of at least 4×4, but 3×3 came in"),
        ({"size": 0}, ArchitectureError, "needs maps of at least 3×3"),
        ({"batches": [4, 0]}, UsageError, "a batch holds at least 1 image, not 0"),
        ({"precisions": ["float32", "double"]}, UsageError, "unknown precision 'double': it is float32, tf32"),
    ],
)
def test_mistakes_are_found_before_anything_is_measured(changed, error, message):
    asked = {"stages": [ONE], "devices": ["cpu"], "batches": [1], "size": 16, "precisions": ["float32"]} | changed
    with pytest.raises(error, match=message):
        plan(**asked)


def test_a_median_of_nothing_is_refused():
    with pytest.raises(UsageError, match="at least 1 run, not 0"):
        Bench(0)


def test_auto_measures_every_device_that_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_devices("auto") == ["cpu", "cuda"]
    assert find_devices("cuda") == ["cuda"]
    assert find_devices("cpu") == ["cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_devices("auto") == ["cpu"]
    with pytest.raises(DeviceError, match="torch finds no CUDA device"):
        find_devices("cuda")


MEGABYTE = 2**20


@LINUX
def test_the_peak_of_a_call_is_what_it_held_at_once():
    def act():
        for _ in range(3):
            np.ones(40 * MEGABYTE, np.uint8)
        return "done"

    value, peak = measure_peak(CPU, act)
    assert value == "done"
    # The kernel counts pages per processor, and tells their sum to within a few hundred kB.
    assert 38 * MEGABYTE <= peak < 80 * MEGABYTE
    assert measure_peak(CPU, lambda: None)[1] < 10 * MEGABYTE


@LINUX
def test_memory_that_the_allocator_has_kept_counts():
    block = np.ones(20 * MEGABYTE, np.uint8)
    pieces = [np.ones(10_000, np.uint8) for _ in range(4000)]  # too small to go back to the system one by one
    del pieces
    _, peak = measure_peak(CPU, lambda: [np.ones(10_000, np.uint8) for _ in range(4000)])
    assert peak > 35 * MEGABYTE
    del block


@LINUX
def test_the_peak_of_extraction_holds_its_largest_maps():
    row = Bench(1, compiles=False).measure(case("64F3-Rabs-N-PA4/2", 1, 400))
    assert 4 * 64 * 398 * 398 <= row.peak_bytes < 10 * 4 * 64 * 398 * 398


def test_a_system_that_does_not_tell_gives_no_peak(monkeypatch, tmp_path):
    monkeypatch.setattr(peak_memory, "PROCESS", tmp_path / "nowhere")
    assert measure_peak(CPU, lambda: 3) == (3, None)
    monkeypatch.setattr(peak_memory, "PROCESS", tmp_path)
    (tmp_path / "status").write_text("Name:\tpython\n")
    assert measure_peak(CPU, lambda: 3) == (3, None)
    assert (tmp_path / "clear_refs").read_text() == "5"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert measure_peak(CPU, lambda: 3) == (3, None)


def test_a_peak_is_read_as_linux_writes_it(monkeypatch, tmp_path):
    monkeypatch.setattr(peak_memory, "PROCESS", tmp_path)
    status = "VmPeak:\t  9999 kB\nVmHWM:\t   {} kB\nVmRSS:\t   100 kB\n"
    (tmp_path / "status").write_text(status.format(100))
    _, peak = measure_peak(CPU, lambda: (tmp_path / "status").write_text(status.format(350)))
    assert peak == (250 * 1024 if sys.platform == "linux" else None)


def test_the_machine_is_named():
    machine = {
        **{"cpu": "A chip", "cores": 8, "threads": 4, "gpu": "A card", "cuda": "13.0", "driver": "580.1"},
        **{"versions": {"torch": "2.9", "featbench": "0.1"}, "python": "3.12", "commit": "0123456789ab", "dirty": True},
    }
    assert format_machine(machine) == [
        "A chip, 8 cores; 4 threads",
        "A card; driver 580.1, CUDA 13.0",
        "torch 2.9, Python 3.12, featbench 0.1 (0123456789, edited)",
    ]
    bare = machine | {"gpu": None, "commit": None}
    assert format_machine(bare) == ["A chip, 8 cores; 4 threads", "torch 2.9, Python 3.12, featbench 0.1"]
    assert set(machine) <= set(bench.describe_machine())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision, bound", [("float32", 1e-5), ("tf32", 1e-2), ("bf16", 4 * 2**-8), ("fp16", 1e-2)])
def test_a_gpu_is_measured_in_every_precision(precision, bound):
    measuring = Bench(2, compiles=False)
    row = measuring.measure(case(TWO, 3, 32, precision, "cuda"))
    assert set(row.seconds) == {"ours", "convolution", "reference"}
    assert row.error < bound
    assert row.peak_bytes >= 4 * 3 * 32 * 32
    assert measuring.notes == [bench.NOT_COMPILED]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_torch_has_the_precision_of_the_case_and_its_own_after_it():
    before = torch.backends.cudnn.allow_tf32
    for precision, half in (("float32", None), ("tf32", None), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        with plain_torch(case(precision=precision, device="cuda")):
            assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")
            assert torch.is_autocast_enabled("cuda") == (half is not None)
            assert half in (None, torch.get_autocast_dtype("cuda"))
    assert torch.backends.cudnn.allow_tf32 == before
