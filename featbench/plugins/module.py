"""Any torch module as an extractor: a class or a function of the user's file, with weights from another file."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from featbench.errors import PluginError, UnknownNameError, UsageError
from featbench.evaluation.regimes import Family
from featbench.hookspecs import hookimpl
from featbench.learning.learner import FeatureLearner, NetworkLearner
from featbench.learning.patches import MapSource
from featbench.learning.trial import (
    attribute_errors,
    compute_trial_features,
    describe_error,
    make_random_maps,
    try_network,
    try_rebuilt,
)
from featbench.stages.specs import Shape
from featbench.system.seeds import derive_seed, seeded
from featbench.system.source_files import find_helpers, import_file
from featbench.system.user_files import expand_user


class RepeatedMap(nn.Module):
    """Gives `network` its one map `channels` times over: grey images for a network made for RGB."""

    def __init__(self, network: nn.Module, channels: int) -> None:
        super().__init__()
        self.network, self.channels = network, channels

    def forward(self, x: Tensor) -> Any:
        """Run the network on x [n, 1, height, width] as [n, channels, height, width]."""
        return self.network(x.repeat(1, self.channels, 1, 1))


@dataclass(frozen=True)
class Module(NetworkLearner):
    """A network of the user's own, as it comes out of its constructor or with weights from a file.

    file: a Python file. net: a class in it, or a function, that gives a `torch.nn.Module` without being given anything.
    weights: a .safetensors file, or a .pt or .pth file that holds a `state_dict` and nothing else; without it the
    constructor's weights stay, drawn under the learner's seed. channels: copies of the grey map that it is given.
    The module takes maps [n, channels, height, width] to [n, d] or [n, maps, height, width], float32.
    """

    name: ClassVar[str] = "module"
    seed_bits: ClassVar[int] = 63  # for user modules that draw from Python's own generator
    family: ClassVar[Family] = "fixed"

    file: str = ""
    net: str = ""
    weights: str = ""
    channels: int = 1

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ValueError(f"channels must be at least 1, not {self.channels}")

    def files(self) -> tuple[Path, ...]:
        """Return the files of module and weights that exist, and those that the module imports from its own folder.

        `refusal` reports one that is missing.
        """
        named = [path for path in map(expand_user, filter(None, (self.file, self.weights))) if path.is_file()]
        helpers = [one for path in named if path.suffix == ".py" for one in find_helpers(path, path.read_bytes())]
        return (*named, *(one.path for one in sorted(helpers, key=lambda one: one.name)))

    def refusal(self, shape: Shape) -> str | None:
        """Say what is wrong with the files, the module, the weights or the features that it gives, or None."""
        return _find_refusal(lambda: self._try(self.network(shape, None, 0), shape))

    def refinement_refusal(self, shape: Shape) -> str | None:
        """Say why no gradient reaches the module's parameters, or None."""
        return _find_refusal(lambda: require_gradient(self._who, self.network(shape, None, 0), shape))

    def network(self, shape: Shape, maps: MapSource | None, seed: int) -> nn.Module:
        """Return the module; a `UsageError` says why it cannot be built."""
        network = self._build(shape, seed)
        if self.weights:
            load_weights(self._who, network, expand_user(self.weights))
        return self._repeat_map(network)

    def rebuild(self, shape: Shape, state: Mapping[str, Tensor]) -> nn.Module:
        """Build the module again and give it its state."""
        network = self._repeat_map(self._build(shape, derive_seed(0, "rebuild")))
        network.load_state_dict(state)
        return network

    def _try(self, network: nn.Module, shape: Shape) -> None:
        # As any learner's network is tried once it is there. Here it costs so little that it is done before.
        features = try_network(self._who, network, shape)
        try_rebuilt(self._who, self.rebuild(shape, network.state_dict()), shape, features)

    @property
    def _who(self) -> str:
        return f"{self.net} of {self.file}"

    def _build(self, shape: Shape, seed: int) -> nn.Module:
        if not self.file or not self.net:
            raise UsageError(
                "module stands for a network of your own: name its file and its class, as in "
                "module(file=backbone.py,net=Backbone), and weights=FILE if it has some"
            )
        if self.channels > 1 and shape[0] != 1:
            raise UsageError(f"channels={self.channels} copies one map, and {shape[0]} come in")
        maker = find_maker(import_user_file(expand_user(self.file)), self.net, self.file)
        with seeded(seed), attribute_errors(f"{self.net}() of {self.file}"):
            network = maker()
        if not isinstance(network, nn.Module):
            raise UsageError(f"{self._who} gives a {type(network).__name__}, not a torch.nn.Module")
        if any(nn.parameter.is_lazy(one) for one in network.state_dict().values()):
            raise UsageError(f"{self._who} has lazy modules, which have no weights yet: give them their sizes")
        return network

    def _repeat_map(self, network: nn.Module) -> nn.Module:
        return network if self.channels == 1 else RepeatedMap(network, self.channels)


