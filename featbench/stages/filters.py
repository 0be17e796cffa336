"""Filters: what a learner gives for one filter bank, and the bank it is asked to fill."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Bank:
    """The bank a learner is asked to fill: `filters` filters of `size`×`size` pixels, each over `fan_in` maps."""

    filters: int
    size: int
    fan_in: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the weight: filters, fan_in, size, size."""
        return self.filters, self.fan_in, self.size, self.size


@dataclass(frozen=True)
class Filters:
    """Filters with the parameters of their encoder g tanh(w ∗ x + b).

    weight [filters, fan_in, size, size]; gain [filters], 1 by default; bias [filters], 0 by default.
    `extras` holds whatever else a learner wants kept with them: a decoder, thresholds, a whitening matrix. The groups
    of a connection table are joined along the first side of every tensor.
    """

    weight: Tensor
    gain: Tensor = field(default_factory=lambda: torch.empty(0))
    bias: Tensor = field(default_factory=lambda: torch.empty(0))
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = self.weight.shape[0]
        if self.gain.numel() == 0:
            object.__setattr__(self, "gain", self.weight.new_ones(count))
        if self.bias.numel() == 0:
            object.__setattr__(self, "bias", self.weight.new_zeros(count))

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor by name, as an artifact stores them."""
        return {"weight": self.weight, "gain": self.gain, "bias": self.bias, **self.extras}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Filters:
        """Rebuild filters from `tensors()`."""
        extras = {name: tensor for name, tensor in tensors.items() if name not in ("weight", "gain", "bias")}
        return cls(tensors["weight"], tensors["gain"], tensors["bias"], extras)

    @classmethod
    def concatenate(cls, groups: list[Filters]) -> Filters:
        """Join the filters of the groups of a connection table, in order."""
        tensors = [group.tensors() for group in groups]
        return cls.from_tensors({name: torch.cat([group[name] for group in tensors]) for name in tensors[0]})

    def find_problem(self, bank: Bank) -> str | None:
        """Say in what these filters break the contract for `bank`, or None."""
        if tuple(self.weight.shape) != bank.shape:
            return f"weight has shape {list(self.weight.shape)}, asked was {list(bank.shape)}"
        for name, tensor in self.tensors().items():
            if name in ("gain", "bias") and tensor.shape != (bank.filters,):
                return f"{name} has shape {list(tensor.shape)}, it must be [{bank.filters}]"
            if tensor.ndim == 0:
                return f"{name} is a single number: give it as [1], so that groups can be joined"
            if not tensor.is_floating_point():
                return f"{name} has type {tensor.dtype}, it must be floating point"
            if not bool(torch.isfinite(tensor).all()):
                return f"{name} holds values that are not finite"
        return None
