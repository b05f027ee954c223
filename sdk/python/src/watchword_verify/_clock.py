"""Moments, by two clocks at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple


class Moment(NamedTuple):
    """A moment by the monotonic and by the wall clock, in seconds."""

    mono: float
    wall: float
    """Seconds since 1970."""

    def plus(self, seconds: float) -> Moment:
        """Return the moment so much later."""
        return Moment(self.mono + seconds, self.wall + seconds)

    def age(self, now: Moment) -> float:
        """Return how long ago the moment was. Of the two clocks it takes the one that says more,
        because the monotonic one may have stood still with the machine.
        """
        return max(now.mono - self.mono, now.wall - self.wall)


Clock = Callable[[], Moment]
"""Returns the present moment."""


def system_clock() -> Moment:
    """The clocks of the machine. All processes of a machine have the same monotonic clock, so a
    moment keeps its meaning over a fork."""
    return Moment(time.monotonic(), time.time())