def import_user_file(path: Path) -> ModuleType:
    """Import a Python file, once for each content that it has; an error says why it cannot be imported."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    if path.suffix != ".py":
        raise UsageError(f"{path} is not a Python file (.py)")
    with attribute_errors(f"importing {path}"):
        # The network is built several times for a cell, and again for every other: its file runs once.
        return import_file(path, reuse=True)


def find_maker(module: ModuleType, net: str, file: str) -> Callable[[], object]:
    """Return the class or the function of this name."""
    maker = getattr(module, net, None)
    if isinstance(maker, nn.Module):
        raise UsageError(f"{net} of {file} is a module already: name its class, or a function that gives it")
    if not callable(maker):
        public = {name: thing for name, thing in vars(module).items() if callable(thing) and not name.startswith("_")}
        own = [name for name, thing in public.items() if getattr(thing, "__module__", None) == module.__name__]
        raise UnknownNameError("net", net, own or ["none"], f"; in {file}")
    return maker  # type: ignore[no-any-return]


def load_weights(who: str, network: nn.Module, path: Path) -> None:
    """Give a module the weights of a file; a `UsageError` names what does not fit."""
    weights, expected = read_weights(path), network.state_dict()
    shapes = {name: (list(weights[name].shape), list(expected[name].shape)) for name in weights if name in expected}
    misfits = {
        "missing": [name for name in expected if name not in weights],
        "unexpected": [name for name in weights if name not in expected],
        "of another shape": [
            f"{name} {found}, not {wanted}" for name, (found, wanted) in shapes.items() if found != wanted
        ],
    }
    if any(misfits.values()):
        said = "; ".join(f"{kind}: {_list_first(names)}" for kind, names in misfits.items() if names)
        raise UsageError(f"the weights of {path} do not fit {who}: {said}")
    network.load_state_dict(weights)


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """Read named tensors from a file; `UsageError` if it holds anything else. No code in a pickle is run."""
    if path.suffix not in (".safetensors", ".pt", ".pth"):
        raise UsageError(f"weights are read from .safetensors, .pt and .pth files, and {path} is not one of these")
    if not path.is_file():
        raise UsageError(f"there is no weights file {path}")
    try:
        safe = path.suffix == ".safetensors"
        # weights_only: a pickle may run any code, and this refuses all but tensors in plain containers.
        weights = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path} is damaged, or holds more than tensors, which could run code and is not read: "
            "save net.state_dict() in it"
        ) from error
    except Exception as error:  # each library has its own
        raise UsageError(f"the weights of {path} cannot be read: {describe_error(error)}") from error
    if not isinstance(weights, Mapping):
        raise UsageError(f"{path} holds a {type(weights).__name__}, not named tensors: save net.state_dict() in it")
    others = [str(name) for name, one in weights.items() if not isinstance(name, str) or not isinstance(one, Tensor)]
    if others:
        found = _list_first(others)
        raise UsageError(f"{path} holds more than named tensors ({found}): save net.state_dict() by itself")
    return weights


def require_gradient(who: str, network: nn.Module, shape: Shape) -> None:
    """Raise an error if labels cannot refine the module."""
    parameters = [one for one in network.parameters() if one.requires_grad]
    if not parameters:
        raise UsageError(f"{who} has no parameters that require gradients, so labels cannot refine it")
    network.train()
    with torch.enable_grad(), seeded(0):
        features = compute_trial_features(who, network, make_random_maps(shape))
        if not features.requires_grad:
            raise UsageError(f"{who} gives features without gradients, so labels cannot refine it")
        with attribute_errors(f"back-propagation through {who}"):
            (features * torch.randn_like(features)).sum().backward()  # type: ignore[no-untyped-call]
    if all(one.grad is None for one in parameters):
        raise UsageError(f"no gradient reaches the parameters of {who}, so labels cannot refine it")


def _find_refusal(attempt: Callable[[], object]) -> str | None:
    """Return the message of the error that an attempt raises, or None."""
    try:
        attempt()
    except (UsageError, PluginError) as error:
        return str(error)
    return None


def _list_first(names: list[str], count: int = 3) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


@hookimpl
def featbench_learners() -> list[type[FeatureLearner]]:
    """Register the module."""
    return [Module]
