"""Patches of natural images, and what a learner makes of them: a dictionary and predicted codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featbench.comparison import Workbench
from featbench.data.dataset import reading
from featbench.data.image_files import folder_fingerprint
from featbench.data.maps import Preprocessing
from featbench.errors import UsageError
from featbench.experiment.request import parse_choice
from featbench.learning.learner import FilterLearner, fill_bank
from featbench.learning.patches import MapSource, PatchSource
from featbench.stages.connection_table import make_full_table
from featbench.stages.filters import Bank, Filters
from featbench.system.seeds import derive_seed, seeded

CPU = torch.device("cpu")

BLOCK = 8192
"""Patches encoded at once."""


def preprocessing(lcn: float) -> Preprocessing:
    """Return how images and frames are normalised: zero mean, unit variance, then LCN with this constant (0: none)."""
    return Preprocessing(standardise=True, lcn=lcn or None)


def sample_patches(workbench: Workbench, unlabelled: str, size: int, count: int, seed: int, lcn: float = 1.0) -> Tensor:
    """Return `count` patches [n, size, size] of images, grey and normalised; flat ones are left out."""
    maps = workbench.steps.pool(unlabelled, preprocessing(lcn))
    source = PatchSource(MapSource(maps, nn.Identity(), CPU), size, derive_seed(seed, "study", "patches"))
    return source.sample(count)[:, 0]


def fingerprint(workbench: Workbench, unlabelled: str) -> dict[str, str]:
    """Return the fingerprint of unlabelled images by their name: a data set's, or their folder's."""
    if unlabelled in workbench.registry.names("datasets"):
        with reading(unlabelled):
            return {unlabelled: workbench.registry.dataset(unlabelled).fingerprint(workbench.data_dir)}
    return {Path(unlabelled).name: folder_fingerprint(Path(unlabelled))}


def centred(patches: Tensor) -> Tensor:
    """Return patches as rows [n, d], each less its mean."""
    rows = patches.flatten(1)
    return rows - rows.mean(dim=1, keepdim=True)


def create_learner(workbench: Workbench, text: str, **changes: Any) -> FilterLearner:
    """Return the filter learner that a user's text names, as psd(lam=0.5), with some parameters changed."""
    choice = parse_choice(text, workbench.registry)
    learner = workbench.registry.learner(choice.name).create({**dict(choice.parameters), **changes})
    if not isinstance(learner, FilterLearner):
        raise UsageError(f"{choice.name} learns no filters: name a learner that does, as psd")
    return learner


def learn(learner: FilterLearner, rows: Tensor, size: int, maps: int, seed: int) -> Filters:
    """Return the filters that give `maps` maps, learned on patches that are rows [n, size²]."""
    bank = Bank(maps, size, 1)
    reason = learner.refusal(bank)
    if reason:
        raise UsageError(f"{learner.name}: {reason}")
    images = rows.view(-1, 1, size, size)
    source = PatchSource(MapSource(images, nn.Identity(), CPU), size, derive_seed(seed, "study", "learn"))
    with seeded(derive_seed(seed, "study", "filters")):
        return fill_bank(learner, bank, source, derive_seed(seed, "study", "filters"))


def atoms_of(learner: FilterLearner, filters: Filters) -> Tensor:
    """Return a learner's dictionary [d, units], unit-norm atoms in its columns."""
    decoder = filters.extras.get("decoder")
    if decoder is None:
        raise UsageError(f"{learner.name} keeps no dictionary: name a learner that does, as psd")
    atoms = decoder.flatten(1).T
    norms: Tensor = atoms.norm(dim=0)
    return atoms / norms.clamp_min(1e-12)


def encoder_of(learner: FilterLearner, filters: Filters) -> nn.Module:
    """Return the learner's encoder of grey images."""
    return learner.encoder(filters, make_full_table(1)).eval()


@torch.no_grad()
def predicted_codes(encoder: nn.Module, rows: Tensor, size: int) -> Tensor:
    """Return what an encoder makes of patches that are rows [n, size²]: [n, maps]."""
    blocks = torch.split(rows.view(-1, 1, size, size), BLOCK)
    return torch.cat([encoder(block).flatten(1) for block in blocks])
