"""Architectures as the papers write them, parsed to frozen specs and printed back.

`64F9-Rabs-N-PA10/5 > 256F9:16-Rabs-N-PA6/4` is two stages; within a stage the tokens apply from left to right.
With `>+` in place of `>` the maps of the stage before it are features as well. docs/architecture.md describes the
notation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from featbench.errors import ArchitectureError
from featbench.stages.notation import parse_stage
from featbench.stages.specs import Shape, StageSpec


@dataclass(frozen=True)
class Architecture:
    """One or more stages, as specs.

    Parameters
    ----------
    stages : tuple of StageSpec
        The stages from the image to the features.
    kept : frozenset of int, default frozenset()
        The numbers, from 1, of the stages before the last whose maps are features as well.

    Raises
    ------
    ArchitectureError
        If `kept` names a stage that does not exist, or the last one.

    Notes
    -----
    `Architecture.parse` reads the notation of the papers, and `str` prints it: `Architecture.parse(str(a)) == a`.

    References
    ----------
    Jarrett, Kavukcuoglu, Ranzato, LeCun 2009, "What is the best multi-stage architecture for object recognition?",
    section 3: F_CSG, R_abs, N, P_A, P_M. Sermanet, Kavukcuoglu, Chintala, LeCun 2013, "Pedestrian detection with
    unsupervised multi-stage feature learning": features of several stages.

    Examples
    --------
    >>> from featbench import Architecture
    >>> Architecture.parse("64F9-Rabs-N-PA10/5").shapes((1, 143, 143))
    [(64, 26, 26)]
    """

    stages: tuple[StageSpec, ...]
    kept: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        # The last stage is kept by definition: naming it would make two specs of one architecture.
        unknown = self.kept - set(range(1, len(self.stages)))
        if unknown:
            raise ArchitectureError(
                f"of {len(self.stages)} stages those before the last may be kept, which is kept anyway: "
                f"not {', '.join(str(number) for number in sorted(unknown))}"
            )

    def __str__(self) -> str:
        text = str(self.stages[0])
        for number, stage in enumerate(self.stages[1:], start=1):
            text += f" {'>+' if number in self.kept else '>'} {stage}"
        return text

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """Read an architecture in the notation of the papers.

        Parameters
        ----------
        text : str
            As in `64F9-Rabs-N-PA10/5 > 256F9:16-Rabs-N-PA6/4`.

        Returns
        -------
        Architecture
            The stages as specs.

        Raises
        ------
        ArchitectureError
            For what cannot be read; names the token, its position and what was expected.
        """
        if not isinstance(text, str):
            raise ArchitectureError(f"an architecture is a text, such as '64F9-Rabs-N-PA10/5', not {text!r}")
        stages: list[StageSpec] = []
        kept: set[int] = set()
        position = 0
        # The brackets keep the joints: stage, joint, stage, …, whose lengths add up to the position in the text.
        parts = re.split(r"(>\+?)", text)
        for part, joint in zip(parts[::2], [*parts[1::2], ""], strict=True):
            stages.append(parse_stage(text, part, position, len(stages) + 1))
            if joint == ">+":
                kept.add(len(stages))
            position += len(part) + len(joint)
        return cls(tuple(stages), frozenset(kept))

    def shapes(self, shape: Shape) -> list[Shape]:
        """Return the shape of the maps after each stage; nothing is computed but shapes.

        Parameters
        ----------
        shape : tuple of int
            Maps, height and width of what enters the first stage.

        Returns
        -------
        list of tuple of int
            Maps, height and width after each stage.

        Raises
        ------
        ArchitectureError
            If maps are too small or too few for an operation; names the operation and its stage.
        """
        after: list[Shape] = []
        for number, stage in enumerate(self.stages, start=1):
            for operation in stage.operations:
                try:
                    shape = operation.output_shape(shape)
                except ArchitectureError as error:
                    raise ArchitectureError(f"'{self}': {operation} in stage {number} {error}") from None
            after.append(shape)
        return after
