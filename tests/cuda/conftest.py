"""Where there is no GPU, kernels run in Triton's interpreter; that is chosen before Triton is first imported."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture
def device():
    """Where the kernels under test run: on a GPU as compiled, elsewhere as interpreted."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def randn(device):
    """Draw normal numbers of a shape, the same on every device."""
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator).to(device)


@pytest.fixture
def error():
    """Return ‖a - b‖/‖b‖ in float64."""

    def error(a, b):
        assert a.shape == b.shape
        a, b = a.double(), b.double()
        return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b).clamp_min(1e-300))

    return error
