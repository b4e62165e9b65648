"""One deadline for all that a request over HTTP waits for.

httpx bounds each wait by itself: a request that waits again and again, as a stream does, is not bounded at all. Here
each wait is as long as the request has left, and a stream whose server says too little, too slowly or nothing more is
cut off.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import httpx2

from folio_client.retry import Deadline

CONNECT_TIMEOUT_S = 5.0


class TimeLeft(Mapping[str, float]):
    """A request's time-outs as httpx asks for them, each in seconds when its wait begins; connecting may take less.

    Args:
        deadline: the request's.
    """

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def __getitem__(self, wait: str) -> float:
        left_s = self._deadline.left_s
        return min(left_s, CONNECT_TIMEOUT_S) if wait == "connect" else left_s

    def __iter__(self) -> Iterator[str]:
        return iter(("connect", "read", "write", "pool"))

    def __len__(self) -> int:
        return 4


@contextmanager
def cut_off_at(deadline: Deadline, response: httpx2.Response) -> Iterator[None]:
    """Ends the response's connection where the block is not left before the deadline."""
    timer = threading.Timer(deadline.left_s, _end_connection, (response,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end_connection(response: httpx2.Response) -> None:
    """Ends the connection of a response that is being read: whoever reads it finds nothing more, at once."""
    if response.is_closed:
        return  # its connection may serve another request by now
    with suppress(OSError):  # it has ended by itself
        response.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
