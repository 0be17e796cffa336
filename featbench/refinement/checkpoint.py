"""Checkpoints: what is written of training while it lasts, so that a killed run goes on where it was."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from featbench.refinement.training_state import Document, TrainingState

log = logging.getLogger("featbench")

FORMAT = 2
"""Version of what is written. Checkpoints of format 1, which did not name their version, are not read any more."""

Arrays = dict[str, NDArray[Any]]

Tensors = dict[str, Tensor]


class Checkpoint(Protocol):
    """Where the latest snapshot of training is kept while it lasts: arrays by name, and a JSON object beside them."""

    def read(self) -> tuple[Arrays, Document] | None:
        """Return what was kept last.

        Returns
        -------
        tuple of (dict of str to ndarray, dict) or None
            The arrays by name, and the JSON object beside them; None if nothing was kept.
        """

    def write(self, arrays: Arrays, document: Mapping[str, Any]) -> None:
        """Keep arrays and a JSON object in place of what was kept, both or neither.

        Parameters
        ----------
        arrays : dict of str to ndarray
            The arrays by name.
        document : Mapping
            What is known of them, as JSON.
        """


class NoCheckpoint:
    """Keeps nothing: what is killed starts again."""

    def read(self) -> None:
        """Return None."""

    def write(self, arrays: Arrays, document: Mapping[str, Any]) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Snapshot:
    """All that training needs to go on with the same bits.

    state: how far it is. network, layer: parameters and buffers of the extractor and of the classifier layer.
    best_network: those of the extractor with the best validation score. optimizer: of each parameter, by its number,
    the tensors that the optimizer keeps (momentum; for AdamW two moments and a count of steps).
    """

    state: TrainingState
    network: Tensors
    layer: Tensors
    best_network: Tensors = field(default_factory=dict)
    optimizer: dict[int, Tensors] = field(default_factory=dict)

    def write(self, checkpoint: Checkpoint) -> None:
        """Write the snapshot to a checkpoint, in place of the one before."""
        parts = {"network": self.network, "layer": self.layer, "best_network": self.best_network}
        parts |= {f"optimizer/{number}": tensors for number, tensors in self.optimizer.items()}
        # On the CPU and without gradients; they may share memory with training, and are written before it goes on.
        arrays = {
            f"{part}/{name}": tensor.detach().cpu().numpy()
            for part, tensors in parts.items()
            for name, tensor in tensors.items()
        }
        checkpoint.write(arrays, {"format": FORMAT, "state": self.state.to_document()})

    @classmethod
    def read(cls, checkpoint: Checkpoint) -> Snapshot | None:
        """Read the snapshot of a checkpoint; None where there is none, or none in the present format."""
        found = checkpoint.read()
        if found is None:
            return None
        arrays, document = found
        if document.get("format") != FORMAT:
            log.warning("a checkpoint of another version of featbench is not read: refinement starts at the beginning")
            return None
        # Copied: the arrays may be views of a file that the next checkpoint replaces.
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        optimizer: dict[int, Tensors] = {}
        for name, tensor in _take_part("optimizer", tensors).items():
            number, _, kind = name.partition("/")
            optimizer.setdefault(int(number), {})[kind] = tensor
        return cls(
            TrainingState.from_document(document["state"]),
            _take_part("network", tensors),
            _take_part("layer", tensors),
            _take_part("best_network", tensors),
            optimizer,
        )


def _take_part(part: str, tensors: Tensors) -> Tensors:
    prefix = f"{part}/"
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
