"""Maps of noise and networks with random filters."""

import numpy as np
import torch

from featbench.learning.networks import assemble, learn_stages
from featbench.plugins.random import Random
from featbench.stages.architecture import Architecture


def noise(*shape, seed=0):
    """Return normal numbers of a shape, float32."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()


def random_network(text, shape):
    """Return an architecture with random filters, on the CPU."""
    architecture, learner = Architecture.parse(text), Random()
    learned = learn_stages(architecture, learner, shape, None, seed=0, device=torch.device("cpu"))
    return assemble(architecture, learner, shape, learned).eval()
