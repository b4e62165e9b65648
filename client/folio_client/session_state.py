"""What a client knows of a session: its name, and the length that lets the server refuse a turn sent twice."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from folio_client.errors import FolioError
from folio_client.generation import Generation
from folio_client.requests import SessionTurn


def new_session_id() -> str:
    """A name that nobody else has."""
    return f"session-{uuid.uuid4().hex}"


@dataclass
class SessionState:
    """A session as its client sees it.

    Attributes:
        session_id: its name.
        length: tokens that it holds; None where that is not known, as after a turn that was left.
    """

    session_id: str
    length: int | None

    def next_turn(self) -> SessionTurn:
        """What the next request says of the session."""
        return SessionTurn(self.session_id, self.length)

    @contextmanager
    def turn(self, generation: Generation) -> Iterator[None]:
        """Follows the length over the block in which a turn runs."""
        believed, self.length = self.length, None
        try:
            yield
        except FolioError:
            if not generation.has_begun and not generation.is_lost:
                self.length = believed  # refused: nothing has changed
            raise
        usage = generation.result().usage
        if usage.num_prompt_tokens is not None and usage.num_generated_tokens is not None:
            self.length = usage.num_prompt_tokens + usage.num_generated_tokens
