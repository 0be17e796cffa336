"""The script for a machine with a card: rehearsed without one, and with parts that fail."""

import os
import re
import subprocess
import sys
from importlib import util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]

SCRIPTS = ROOT / "benchmarks"

CARD = {"card": "A card, 80GB", "driver": "580.1", "torch": "2.11", "triton": "3.6", "commit": "0123456789abcdef"}


@pytest.fixture
def on_gpu():
    """The script as a module."""
    spec = util.spec_from_file_location("on_gpu", SCRIPTS / "on_gpu.py")
    module = util.module_from_spec(spec)
    sys.modules["on_gpu"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["on_gpu"]


def test_a_rehearsal_writes_the_page_and_imports_no_mlflow(tmp_path):
    shadow = tmp_path / "shadow" / "mlflow"
    shadow.mkdir(parents=True)
    (shadow / "__init__.py").write_text("raise ImportError('mlflow is not installed on that machine')")
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(shadow.parent), "OMP_NUM_THREADS": "1"}
    environment.pop("FEATBENCH_DATA", None)
    command = [SCRIPTS / "on_gpu.sh", "refinement", "agreement", "--device", "cpu", "--output", tmp_path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (page,) = tmp_path.glob("*.md")
    assert done.stdout.splitlines()[-1] == str(page)
    text = page.read_text()
    for name in ("card", "driver", "CUDA", "torch", "triton", "Python", "processor", "commit"):
        assert re.search(rf"^\| {name} \| .+ \|$", text, re.MULTILINE), name
    assert re.findall(r"^## (.*)\n\n\*\*(.*)\*\*", text, re.MULTILINE) == [
        ("refinement", "passed"),
        ("agreement", "passed"),
    ]
    assert "### Supervised refinement, measured" in text
    # On the CPU itself float32 differs from nothing; the emulated precisions do.
    assert re.search(r"^\| digits +\| float32 +\| 0\.0e\+00 ", text, re.MULTILINE)
    assert re.search(r"^\| digits +\| bf16 +\| [1-9]\.\de-03 ", text, re.MULTILINE)


def test_a_part_that_fails_is_shown_and_the_others_go_on(on_gpu, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(on_gpu, "GRACE", 0.5)
    parts = [
        on_gpu.Part("bad", 60, ("-c", "print('boom'); raise SystemExit(3)")),
        on_gpu.Part("slow", 5, ("-c", "import time; print('begun', flush=True); time.sleep(600)")),
        on_gpu.Part("good", 60, ("-c", f"open(r'{tmp_path}/good.md', 'w').write('# Found\\n\\n42')"), result="good.md"),
        on_gpu.Part("hungry", 60, ("-c", "raise SystemExit(4)"), needs_data=True),
    ]
    names = [part.name for part in parts]
    page = on_gpu.Page.open(tmp_path / "pages", CARD, names)
    assert on_gpu.run_parts(parts, tmp_path, page, None, rehearsing=False) == 1
    assert page.path == tmp_path / "pages" / "a-card-80gb.md"
    sections = re.split(r"^## (.*)\n", page.path.read_text(), flags=re.MULTILINE)
    found = dict(zip(sections[1::2], sections[2::2], strict=True))
    assert list(found) == names
    verdicts = {name: re.search(r"\*\*(.*)\*\*", text)[1] for name, text in found.items()}
    assert verdicts == {"bad": "failed with 3", "slow": "timed out", "good": "passed", "hungry": "left out"}
    assert "~~~~text\nboom\n~~~~" in found["bad"]
    assert "begun" in found["slow"]
    assert "\n### Found\n\n42\n" in found["good"]
    assert "~~~~" not in found["good"]
    assert "commit 0123456789, " in found["good"]
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()[:-1]] == [
        f"{name}: {verdict}" for name, verdict in verdicts.items()
    ]


def test_sections_of_parts_that_are_not_run_again_are_kept(on_gpu, tmp_path):
    names = ["first", "second", "third"]
    for name, body in (("third", "three"), ("first", "one"), ("third", "III")):
        page = on_gpu.Page.open(tmp_path, CARD, names)
        page.write(name, "**passed**, 1 s", body)
    text = page.path.read_text()
    assert re.findall(r"^## (.*)$|^(one|three|III)$", text, re.MULTILINE) == [
        ("first", ""),
        ("", "one"),
        ("third", ""),
        ("", "III"),
    ]
    assert text.count("# featbench on A card, 80GB") == 1


def test_parts_for_which_no_time_is_left_are_not_run(on_gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(on_gpu, "TOTAL", 0)
    page = on_gpu.Page.open(tmp_path, CARD, ["late"])
    part = on_gpu.Part("late", 60, ("-c", f"open(r'{tmp_path}/trace', 'w')"))
    assert on_gpu.run_parts([part], tmp_path, page, None, rehearsing=False) == 1
    assert "**not run**" in page.path.read_text()
    assert not (tmp_path / "trace").exists()


def test_all_parts_together_take_at_most_eight_minutes_the_shortest_first(on_gpu):
    limits = [part.limit for part in on_gpu.list_parts("cuda", Path())]
    assert limits == sorted(limits)
    assert sum(limits) <= on_gpu.TOTAL
    # The last part may be interrupted at the very end, and starting takes a few seconds.
    assert on_gpu.TOTAL + on_gpu.GRACE + 10 <= 8 * 60


def test_without_a_card_it_ends_at_once(on_gpu, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["on_gpu.py", "--output", str(tmp_path / "pages")])
    assert on_gpu.main() == 2
    assert "torch finds no CUDA card" in capsys.readouterr().err
    assert not (tmp_path / "pages").exists()


def test_every_test_that_needs_a_card_is_run(on_gpu):
    needing = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
        if re.search(r"skipif\(not torch\.cuda\.is_available\(\)", path.read_text("utf-8"))
    }
    assert "tests/cuda/test_gpu.py" in needing
    assert {path for path in needing if not path.startswith(on_gpu.TESTS)} == set()
    assert all((ROOT / path).exists() for path in on_gpu.TESTS)


def test_packed_images_are_grey_and_as_small_as_the_protocol_sees_them(tmp_path):
    folder = Path("caltech101", "101_ObjectCategories")
    for name, sides in (("ant", (300, 200)), ("bee", (90, 120)), ("cup", (50, 50))):
        (tmp_path / folder / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 256, (*sides[::-1], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / name / f"image_{number:04}.jpg")
    command = [sys.executable, SCRIPTS / "pack.py", tmp_path / "packed", "--classes", "2", "--per-class", "2"]
    environment = {**os.environ, "FEATBENCH_DATA": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("4 images, ")
    packed = sorted((tmp_path / "packed").rglob("*.jpg"))
    assert [path.relative_to(tmp_path / "packed" / folder).as_posix() for path in packed] == [
        f"{name}/image_{number:04}.jpg" for name in ("ant", "bee") for number in range(2)
    ]
    assert [(image.mode, image.size) for image in map(Image.open, packed)] == [
        *[("L", (151, 101))] * 2,
        *[("L", (113, 151))] * 2,
    ]
