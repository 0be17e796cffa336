"""How learning rates fall: one schedule, which the learners, the refinement and the studies share."""

from __future__ import annotations

import math


def cosine_decay(step: float, steps: float = 1.0) -> float:
    """Return the factor of the learning rate at `step` of `steps`: ½ (1 + cos(π step / steps)), from 1 down to 0.

    `steps` left out, `step` is the part of the training that is done, from 0 to 1. Half a cosine stays high at first,
    when large steps are still useful, and comes in flat, so that the noise of the batches dies down. Source:
    Loshchilov, Hutter 2017, eq. 5, without restarts and with a least rate of 0.
    """
    # π · step is rounded before it is divided: π · (step / steps) would change the last bits of all learned filters.
    return 0.5 * (1 + math.cos(math.pi * step / steps))
