"""A network as it is trained: its modules joined where a device has one operation for several of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.dropout import _DropoutNd

from featbench.operations.fused_network import chains
from featbench.operations.precision import HALVES, Precision
from featbench.refinement.host_stage import PooledResponse
from featbench.stages.architecture import PoolingSpec
from featbench.stages.encoders import FilterBank, TanhGain
from featbench.stages.normalization import LocalNormalisation
from featbench.stages.pooling import Pooling
from featbench.stages.stage import MultiStage, Rectification

Step = Callable[[Tensor], Tensor]

KNOWN = ("featbench.", "torch.nn.modules.")
"""Where the modules come from that treat each image by itself and keep nothing of a call, but for `EXCEPT`."""

EXCEPT = (
    *(_NormBase, _DropoutNd, nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d),
    *(nn.RNNBase, nn.MultiheadAttention),
)
"""Modules of torch that look at the whole batch or remember it, or draw from the numbers that all threads share."""


class TrainedNetwork:
    """Computes what `network` does, so that autograd follows: [n, ...] to features [n, d], float32.

    On a CPU, filter bank, tanh with gain, R_abs, N and average pooling are one operation. On CUDA in tf32, bf16 or
    fp16 filter banks multiply in that, and all else is float32; modules that are not known compute in it throughout,
    but for products of matrices in tf32.
    """

    def __init__(self, network: nn.Module, device: torch.device, precision: Precision = "float32") -> None:
        self.network, self.device, self.precision = network, device, precision
        self._chains = [self._steps(chain) for chain in chains(network)]

    def __call__(self, x: Tensor) -> Tensor:
        """Return the features of maps x [n, ...]."""
        rows: list[Tensor] = []
        for chain in self._chains:
            for step in chain:
                x = step(x)
            rows.append(x.float().flatten(1))
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)

    @property
    def by_image(self) -> bool:
        """Whether images do not touch one another, and threads may share the network."""
        return all(
            type(module).__module__.startswith(KNOWN) and not isinstance(module, EXCEPT)
            for module in self.network.modules()
        )

    @property
    def sees_batch(self) -> bool:
        """Whether what an image gives depends on those that are computed with it."""
        return any(isinstance(module, _BatchNorm) for module in self.network.modules())

    def arithmetic(self) -> AbstractContextManager[None]:
        """Return what to compute in, there and back: on CUDA torch lets convolutions round to TF32 unless told not to.

        There it belongs to the process, not to the thread.
        """
        if self.device.type != "cuda":
            return nullcontext()
        cudnn = torch.backends.cudnn
        flags = {"enabled": cudnn.enabled, "benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
        return cudnn.flags(**flags, allow_tf32=self.precision == "tf32")

    def _steps(self, modules: list[nn.Module]) -> list[Step]:
        steps: list[Step] = []
        while modules:
            step, modules = self._next(modules)
            steps.append(step)
        return steps

    def _next(self, modules: list[nn.Module]) -> tuple[Step, list[nn.Module]]:
        """Join the first modules, and return what is left."""
        if self.device.type == "cpu" and (joined := _pooled_response(modules)):
            return joined
        first, *rest = modules
        if isinstance(first, MultiStage):
            return TrainedNetwork(first, self.device, self.precision), rest
        return (self._multiplied(first) if self.device.type == "cuda" else first), rest

    def _multiplied(self, module: nn.Module) -> Step:
        """Run a module that multiplies in the precision asked for."""
        if type(module).__module__.startswith("featbench.") and not isinstance(module, FilterBank):
            return module

        def step(x: Tensor) -> Tensor:
            with _multiplying(self.precision):
                y: Tensor = module(x)
            return y.float()

        return step


def _pooled_response(modules: list[nn.Module]) -> tuple[Step, list[nn.Module]] | None:
    """Join a filter bank with tanh, what follows it, and average pooling; None where that is not what comes first."""
    match modules:
        case [FilterBank() as bank, TanhGain() as tanh, *rest]:
            rectified = bool(rest) and isinstance(rest[0], Rectification)
            rest = rest[1:] if rectified else rest
            norm = rest[0] if rest and isinstance(rest[0], LocalNormalisation) else None
            rest = rest if norm is None else rest[1:]
            if rest and isinstance(rest[0], Pooling) and _averages(rest[0].spec):
                return PooledResponse(bank, tanh, rectified, norm, rest[0].spec), rest[1:]
    return None


def _averages(spec: PoolingSpec) -> bool:
    return spec.kind == "A" and not spec.over_maps


def _multiplying(precision: Precision) -> torch.autocast | nullcontext[None]:
    if precision in HALVES:
        return torch.autocast("cuda", dtype=HALVES[precision])
    return nullcontext()
