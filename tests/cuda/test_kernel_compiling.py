"""The interpreter takes what the compiler refuses: every kernel is compiled for a GPU here, which need not be there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="the kernels need triton")

EVERY_KERNEL = """
_accelerate _activate _centre _convolve _descend _describe _deviate _find_floor _measure _normalise _pool
_reduce_moments _shrink
"""


def test_the_compiler_takes_every_kernel(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("compile_kernels.py"))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.split() == EVERY_KERNEL.split()
