"""The errors that featbench raises on purpose: each message says what was wrong, where, and what to do about it.

The command line prints the message of a `FeatbenchError` without a traceback and exits with code 2. Any other exception
is a bug of featbench or of a plugin.

Those that are about what a caller passed are `ValueError`s too, as scikit-learn and its users expect.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FeatbenchError(Exception):
    """Base of every error that featbench raises on purpose.

    Raised only as one of its subclasses. Catch it in Python to tell a mistake in a request or in data from a bug.

    See Also
    --------
    UsageError : A request that cannot be carried out; names, architectures and devices have subclasses of it.
    DataError : Files of a data set; `DownloadError` is a subclass of it.
    PluginError : Plugins that cannot be loaded, or break their contract.
    """


class UsageError(FeatbenchError, ValueError):
    """A request that cannot be carried out as it was written.

    Raised for options and parameters with a wrong value, for combinations that make no sense, and for files named on
    the command line that cannot be written. Wherever possible it is raised before anything is computed.
    """


class UnknownNameError(UsageError):
    """A name that nothing is registered under.

    Raised for names of learners, classifiers, data sets, protocols, tables, commands, studies and parameters.

    Parameters
    ----------
    kind : str
        What the name should have been, such as ``"learner"``.
    name : str
        The name that was given.
    known : iterable of str
        All names that exist. The message lists them, and suggests one that is nearly the same.
    hint : str, default ""
        Appended to the message, such as a list of plugins that could not be loaded.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        names = sorted(known)
        # A name in another case is a better guess than any name that is merely similar.
        close = [known_name for known_name in names if known_name.lower() == name.lower()]
        close = close or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        close = close or [known_name for known_name in names if len(name) > 1 and name.lower() in known_name.lower()]
        suggestion = f"did you mean {close[0]!r}? " if close else ""
        super().__init__(f"unknown {kind} {name!r}: {suggestion}known: {', '.join(names)}{hint}")


class ArchitectureError(UsageError):
    """An architecture that cannot be read, or that does not fit its images.

    Raised by the parser, which names the token, its position and what was expected, and by the check of shapes, which
    names the stage, the size of the maps that reach it and the size it needs.
    """


class DataError(FeatbenchError, ValueError):
    """A data file that is missing, damaged, or not what it claims to be.

    Raised while files are found, read, unpacked or decoded, and for arrays passed from Python that are not images. The
    message names the file.
    """


class ArrayTypeError(DataError, TypeError):
    """An array that holds other things than real numbers, passed from Python as images.

    A `TypeError` too: that is what scikit-learn raises.
    """


class DownloadError(DataError):
    """A file that cannot be downloaded, or whose checksum is not the published one.

    Raised by `featbench data fetch`.
    """


class SplitError(FeatbenchError, ValueError):
    """A data set that cannot be split as the protocol asks.

    Raised when a class has too few images for the training, validation and test images that are asked for, or when a
    protocol needs a fixed split that the data set does not have.
    """


class DeviceError(UsageError):
    """A device that does not exist, or is too small for the work.

    Raised for unknown device names, for `--device cuda` without a CUDA device or without Triton, and when a training
    batch does not fit into the memory even image by image.
    """


class DeviceLostError(FeatbenchError):
    """A device that failed or disappeared during a computation.

    Raised by the runner, which stops the comparison: every later cell would fail in the same way. Results that were
    finished before are kept.
    """


class PluginError(FeatbenchError, ValueError):
    """A plugin that cannot be loaded, or that broke its contract.

    Raised when a plugin file is missing or does not import, when two plugins register the same name, and when a plugin
    returns something of the wrong type or shape, or values that are not finite.
    """


class FeatureError(FeatbenchError, ValueError):
    """Features that a classifier cannot use.

    Raised for features, local vectors and histograms that are not finite or have the wrong shape, and for codebooks
    with more words than there are local vectors to learn them from.
    """


class LearningError(FeatbenchError, ValueError):
    """Learning, refinement or the training of a classifier that cannot start, or that diverges.

    Raised for too few or blank patches, for losses and weights that become infinite or NaN, for gradients that do not
    reach the parameters, and for solvers that stop before they converge.
    """


class StoreError(FeatbenchError):
    """A store that cannot be read or written.

    Raised for missing permissions and full disks. A damaged file is not an error: it is set aside and computed again.
    """


class ModelError(FeatbenchError):
    """A model folder that cannot be read or written, or a row that no model can be made of.

    Raised by `featbench export`, `featbench predict` and `featbench.load`: for folders that hold no model, for damaged
    or edited ones, for those of a newer format, and where a plugin or a file that the model needs is missing.
    """


class LeaderboardError(FeatbenchError):
    """Results that cannot be published, or entries that cannot be rendered.

    Raised by `featbench leaderboard`: for incomplete results, for results of uncommitted code without `--allow-dirty`,
    and for entries that are damaged or were edited by hand.
    """
