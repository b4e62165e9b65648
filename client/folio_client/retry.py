"""When to ask again, and how long to wait before it.

Pure decisions: who asks sleeps and repeats. What may be repeated:

- whatever the server refused as unavailable: it has done nothing;
- after a lost connection only what does no harm twice: reads, one-shot generations that have given nothing yet, and
  turns of a session whose length the request names, because the server refuses the second one.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from folio_client.errors import ConnectionFailed, FolioError, IncompleteResponse, InvalidArgument, Unavailable


@dataclass(frozen=True)
class Deadline:
    """A moment by which something must be done.

    Attributes:
        timeout_s: how long that was from the start.
        end_s: when that is, on the monotonic clock.
    """

    timeout_s: float
    end_s: float

    @classmethod
    def after(cls, timeout_s: float) -> Deadline:
        """The moment so many seconds from now; raises InvalidArgument where that is none."""
        if not 0 < timeout_s < math.inf:
            raise InvalidArgument(f"timeout_s is {timeout_s}.", field="timeout_s", allowed="a positive number")
        return cls(timeout_s, time.monotonic() + timeout_s)

    @property
    def left_s(self) -> float:
        """Seconds until then, at least a millisecond: no transport takes 0 for "at once"."""
        return max(self.end_s - time.monotonic(), 0.001)

    @property
    def is_over(self) -> bool:
        """Whether that moment has passed."""
        return time.monotonic() >= self.end_s


@dataclass(frozen=True)
class RetryPolicy:
    """How often to ask again, and how patiently.

    The wait doubles from attempt to attempt and is drawn at random from its upper half, so that clients that were
    refused together do not return together. Where the server says when to come back, the wait is that long and a
    random part of the usual wait longer.

    Attributes:
        max_attempts: requests in all; 1 never asks again.
        first_delay_s: the longest wait before the second attempt.
        max_delay_s: the longest wait before any, where the server asks for no longer one.
        draw: gives a random number from 0 to 1.
    """

    max_attempts: int = 5
    first_delay_s: float = 0.1
    max_delay_s: float = 5.0
    draw: Callable[[], float] = field(default=random.random, repr=False)

    def delay_s(self, error: FolioError, num_attempts: int, *, is_repeatable: bool, left_s: float) -> float | None:
        """How long to wait before asking again; None to give up.

        Args:
            error: what the last attempt gave.
            num_attempts: how many there were.
            is_repeatable: whether the request does no harm if the server has carried it out already.
            left_s: seconds until the request's deadline.
        """
        if num_attempts >= self.max_attempts or not is_safe(error, is_repeatable=is_repeatable):
            return None
        longest_s = min(self.max_delay_s, self.first_delay_s * 2 ** (num_attempts - 1))
        if error.retry_after_ms is None:
            delay_s = longest_s * (1 + self.draw()) / 2
        else:
            delay_s = error.retry_after_ms / 1000 + longest_s * self.draw()
        return delay_s if delay_s < left_s else None


def is_safe(error: FolioError, *, is_repeatable: bool) -> bool:
    """Whether asking again can do no harm, and may help."""
    if isinstance(error, IncompleteResponse):
        return False
    return isinstance(error, Unavailable) or (is_repeatable and isinstance(error, ConnectionFailed))
