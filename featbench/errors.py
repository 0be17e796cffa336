"""The errors a user can meet: each says what was wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FeatbenchError(Exception):
    """Base of every error that featbench raises on purpose."""


class UsageError(FeatbenchError):
    """A request that cannot be carried out as it was written."""


class UnknownNameError(UsageError):
    """A name that nothing is registered under."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        names = sorted(known)
        close = [known_name for known_name in names if known_name.lower() == name.lower()]
        close = close or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        suggestion = f"did you mean {close[0]!r}? " if close else ""
        super().__init__(f"unknown {kind} {name!r}: {suggestion}known: {', '.join(names)}{hint}")


class ArchitectureError(UsageError):
    """An architecture that cannot be read, or that does not fit its images."""


class DataError(FeatbenchError):
    """A data file that is missing, damaged, or not what it claims to be."""


class DownloadError(DataError):
    """A file that cannot be downloaded, or that is another one than was published."""


class SplitError(FeatbenchError):
    """A data set that cannot be split as the protocol asks."""


class DeviceError(UsageError):
    """A device that is not there."""


class DeviceLostError(FeatbenchError):
    """A device that failed or disappeared while it was computing."""


class PluginError(FeatbenchError):
    """A plugin that cannot be loaded, or that broke its contract."""


class FeatureError(FeatbenchError):
    """Features that no classifier can use."""


class LearningError(FeatbenchError):
    """Learning or refinement that cannot start, or went astray."""


class StoreError(FeatbenchError):
    """A store that cannot be read or written."""


class LeaderboardError(FeatbenchError):
    """Results that cannot be published, or entries that cannot be rendered."""
