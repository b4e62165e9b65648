"""The service behind a model of `task: generate`: requests in, responses out, without knowing the server.

Knows how a request becomes a generation or an operation's answer, and how an answer becomes tensors.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch

from folio_backend import engine_state
from folio_backend.admin import Admin
from folio_backend.engine_thread import start_engine
from folio_backend.loader import load_engine
from folio_backend.metrics import MetricsRecorder
from folio_backend.operations import check_admin
from folio_backend.recompilations import RecompilationCounter
from folio_backend.request import GenerateRequest, Operation, RequestLimits
from folio_backend.request_parser import parse_request
from folio_backend.server_request import ServerRequest, Tensors, strings

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from folio_backend.config import Settings
    from folio_backend.generation import Generation, ResponseChannel
    from folio_backend.metrics import EngineSnapshot

MAX_BYTES_PER_TOKEN = 64
"""A text longer than this many bytes per token of the longest history is refused before it is tokenised."""


class GenerateService:
    """Generation by one model.

    Args:
        settings: what to serve and how.
        device: where.
        progress: told in a sentence what loading is doing.

    Attributes:
        recorder: where requests are counted.

    Raises:
        ConfigurationError: it cannot be served.
    """

    def __init__(self, settings: Settings, device: Literal["cpu", "cuda"], progress: Callable[[str], None]) -> None:
        if settings.num_threads is not None:
            torch.set_num_threads(settings.num_threads)
        self.recorder = MetricsRecorder()
        self._engine = start_engine(lambda: load_engine(settings, device, progress))
        self._recompilations = RecompilationCounter()
        parts = self._engine.parts
        self._limits = RequestLimits(
            max_text_bytes=MAX_BYTES_PER_TOKEN * parts.max_model_tokens,
            max_model_tokens=parts.max_model_tokens,
            vocabulary_size=parts.vocabulary_size,
            max_choices=settings.max_choices,
        )
        self._admin = Admin(self._engine, settings.describe(), self._recompilations.count)
        self._admin_token = None if settings.admin_token is None else settings.admin_token.get_secret_value()

    def snapshot(self) -> EngineSnapshot:
        """The engine's state for metrics."""
        return engine_state.snapshot(self._engine, self._recompilations.count())

    def parse(self, request: ServerRequest) -> GenerateRequest | Operation:
        """What a request asks for.

        Raises:
            InvalidArgument: names the field and what it allows, also where an operation is not allowed.
        """
        parsed = parse_request(
            request.inputs,
            request.parameters,
            self._limits,
            request_id=request.request_id,
            correlation_id=request.correlation_id,
        )
        if isinstance(parsed, Operation):
            check_admin(parsed, self._admin_token)
        return parsed

    def operate(self, operation: Operation) -> Tensors:
        """Carries an operation out.

        Raises:
            FolioError: it is not possible.
        """
        return {"result": strings([json.dumps(self._admin.run(operation))])}

    def generate(self, request: GenerateRequest, channel: ResponseChannel) -> Generation:
        """Puts a request into the queue; its responses go to the channel.

        Raises:
            FolioError: it is refused.
        """
        return self._engine.submit(request, self._engine.parts.tokenizer.prompt(request), channel)

    def cancel(self, generation: Generation) -> None:
        """Ends a generation by the end of the next step."""
        self._engine.cancel(lambda live: live is generation)

    def close(self) -> None:
        """Finishes what runs, then stops."""
        self._engine.drain()
        self._engine.stop()
