"""A network as it is trained: its modules joined where a device has one operation for several of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.dropout import _DropoutNd

from featbench.operations.fused_network import split_into_chains
from featbench.operations.precision import HALF_DTYPES, Precision
from featbench.refinement.host_stage import PooledResponse
from featbench.stages.encoders import FilterBank, TanhGain
from featbench.stages.normalization import LocalNormalisation
from featbench.stages.pooling import Pooling
from featbench.stages.specs import PoolingSpec
from featbench.stages.stage import MultiStage, Rectification

Step = Callable[[Tensor], Tensor]

PER_IMAGE_PACKAGES = ("featbench.", "torch.nn.modules.")
"""Where the modules come from that treat each image by itself and keep nothing of a call, but for `NOT_PER_IMAGE`."""

NOT_PER_IMAGE = (
    *(_NormBase, _DropoutNd, nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d),
    *(nn.RNNBase, nn.MultiheadAttention),
)
"""Modules of torch that look at the whole batch or remember it, or draw from the generator that all threads share."""


class TrainedNetwork:
    """Computes what `network` does, so that autograd follows: [n, ...] to features [n, d], float32.

    On a CPU, filter bank, tanh with gain, R_abs, N and average pooling are one operation (`PooledResponse`). On CUDA in
    tf32, bf16 or fp16, filter banks multiply in that precision, and all else is float32. Modules of other packages
    compute in bf16 or fp16 as autocast decides; in tf32 their convolutions round, and their matrix products do not.

    Parameters are read at each call: an optimizer may change them in between.
    """

    def __init__(self, network: nn.Module, device: torch.device, precision: Precision = "float32") -> None:
        self.network, self.device, self.precision = network, device, precision
        self._chains = [self._make_steps(chain) for chain in split_into_chains(network)]

    def __call__(self, x: Tensor) -> Tensor:
        """Return the features of maps x [n, ...]."""
        rows: list[Tensor] = []
        for chain in self._chains:
            for step in chain:
                x = step(x)
            # A copy in rows for the features; the next chain goes on from the maps themselves.
            rows.append(x.float().flatten(1))
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)

    @property
    def is_per_image(self) -> bool:
        """Whether the network treats each image by itself, so that threads may share it and divide a batch."""
        # A module of a plugin may do anything; it is run by one thread, on whole batches.
        return all(
            type(module).__module__.startswith(PER_IMAGE_PACKAGES) and not isinstance(module, NOT_PER_IMAGE)
            for module in self.network.modules()
        )

    @property
    def has_batch_statistics(self) -> bool:
        """Whether the features of an image depend on the images that are computed with it."""
        return any(isinstance(module, _BatchNorm) for module in self.network.modules())

    def set_precision(self) -> AbstractContextManager[None]:
        """Let convolutions on CUDA round to TF32 inside the context if that is asked for, and only then.

        Left alone, torch rounds them even in float32. The flag belongs to the process, and not to the thread, so it is
        set around forward and backward pass alike and given back after them.
        """
        if self.device.type != "cuda":
            return nullcontext()
        cudnn = torch.backends.cudnn
        # `flags` sets all four: the others are passed as they are.
        flags = {"enabled": cudnn.enabled, "benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
        return cudnn.flags(**flags, allow_tf32=self.precision == "tf32")

    def _make_steps(self, modules: list[nn.Module]) -> list[Step]:
        steps: list[Step] = []
        while modules:
            step, modules = self._make_first_step(modules)
            steps.append(step)
        return steps

    def _make_first_step(self, modules: list[nn.Module]) -> tuple[Step, list[nn.Module]]:
        """Join the first modules where the device has an operation for them; return the step and the other modules."""
        if self.device.type == "cpu" and (joined := _join_pooled_response(modules)):
            return joined
        first, *rest = modules
        if isinstance(first, MultiStage):
            # Several stages' features inside a longer network: its stages are joined like those at the top.
            return TrainedNetwork(first, self.device, self.precision), rest
        return (self._in_precision(first) if self.device.type == "cuda" else first), rest

    def _in_precision(self, module: nn.Module) -> Step:
        """Return the step that runs a module in the precision asked for."""
        # N squares and divides, and shrinkage compares with thresholds: in half precision they lose what filter banks,
        # whose sums are float32 inside the multiplication, keep. So of our modules only filter banks are rounded.
        if type(module).__module__.startswith("featbench.") and not isinstance(module, FilterBank):
            return module

        def step(x: Tensor) -> Tensor:
            with _make_autocast(self.precision):
                y: Tensor = module(x)
            return y.float()

        return step


def _join_pooled_response(modules: list[nn.Module]) -> tuple[Step, list[nn.Module]] | None:
    """Join a filter bank with tanh, R_abs, N and average pooling; None where the first modules are not these.

    R_abs and N may be absent. The other modules are returned with the step.
    """
    match modules:
        case [FilterBank() as bank, TanhGain() as tanh, *rest]:
            # In this order alone: N before R_abs, or maximum pooling, has another backward pass than the joined one.
            rectified = bool(rest) and isinstance(rest[0], Rectification)
            rest = rest[1:] if rectified else rest
            norm = rest[0] if rest and isinstance(rest[0], LocalNormalisation) else None
            rest = rest if norm is None else rest[1:]
            if rest and isinstance(rest[0], Pooling) and _averages_over_space(rest[0].spec):
                return PooledResponse(bank, tanh, rectified, norm, rest[0].spec), rest[1:]
    return None


def _averages_over_space(spec: PoolingSpec) -> bool:
    return spec.kind == "A" and not spec.over_maps


def _make_autocast(precision: Precision) -> torch.autocast | nullcontext[None]:
    if precision in HALF_DTYPES:
        return torch.autocast("cuda", dtype=HALF_DTYPES[precision])
    return nullcontext()
