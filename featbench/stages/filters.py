"""Filters: what a learner returns for one filter bank, and the bank that it is asked to fill."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Bank:
    """The bank that a learner is asked to fill.

    Parameters
    ----------
    filters : int
        Number of filters. Where a bank has a connection table, a learner is asked for one group of it at a time, and
        this is the number of filters of the group.
    size : int
        Side of a filter in pixels; filters are square.
    fan_in : int
        Number of input maps that each filter sees.

    Attributes
    ----------
    shape : tuple of int
        Shape of the weight: (filters, fan_in, size, size).
    """

    filters: int
    size: int
    fan_in: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the weight: (filters, fan_in, size, size)."""
        return self.filters, self.fan_in, self.size, self.size


@dataclass(frozen=True)
class Filters:
    """Filters, with the parameters of their encoder: y_j = g_j tanh(b_j + Σ_i w_ji ∗ x_i).

    Parameters
    ----------
    weight : Tensor
        The filters w [filters, fan_in, size, size], floating point.
    gain : Tensor, default ones
        The gain g of each filter [filters].
    bias : Tensor, default zeros
        The bias b of each filter [filters].
    extras : mapping of str to Tensor, default {}
        Whatever else is to be kept with the filters, by name: a decoder, thresholds, a whitening matrix. Every tensor
        has at least one side, and its first side runs over filters or groups of filters.

    Notes
    -----
    Filters are learned group by group where a bank has a connection table. The tensors of all groups are then joined
    along their first side, those of `extras` too.

    References
    ----------
    Jarrett, Kavukcuoglu, Ranzato, LeCun 2009, "What is the best multi-stage architecture for object recognition?",
    eq. 1: F_CSG, convolution, tanh and gain.
    """

    weight: Tensor
    gain: Tensor = field(default_factory=lambda: torch.empty(0))
    bias: Tensor = field(default_factory=lambda: torch.empty(0))
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # The dataclass is frozen: what was left open can only be filled in past its guard.
        count = self.weight.shape[0]
        if self.gain.numel() == 0:
            object.__setattr__(self, "gain", self.weight.new_ones(count))
        if self.bias.numel() == 0:
            object.__setattr__(self, "bias", self.weight.new_zeros(count))

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor by name, extras included, as the store keeps them.

        Returns
        -------
        dict of str to Tensor
            `weight`, `gain`, `bias`, and the extras under their own names.
        """
        return {"weight": self.weight, "gain": self.gain, "bias": self.bias, **self.extras}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Filters:
        """Rebuild filters from what `tensors` returned.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            `weight`, `gain` and `bias`; all other names become extras.

        Returns
        -------
        Filters
            The filters with these tensors, not copied.
        """
        extras = {name: tensor for name, tensor in tensors.items() if name not in ("weight", "gain", "bias")}
        return cls(tensors["weight"], tensors["gain"], tensors["bias"], extras)

    @classmethod
    def concatenate(cls, groups: list[Filters]) -> Filters:
        """Join the filters of the groups of a connection table.

        Parameters
        ----------
        groups : list of Filters
            The filters of each group, in the order of the table, all with extras of the same names.

        Returns
        -------
        Filters
            All of them in order, every tensor joined along its first side.
        """
        tensors = [group.tensors() for group in groups]
        return cls.from_tensors({name: torch.cat([group[name] for group in tensors]) for name in tensors[0]})

    def find_problem(self, bank: Bank) -> str | None:
        """Return how these filters break the contract for a bank.

        Parameters
        ----------
        bank : Bank
            What the learner was asked for.

        Returns
        -------
        str or None
            The first problem found, in words; None where there is none.
        """
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
