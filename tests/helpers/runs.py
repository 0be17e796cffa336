"""What calls of the command line gave, and what plugins logged meanwhile."""

import json
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Ran:
    """What a call of the command line gave."""

    code: int
    out: str
    err: str

    @property
    def rows(self):
        """The rows of `--format json`; NaN and Infinity, which strict JSON does not know, are refused."""
        return json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    def row(self, learner, regime=None):
        """The one row of a learner."""
        (found,) = [r for r in self.rows if r["learner"] == learner and regime in (None, r["regime"])]
        return found


class Log:
    """Lines that plugins appended while they worked, in this process or another."""

    def __init__(self, path):
        self.path = path

    def lines(self):
        return self.path.read_text().split() if self.path.exists() else []

    def count(self, line):
        return self.lines().count(line)
