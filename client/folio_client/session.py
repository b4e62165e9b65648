"""A conversation that the server remembers, so that each turn sends and computes only what is new.

Knows one session. `aio_session` is the same for asyncio.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

from folio_client.admin import Admin
from folio_client.calls import Caller
from folio_client.documents import find_session
from folio_client.errors import NotFound
from folio_client.generation import Generation
from folio_client.options import GenerateOptions
from folio_client.requests import GenerateRequest
from folio_client.session_state import SessionState, new_session_id
from folio_client.streams import GenerationStream
from folio_client.types import Delta, GenerateResult, Message, SessionInfo

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class Session:
    """One session; made by `Client.session`, and one turn at a time.

    >>> with client.session() as session:
    ...     first = session.generate("The capital of France is", max_tokens=2, temperature=0)
    ...     with session.fork() as fork:
    ...         second = fork.generate(" The capital of Italy is", max_tokens=2, temperature=0)
    >>> second.text, second.usage.num_prompt_tokens, second.usage.num_cached_tokens
    (' Rome.', 12, 6)

    As a context manager it is closed at the end of the block, unless it is to be kept. Every turn says how long the
    session is believed to be, so that a turn that arrives twice is refused the second time.

    Args:
        caller: carries requests out.
        admin: the model's operations.
        model: the model's name.
        state: what is known of it.
        keep: whether the session outlives the `with` block.
    """

    def __init__(self, caller: Caller, admin: Admin, model: str, state: SessionState, *, keep: bool) -> None:
        self._caller = caller
        self._admin = admin
        self._model = model
        self._state = state
        self._keep = keep

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._keep:
            self.close()

    @property
    def session_id(self) -> str:
        """Its name."""
        return self._state.session_id

    @property
    def length(self) -> int | None:
        """Tokens that it holds; None after a turn that was left or lost, until `resume` or the next whole turn."""
        return self._state.length

    def generate(self, prompt: str | Sequence[Message], **options: Unpack[GenerateOptions]) -> GenerateResult:
        """The answer to a turn; see `stream`."""
        return self.stream(prompt, **options).collect()

    def chat(self, messages: Sequence[Message], **options: Unpack[GenerateOptions]) -> GenerateResult:
        """The answer to a whole chat, of which only what is new is computed; see `stream`."""
        return self.stream(messages, **options).collect()

    def stream(self, prompt: str | Sequence[Message], **options: Unpack[GenerateOptions]) -> GenerationStream:
        """One turn, delta by delta.

        Args:
            prompt: a text to append to the history, or all messages of the chat.
            options: see `GenerateOptions`.
        """
        request = GenerateRequest.of(prompt, options, self._state.next_turn())
        generation = Generation(request.request_id)
        return GenerationStream(self._turn(request, generation), generation)

    def resume(self) -> SessionInfo:
        """Asks the server how long the session is. Needs the admin token where the server has one.

        Raises:
            NotFound: there is no such session any more.
        """
        info = find_session(self._admin.sessions(), self.session_id)
        self._state.length = info.num_tokens
        return info

    def fork(self, new_id: str | None = None, *, keep: bool = False) -> Session:
        """A new session with the same history; both go their own ways.

        Args:
            new_id: its name; None makes one up.
            keep: see `Session`.
        """
        info = self._admin.fork(self.session_id, new_id or new_session_id())
        state = SessionState(info.session_id, info.num_tokens)
        return Session(self._caller, self._admin, self._model, state, keep=keep)

    def truncate(self, num_tokens: int) -> SessionInfo:
        """Forgets all but the first tokens."""
        info = self._admin.truncate(self.session_id, num_tokens)
        self._state.length = info.num_tokens
        return info

    def close(self) -> None:
        """Ends the session; one that has not begun or is gone already is fine."""
        with suppress(NotFound):
            self._admin.close(self.session_id)
        self._state.length = 0

    def _turn(self, request: GenerateRequest, generation: Generation) -> Generator[Delta, None, None]:
        with self._state.turn(generation):
            yield from self._caller.generate(self._model, request, generation)
