"""A generate service behind the server's decoupled requests.

Knows what is answered at once, what waits for its turn, and what is told when it is over. Does not know the server's
types.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from folio_backend.cancel_watch import CancelWatch
from folio_backend.channel import Channel
from folio_backend.errors import FolioError, Internal
from folio_backend.finished_request import FinishedRequest, finished_generation, known_as
from folio_backend.outbox import Outbox
from folio_backend.request import Operation
from folio_backend.request_timings import outcome_of
from folio_backend.server_request import UNREAD

if TYPE_CHECKING:
    from folio_backend.channel import Sender
    from folio_backend.finished_request import Observer
    from folio_backend.generate_service import GenerateService
    from folio_backend.request import GenerateRequest
    from folio_backend.request_timings import RequestTimings
    from folio_backend.server_request import ServerRequest


class GenerateServer:
    """Takes requests and sees to their answers.

    Args:
        service: what serves them.
        observe: told of every request that is over, from several threads; returns at once.
        on_error: told of what went wrong with no request to blame.
    """

    def __init__(self, service: GenerateService, observe: Observer, on_error: Callable[[Exception], None]) -> None:
        self.service = service
        self._observe = observe
        self._outbox = Outbox(on_error)
        self._watch = CancelWatch(on_error)
        self._outbox.start()
        self._watch.start()

    def take(self, read: Callable[[], ServerRequest], sender: Sender) -> None:
        """Answers an operation or a refusal at once, and queues the rest."""
        start_s, request = time.monotonic(), UNREAD
        parsed: GenerateRequest | Operation | None = None
        error: FolioError | None = None
        try:
            request = read()
            parsed = self.service.parse(request)
            if isinstance(parsed, Operation):
                sender.send(self.service.operate(parsed), is_final=True)
            else:
                self._queue(parsed, request, sender)
                return
        except FolioError as refusal:
            error = refusal
        except Exception as fault:  # noqa: BLE001 - a fault of ours belongs to this request alone
            error = Internal(f"The backend failed on this request ({type(fault).__name__}).")
        if error is not None:
            sender.fail(error)
        self._conclude(request, parsed, error, time.monotonic() - start_s)

    def close(self) -> None:
        """Finishes what runs."""
        self.service.close()
        self._watch.stop()
        self._outbox.stop()

    def _queue(self, parsed: GenerateRequest, request: ServerRequest, sender: Sender) -> None:
        def on_end(timings: RequestTimings) -> None:
            self.service.recorder.observe_request(timings)
            self._observe(finished_generation(timings, parsed.request_id, request.trace_context))

        channel = Channel(sender, parsed.output, self._outbox, self._watch, on_end)
        generation = self.service.generate(parsed, channel)
        channel.watch(lambda: self.service.cancel(generation))

    def _conclude(
        self,
        request: ServerRequest,
        parsed: GenerateRequest | Operation | None,
        error: FolioError | None,
        total_s: float,
    ) -> None:
        """Tells of a request that was answered at once. An operation's own failure is an answer, no rejection."""
        operation = parsed if isinstance(parsed, Operation) else None
        if error is not None and (operation is None or isinstance(error, Internal)):
            self.service.recorder.count_rejection(error.reason)
        self._observe(
            FinishedRequest(
                request_id=known_as(request.request_id),
                outcome=outcome_of(error, is_admitted=operation is not None),
                arrival_time_s=time.time() - total_s,
                total_s=total_s,
                operation=None if operation is None else operation.name,
                code=None if error is None else error.code.value,
                reason=None if error is None else error.reason,
                trace_context=request.trace_context,
            )
        )
