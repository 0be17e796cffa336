import json
import re

import pytest
import torch

from featbench.speed.bench import EMULATED, NOT_COMPILED, Bench

KEYS = [
    *("architecture", "device", "precision", "batch", "size", "images_per_second", "gigabytes_per_second"),
    *("times_convolution", "times_reference", "times_compiled", "peak_bytes", "error", "milliseconds"),
]

ONE, TWO = "8F3-Rabs-N-PA4/2", "8F3-Rabs-N-PA4/2 > 16F3:4-Rabs-PM2"


@pytest.fixture
def measure(run):
    """Call `featbench bench` on maps of 16×16, one run of each."""

    def measure(*options, stages=ONE):
        little = ["--stages", stages, "--size", "16", "--batch", "1,3", "--repeats", "1", "--no-compile"]
        return run("bench", *little, "--device", "cpu", *options)

    return measure


def test_json_has_a_row_for_every_case(measure):
    ran = measure("--json", "--stages", TWO, "--precision", "float32,bf16")
    assert ran.code == 0
    rows = ran.rows
    cases = [(row["architecture"], row["batch"], row["precision"]) for row in rows]
    assert cases == [(s, n, p) for s in (ONE, TWO) for n in (1, 3) for p in ("float32", "bf16")]
    for row in rows:
        assert list(row) == KEYS
        assert (row["device"], row["size"]) == ("cpu", 16)
        times = row["milliseconds"]
        assert list(times) == ["ours", "convolution", "reference", "compiled"]
        assert row["images_per_second"] == pytest.approx(1e3 * row["batch"] / times["ours"])
        assert row["times_convolution"] == pytest.approx(times["ours"] / times["convolution"])
        assert row["times_reference"] == pytest.approx(times["reference"] / times["ours"])
        assert row["times_compiled"] is None and times["compiled"] is None
        assert 0 < row["error"] < (1e-5 if row["precision"] == "float32" else 4 * 2**-8)
    assert EMULATED in ran.err and NOT_COMPILED in ran.err


def test_the_table_has_a_line_for_every_case(measure):
    ran = measure("--stages", TWO)
    assert ran.code == 0
    lines = ran.out.splitlines()
    header = re.split(r" {2,}", lines[0])
    assert header == [
        *("architecture", "device", "precision", "batch", "images/s", "ms/image", "GB/s"),
        *("× convolution", "× reference", "× compiled", "peak memory", "error"),
    ]
    assert lines[6] == "" and [line.startswith((ONE, TWO)) for line in lines[2:6]] == [True] * 4
    cells = re.split(r" {2,}", lines[2])
    assert cells[:4] == [ONE, "cpu", "float32", "1"]
    assert float(cells[4]) * float(cells[5]) == pytest.approx(1000, rel=0.01)
    for said in ("images/s, ms/image:", "× convolution:", "peak memory", "error:", NOT_COMPILED, "torch ", "cores"):
        assert said in ran.out


def test_progress_and_the_device_are_on_stderr_unless_quiet(measure):
    ran = measure()
    assert ran.err.startswith("device: cpu\n")
    assert f"[2/2] {ONE} on cpu in float32, batch 3: " in ran.err
    assert measure("--quiet", "--json").err == ""


def test_the_table_may_go_to_a_file(measure, tmp_path):
    ran = measure("--json", "--output", tmp_path / "rows.json")
    assert (ran.code, ran.out) == (0, "")
    assert [row["batch"] for row in json.loads((tmp_path / "rows.json").read_text("utf-8"))] == [1, 3]
    assert f"wrote {tmp_path / 'rows.json'}" in ran.err


def test_both_devices_are_reported_where_there_are_two(run, monkeypatch):
    monkeypatch.setattr("featbench.speed.bench.find_devices", lambda name: ["cpu", "cuda"])
    monkeypatch.setattr("featbench.speed.bench.plan", lambda *asked: [])
    assert run("bench", "--json").err.startswith("device: cpu and cuda (auto: a CUDA device was found)\n")


def test_what_compiling_fails_with_is_printed_below_the_table(run, monkeypatch):
    def compile(network, **options):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", compile)
    ran = run("bench", "--stages", ONE, "--size", "16", "--batch", "2", "--repeats", "1", "--device", "cpu")
    assert ran.code == 0
    assert ran.out.splitlines()[2].startswith(ONE)
    assert "torch.compile was left out: RuntimeError: no compiler" in ran.out


@pytest.mark.parametrize("form, rows", [(["--json"], '"batch": 1,'), ([], f"{ONE}  cpu")])
def test_rows_that_were_finished_are_printed_when_interrupted(measure, monkeypatch, form, rows):
    real = Bench.measure

    def measure_one(self, case):
        if case.batch == 3:
            raise KeyboardInterrupt
        return real(self, case)

    monkeypatch.setattr(Bench, "measure", measure_one)
    ran = measure(*form)
    assert ran.code == 130
    assert ran.out.count(rows) == 1
    assert "interrupted; 1 of 2 rows were measured" in ran.err


@pytest.mark.parametrize(
    "options, message",
    [
        (["--stages", "8F3-Foo"], "cannot read 'Foo' at position 5 of '8F3-Foo'"),
        (["--stages", "8F20"], "8F20 in stage 1 needs maps of at least 20×20, but 16×16 came in"),
        (["--batch", "1,0"], "a batch holds at least 1 image, not 0"),
        (["--batch", "1,-2"], "cannot read --batch '1,-2': write whole numbers, such as 1,32"),
        (["--batch", ""], "cannot read --batch ''"),
        (["--repeats", "0"], "at least 1 run, not 0"),
        (["--precision", "float32,double"], "unknown precision 'double': it is float32, tf32, bf16, fp16"),
        (["--precision", ","], "--precision is empty: give at least one name"),
        (["--device", "tpu"], "unknown device 'tpu': it is auto, cpu or cuda"),
        (["--size", "wide"], "invalid int value: 'wide'"),
        (["--output", "nowhere/rows.json"], "there is no folder nowhere"),
    ],
)
def test_mistakes_are_reported_before_anything_is_measured(measure, monkeypatch, options, message):
    monkeypatch.setattr(Bench, "measure", lambda self, case: pytest.fail("it was measured"))
    ran = measure(*options)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
