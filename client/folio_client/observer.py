"""What a client tells whoever watches it; `instrumentation` turns it into metrics.

Nothing that is told holds a prompt, an answer, or a session's name.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from folio_client.errors import FolioError
from folio_client.generation import Generation
from folio_client.types import Usage

Kind: TypeAlias = Literal["generate", "operation", "step"]


@dataclass(frozen=True)
class RequestEnd:
    """How a request ended.

    Attributes:
        kind: a generation, an admin operation or an attention step.
        model: the model's name.
        duration_s: from asking for it, repetitions included.
        error: what it ended with, if it failed.
        usage: what a generation took, as far as it came.
        is_left: whether the caller left before the end.
    """

    kind: Kind
    model: str
    duration_s: float
    error: FolioError | None
    usage: Usage | None
    is_left: bool


class Observer(Protocol):
    """Is told of every request; called on whichever thread makes it, so it must be quick and safe."""

    def on_end(self, end: RequestEnd) -> None:
        """A request is over."""
        ...

    def on_retry(self, kind: Kind, model: str, error: FolioError) -> None:
        """A request is about to be repeated because of this error."""
        ...


class SilentObserver:
    """Tells nobody."""

    def on_end(self, end: RequestEnd) -> None:
        """See `Observer`."""

    def on_retry(self, kind: Kind, model: str, error: FolioError) -> None:
        """See `Observer`."""


@contextmanager
def observed(observer: Observer, kind: Kind, model: str, generation: Generation | None = None) -> Iterator[None]:
    """Tells the observer how the block ended."""
    start_s = time.perf_counter()
    failure: FolioError | None = None
    is_left = True
    try:
        yield
        is_left = False
    except FolioError as error:
        failure, is_left = error, False
        raise
    finally:
        usage = None if generation is None else generation.result().usage
        observer.on_end(RequestEnd(kind, model, time.perf_counter() - start_s, failure, usage, is_left))
