"""The names of folders on a leaderboard: enough of a path to tell it from others, and no more of a user's folders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from featbench.comparison import Workbench
from featbench.data.dataset import wrap_errors
from featbench.errors import FeatbenchError
from featbench.experiment.cell import Cell
from featbench.experiment.unlabelled import get_pool_name
from featbench.leaderboard.names import Fingerprints


@dataclass(frozen=True)
class Place:
    """A data set, or a folder of unlabelled images, that is named by a path.

    name: as the user gave it. fingerprint: the hash of its content.
    """

    name: str
    fingerprint: str

    @property
    def prefix(self) -> str:
        """What stands before the path, as `folder:` does."""
        found = re.match(r"[^:/\\]+:", self.name)
        return found[0] if found else ""

    def list_names(self) -> list[str]:
        """Return its names, the shortest first: the last folder, with the one before, and so on."""
        path = Path(self.name.removeprefix(self.prefix)).expanduser().absolute()
        names = path.resolve().parts[1:] or (path.name,)
        return [self.prefix + "/".join(names[-count:]) for count in range(1, len(names) + 1)]


def shorten_places(places: Iterable[Place], published: Mapping[str, str]) -> dict[str, str]:
    """Return the name that a leaderboard shows of each place, by the user's name.

    It is the shortest end of the path that nothing else has: a page shows no more of a user's folders than it needs.

    published: the fingerprints of the places that the leaderboard has already, by the names that it shows.
    """
    known = set(places)
    # One place may have several names, and is shown by one.
    named = {fingerprint: name for name, fingerprint in published.items()}
    for place in sorted(known, key=lambda one: one.name):
        if place.fingerprint not in named:
            others = {name for one in known if one.fingerprint != place.fingerprint for name in one.list_names()}
            free = [name for name in place.list_names() if name not in others and name not in published]
            last = f"{place.list_names()[0]} ({place.fingerprint[:8]})"
            named[place.fingerprint] = free[0] if free else last
    return {place.name: named[place.fingerprint] for place in known}


class PlacesOfRows:
    """How a leaderboard names what the cells of its rows name by paths.

    firsts: the first cells of rows whose data is at hand. published: as `shorten_places` takes it.
    """

    def __init__(self, workbench: Workbench, firsts: Iterable[Cell], published: Mapping[str, str]) -> None:
        self._workbench = workbench
        self._known: dict[str, Place] = {}
        found = [place for first in firsts for place in self._find(first).values()]
        self._shown = shorten_places(found, published)

    def show(self, first: Cell) -> tuple[Cell, Fingerprints]:
        """Return the first cell of a row as the leaderboard names it, and the fingerprints of its places."""
        found = self._find(first)
        shown = {
            what: getattr(first, what).replace(place.name, self._shown.get(place.name) or place.list_names()[0])
            for what, place in found.items()
        }
        return replace(first, **shown), {what: place.fingerprint for what, place in found.items()}

    def _find(self, first: Cell) -> dict[str, Place]:
        """Return the data set and the unlabelled images of a row, those that are named by paths."""
        names = {what: get_place(first, what) for what in ("dataset", "unlabelled")}
        known = self._workbench.registry.names("datasets")
        return {what: self._read(name) for what, name in names.items() if name and name not in known}

    def _read(self, name: str) -> Place:
        if name not in self._known:
            self._known[name] = Place(name, _read_fingerprint(self._workbench, name))
        return self._known[name]


def get_place(cell: Cell, what: str) -> str:
    """Return the name of a cell's `dataset`, or of its `unlabelled` images without what may stand before it."""
    return cell.dataset if what == "dataset" else get_pool_name(cell.unlabelled or "")


def _read_fingerprint(workbench: Workbench, name: str) -> str:
    """Return the hash of what lies at a place, "" where that is not at hand."""
    try:
        if ":" not in name:
            return workbench.keys.unlabelled(name)
        with wrap_errors(name):
            return workbench.registry.dataset(name).fingerprint(workbench.data_dir)
    except FeatbenchError:
        return ""
