"""The operations that extraction spends its time in: what they mean, and the fast paths of each device."""

from featbench.cuda.selection import select

__all__ = ["select"]
