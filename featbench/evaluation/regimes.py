"""R, U, R+, U+ and fixed: where filters start, and whether the labels refine them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from featbench.errors import UnknownNameError

Family = Literal["random", "fixed", "unsupervised", "supervised"]

START = {"random": "R", "supervised": "R", "unsupervised": "U", "fixed": "fixed"}
"""The regime, without its `+`, in which a learner of each family starts."""


@dataclass(frozen=True)
class Regime:
    """A regime of Jarrett et al. 2009, section 4: two booleans, and `fixed` for filters by design.

    learned: filters are learned without labels, stage by stage. refined: the labels refine the whole net.
    designed: filters are neither random nor learned (Gabor, SIFT).
    """

    learned: bool = False
    refined: bool = False
    designed: bool = False

    @property
    def name(self) -> str:
        """R, U, R+, U+, fixed or fixed+."""
        start = "fixed" if self.designed else "U" if self.learned else "R"
        return start + ("+" if self.refined else "")

    def label(self, stages: int, initial: str) -> str:
        """Return the regime as tables print it: RR for two stages of R; `initial` (G for Gabor) where it is fixed."""
        start = initial if self.designed else "U" if self.learned else "R"
        return (start + ("+" if self.refined else "")) * (1 if self.designed else max(stages, 1))

    def refusal(self, learner: str, family: Family) -> str | None:
        """Return why a learner of `family` makes no sense under this regime, or None."""
        start = self.name.rstrip("+")
        if family == "supervised" and self.name != "R+":
            return f"{learner} learns from labels alone: ask for R+"
        if START[family] == start:
            return None
        if start == "R":
            return f"{learner} does not start from random filters: the learner 'random' is what {self.name} stands for"
        if start == "U":
            return f"{learner} has nothing to learn without labels: {START[family]} is its regime"
        return f"{learner} is not designed by hand: {START[family]} is its regime"


REGIMES = {
    regime.name: regime
    for regime in (
        Regime(),
        Regime(learned=True),
        Regime(refined=True),
        Regime(learned=True, refined=True),
        Regime(designed=True),
        Regime(designed=True, refined=True),
    )
}
"""Every regime by its name."""


def parse_regimes(names: Iterable[str]) -> tuple[Regime, ...]:
    """Return the regimes of these names; RR, R+R+, UU and U+U+ are read as their one-stage names."""
    return tuple(_parse_regime(name) for name in names)


def _parse_regime(name: str) -> Regime:
    # The papers print RR for two stages of R. What is learned or refined is the whole net, whatever its stages.
    doubled = {known * 2: regime for known, regime in REGIMES.items() if not regime.designed}
    found = REGIMES.get(name) or doubled.get(name)
    if found is None:
        raise UnknownNameError("regime", name, REGIMES)
    return found
