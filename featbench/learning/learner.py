"""Feature learners: the contract that plugins fill. docs/plugins.md shows one of each kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from featbench.evaluation.regimes import Family
from featbench.learning.patches import MapSource, PatchSource
from featbench.parameters import Parametrised
from featbench.stages.encoders import build_tanh_encoder
from featbench.stages.filters import Bank, Filters
from featbench.stages.specs import Shape
from featbench.system.seeds import SEED_BITS
from featbench.types import IntArray


class FeatureLearner(Parametrised):
    """What all feature learners have in common; a learner subclasses FilterLearner or NetworkLearner.

    A learner is a frozen dataclass. Its fields are its parameters, all with defaults, which users set as in
    `psd(lam=0.5)`; `__post_init__` raises ValueError for values that make no sense.

    Attributes
    ----------
    name : str
        Name under which `--features` finds it: a word without spaces, commas, slashes or brackets.
    family : {"random", "fixed", "unsupervised", "supervised"}
        How its filters come about, which decides the regimes that it takes part in. An unsupervised learner is given
        training images, without their labels.
    initial : str, default ""
        What tables print for its regime where the family is fixed, such as G for Gabor; "fixed" if it is empty.
    source : str, default ""
        The paper that it implements.
    differentiable : bool, default True
        Whether back-propagation can refine it (R+, U+, fixed+).
    needs_gpu : bool, default False
        Whether it is refused on a CPU.
    samples_images : bool, default False
        Whether it is given training images though its family is not unsupervised, as one whose filters are templates.
    gives : {"maps", "row"}, default "maps"
        "row" for a NetworkLearner whose features are as many numbers for an image of any size.
    seed_bits : int, default 32
        Bits of the seed that it is given. A subclass does not inherit it.
    constant : bool, default False
        Whether it gives all images the same features on purpose, as chance does; of others a warning says so.
    """

    name: ClassVar[str]
    family: ClassVar[Family]
    initial: ClassVar[str] = ""
    source: ClassVar[str] = ""
    differentiable: ClassVar[bool] = True
    needs_gpu: ClassVar[bool] = False
    samples_images: ClassVar[bool] = False
    gives: ClassVar[Literal["maps", "row"]] = "maps"
    seed_bits: ClassVar[int] = SEED_BITS
    constant: ClassVar[bool] = False

    @classmethod
    def looks(cls) -> bool:
        """Return whether it is given training images, never their labels, to learn its filters from.

        Returns
        -------
        bool
            True for the family unsupervised, and where `samples_images` says so.
        """
        return cls.family == "unsupervised" or cls.samples_images

    def refinement_refusal(self, shape: Shape) -> str | None:
        """Return why the labels cannot refine it on images of this shape, or None; called before anything is computed.

        Parameters
        ----------
        shape : tuple of int
            Shape (maps, height, width) of the preprocessed images, the smallest of them.

        Returns
        -------
        str or None
            The reason, which tables show; None if it can be refined.
        """
        return None

    def files(self) -> tuple[Path, ...]:
        """Return the files whose content decides what it gives, besides its parameters.

        The store's keys hold their hashes: after such a file was edited, what depends on it is computed again.

        Returns
        -------
        tuple of pathlib.Path
            Paths of existing files, such as weights; none by default.
        """
        return ()


class FilterLearner(FeatureLearner, ABC):
    """A learner that gives the filters of one filter bank; featbench puts the stages around them.

    A subclass is a frozen dataclass that sets `name` and `family` and defines `filters`; everything else has a default.

    Attributes
    ----------
    name : str
        Name under which `--features` finds it.
    family : {"random", "fixed", "unsupervised", "supervised"}
        How its filters come about, which decides its regimes and whether it is given patches.
    initial, source, differentiable, needs_gpu, samples_images
        Optional; see FeatureLearner.

    See Also
    --------
    NetworkLearner : a learner that gives a whole network.
    """

    @abstractmethod
    def filters(self, bank: Bank, patches: PatchSource | None, seed: int) -> Filters | Tensor | NDArray[Any]:
        """Return the filters of one filter bank, or of one group of its connection table.

        Parameters
        ----------
        bank : Bank
            What is asked for: `filters` filters of `size`×`size` pixels over `fan_in` maps, `bank.shape` in all.
        patches : PatchSource or None
            Training patches, if the learner looks at images: `patches.sample(count)` is a float32 tensor [count,
            fan_in, size, size], on the device `patches.device`, in the unit of the maps that the filters will see.
        seed : int
            Where all randomness comes from, in [0, 2^32): the same seed must give the same filters.

        Returns
        -------
        Filters or torch.Tensor or numpy.ndarray
            `units(bank)` filters, [filters, fan_in, size, size]; a bare weight has gains of 1 and biases of 0.

        Raises
        ------
        LearningError
            Nothing can be learned from these patches.

        Notes
        -----
        With a connection table it is called once for each group of filters, each with a seed of its own and the patches
        of the maps that the group sees; see `connected`.
        """

    def connected(
        self, bank: Bank, table: IntArray, maps: int, patches: PatchSource | None, seed: int
    ) -> Filters | None:
        """Return the filters of a whole connection table, learned together, or None to have each group learned alone.

        Parameters
        ----------
        bank : Bank
            The whole bank: `filters` counts those of all groups, `fan_in` the maps that each filter sees.
        table : numpy.ndarray
            Connection table [groups, fan_in], int64: row g has the maps that the g-th group of filters sees.
        maps : int
            Number of maps that come in.
        patches : PatchSource or None
            Training patches of all maps, [count, maps, size, size], if the learner looks at images.
        seed : int
            Where all randomness comes from, in [0, 2^32).

        Returns
        -------
        Filters or None
            `units(bank)` filters over the maps of their group, group after group; None by default.
        """
        return None

    def refusal(self, bank: Bank) -> str | None:
        """Return why it cannot fill a bank, or None; called before anything is computed.

        Parameters
        ----------
        bank : Bank
            What would be asked for: one group of a connection table.

        Returns
        -------
        str or None
            The reason, which tables show and errors end with; None by default.
        """
        return None

    def units(self, bank: Bank) -> int:
        """Return how many filters it takes to give `bank.filters` maps.

        Parameters
        ----------
        bank : Bank
            What is asked for; its `filters` counts the maps that the encoder gives.

        Returns
        -------
        int
            `bank.filters` by default; more where the encoder pools over filters.
        """
        return bank.filters

    def grid(self, bank: Bank) -> tuple[int, int] | None:
        """Return the rows and columns of the map that the filters are ordered on, if they are.

        Parameters
        ----------
        bank : Bank
            What is asked for.

        Returns
        -------
        tuple of int or None
            (rows, columns), of product `units(bank)`: pictures of the filters then show them in this order; None by
            default.
        """
        return None

    def encoder(self, filters: Filters, table: NDArray[np.int64]) -> nn.Module:
        """Build what the letter F of an architecture stands for; by default F_CSG (Jarrett et al. 2009, eq. 1).

        Parameters
        ----------
        filters : Filters
            What the learner gave, all groups together, on the CPU as float32.
        table : numpy.ndarray
            Connection table [groups, fan_in], int64, of equally many filters in each group.

        Returns
        -------
        torch.nn.Module
            A module from maps [n, maps, height, width] to [n, filters, height - size + 1, width - size + 1].
        """
        return build_tanh_encoder(filters, table)


class NetworkLearner(FeatureLearner, ABC):
    """A learner that gives the whole extractor and takes no architecture.

    A subclass is a frozen dataclass that sets `name` and `family` and defines `network`.

    Attributes
    ----------
    name : str
        Name under which `--features` finds it.
    family : {"random", "fixed", "unsupervised", "supervised"}
        How its parameters come about, which decides its regimes and whether it is given images.
    gives : {"maps", "row"}, default "maps"
        "row" if it gives as many numbers for an image of any size.
    initial, source, differentiable, needs_gpu, samples_images
        Optional; see FeatureLearner.
    """

    def refusal(self, shape: Shape) -> str | None:
        """Return why it cannot take images of this shape, or None; called before anything is computed.

        Parameters
        ----------
        shape : tuple of int
            Shape (maps, height, width) of the preprocessed images, the smallest of them.

        Returns
        -------
        str or None
            The reason, which tables show; None by default.
        """
        return None

    @abstractmethod
    def network(self, shape: Shape, maps: MapSource | None, seed: int) -> nn.Module:
        """Return the extractor.

        Parameters
        ----------
        shape : tuple of int
            Shape (maps, height, width) of the preprocessed images, the smallest of them.
        maps : MapSource or None
            Training images, if the learner looks at images: `maps.batches(indices)` yields some at a time, float32.
        seed : int
            Where all randomness comes from, in [0, 2^32): the same seed must give the same network.

        Returns
        -------
        torch.nn.Module
            A module from maps [n, maps, height, width], float32, to features [n, d] or [n, maps, height, width]. In
            evaluation mode what it gives for an image must not depend on the others.

        Raises
        ------
        UsageError or LearningError
            The network cannot be built, or nothing can be learned from these images.
        """

    def rebuild(self, shape: Shape, state: Mapping[str, Tensor]) -> nn.Module:
        """Build the network again from its `state_dict`, so that the store can keep it.

        Parameters
        ----------
        shape : tuple of int
            The shape that it was made for.
        state : mapping of str to torch.Tensor
            Its `state_dict`, on the CPU.

        Returns
        -------
        torch.nn.Module
            A network that gives the same features.

        Raises
        ------
        NotImplementedError
            By default: the network is then learned again each time.
        """
        raise NotImplementedError
