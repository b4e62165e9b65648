"""The synchronous client: everything a program asks of a Folio server, over HTTP or gRPC.

Knows what callers want and hands it on. How requests are built, carried out and read is shared with `aio`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING

from folio_client.admin import Admin
from folio_client.attention import Attention
from folio_client.batch import DEFAULT_CONCURRENCY, plan_batch
from folio_client.calls import DEFAULT_TIMEOUT_S, Caller, CallSettings
from folio_client.connection import DEFAULT_URL, Connection, ConnectionOptions
from folio_client.errors import Cancelled, FolioError
from folio_client.generation import Generation
from folio_client.observer import Observer, SilentObserver
from folio_client.options import GenerateOptions
from folio_client.readiness import wait_ready
from folio_client.requests import GenerateRequest, SessionTurn
from folio_client.retry import RetryPolicy
from folio_client.session import Session
from folio_client.session_state import SessionState, new_session_id
from folio_client.streams import GenerationStream
from folio_client.transports import open_transport
from folio_client.types import GenerateResult, Message, WarmUpResult
from folio_client.warm_up import DEFAULT_NUM_REQUESTS, WARM_UP_OPTIONS, WARM_UP_PROMPT, WarmUp
from folio_client.wire import Transport

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

DEFAULT_MODEL = "smollm2"
DEFAULT_ATTENTION_MODEL = "attention"


class Client:
    """A client of one server; threads may share it.

    >>> client = Client("grpc://localhost:8001")
    >>> with client.stream("The capital of France is", max_tokens=2, temperature=0) as stream:
    ...     [delta.text for delta in stream]
    [' Paris', '.']
    >>> stream.result.usage.num_generated_tokens
    2
    >>> [result.text for result in client.generate_batch(["A, B,", "A, B,"], max_tokens=2, temperature=0)]
    [' C,', ' C,']
    >>> client.close()

    Args:
        url: `grpc://host:port`, `grpcs://`, `http://` or `https://`.
        model: the generate model that is meant.
        attention_model: the attention model that `attention` means.
        timeout_s: for requests that name no other, in seconds.
        retry: when to ask again.
        admin_token: for operations that need one.
        observer: told of every request, such as `instrumentation.ClientMetrics`.
        transport: another way to the server than the URL's; the client closes it.
        connection: see `ConnectionOptions`: `api_key`, `bearer_token`, `headers`, `tls`, `max_connections`.

    Attributes:
        admin: the generate model's operations.
        attention: the attention model.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        model: str = DEFAULT_MODEL,
        attention_model: str = DEFAULT_ATTENTION_MODEL,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry: RetryPolicy | None = None,
        admin_token: str | None = None,
        observer: Observer | None = None,
        transport: Transport | None = None,
        **connection: Unpack[ConnectionOptions],
    ) -> None:
        settings = CallSettings(timeout_s, retry or RetryPolicy(), admin_token, observer or SilentObserver())
        self._transport = transport or open_transport(Connection.parse(url, connection))
        self._caller = Caller(self._transport, settings)
        self.model = model
        self.admin = Admin(self._caller, model)
        self.attention = Attention(self._caller, attention_model)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets the connections go."""
        self._transport.close()

    def generate(self, prompt: str, **options: Unpack[GenerateOptions]) -> GenerateResult:
        """The answer to a prompt; see `stream`."""
        return self.stream(prompt, **options).collect()

    def chat(
        self, messages: Sequence[Message], session: Session | str | None = None, **options: Unpack[GenerateOptions]
    ) -> GenerateResult:
        """The answer to a chat, rendered by the model's own template; see `stream`.

        Args:
            messages: all of them, role and content, the last one to be answered.
            session: whose history they continue, so that only what is new is computed.
            options: see `GenerateOptions`.
        """
        return self.stream(messages, session, **options).collect()

    def stream(
        self,
        prompt: str | Sequence[Message],
        session: Session | str | None = None,
        **options: Unpack[GenerateOptions],
    ) -> GenerationStream:
        """An answer, delta by delta; leaving it early cancels it on the server.

        Args:
            prompt: a text to continue, or the messages of a chat.
            session: whose history they continue.
            options: see `GenerateOptions`.

        Raises:
            FolioError: while iterating, where the server refuses or fails.
        """
        if isinstance(session, Session):
            return session.stream(prompt, **options)
        turn = None if session is None else SessionTurn(session, None)
        request = GenerateRequest.of(prompt, options, turn)
        generation = Generation(request.request_id)
        return GenerationStream(self._caller.generate(self.model, request, generation), generation)

    def session(self, session_id: str | None = None, *, resume: bool = False, keep: bool = False) -> Session:
        """A conversation that the server remembers.

        Args:
            session_id: its name; None makes one up.
            resume: whether it exists; a new one's first turn is refused where it does.
            keep: whether it outlives the `with` block that it is used in.

        Raises:
            NotFound: it is to be resumed and is not there.
        """
        state = SessionState(session_id or new_session_id(), 0)
        session = Session(self._caller, self.admin, self.model, state, keep=keep)
        if resume:
            session.resume()
        return session

    def generate_batch(
        self,
        prompts: Sequence[str],
        *,
        deduplicate: bool | None = None,
        max_concurrency: int = DEFAULT_CONCURRENCY,
        **options: Unpack[GenerateOptions],
    ) -> list[GenerateResult]:
        """The answers to many prompts, in their order; see `plan_batch` for the arguments.

        Raises:
            BatchFailed: some have failed; it holds the rest.
        """
        plan = plan_batch(prompts, options, deduplicate=deduplicate, max_concurrency=max_concurrency)
        left = threading.Event()

        def outcome(prompt: str) -> GenerateResult | FolioError:
            try:
                with self.stream(prompt, **options) as stream:
                    for _ in stream:
                        if left.is_set():
                            return Cancelled("The batch was left.")
                    return stream.result
            except FolioError as error:
                return error

        with ThreadPoolExecutor(max_workers=max_concurrency) as executor:
            try:
                return plan.results(list(executor.map(outcome, plan.prompts)))
            finally:
                left.set()
                executor.shutdown(wait=False, cancel_futures=True)

    def is_ready(self, *, timeout_s: float | None = None) -> bool:
        """Whether the generate model is loaded; True does not yet say that it works (see `wait_ready`)."""
        deadline = self._caller.settings.deadline(timeout_s)
        return self._caller.call(
            "operation",
            self.model,
            lambda left_s: self._transport.is_ready(self.model, left_s),
            deadline,
            is_repeatable=True,
        )

    def wait_ready(self, timeout_s: float) -> None:
        """Returns once the model is loaded and, where it can tell, healthy.

        Raises:
            DeadlineExceeded: it was not within `timeout_s`; says what was wrong last.
        """
        wait_ready(self._caller, self.admin, self.model, timeout_s)

    def warm_up(
        self, num_requests: int = DEFAULT_NUM_REQUESTS, *, max_concurrency: int = 1, prompt: str = WARM_UP_PROMPT
    ) -> WarmUpResult:
        """Sends short generations until the latencies settle, or `num_requests` are done.

        Args:
            num_requests: the most to send.
            max_concurrency: how many at a time.
            prompt: what they continue.
        """
        warming = WarmUp(num_requests, max_concurrency, prompt)
        while prompts := warming.next_prompts():
            warming.add(
                self.generate_batch(prompts, deduplicate=False, max_concurrency=max_concurrency, **WARM_UP_OPTIONS)
            )
        return warming.result
