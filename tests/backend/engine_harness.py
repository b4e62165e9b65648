"""A real engine over a tiny model, stepped by hand, for tests.

Nothing runs on its own: `EngineHarness.run` steps until everything has ended, so that a test decides what happens
between which two steps. The logits behind every sampled token are kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel

from folio_backend.admission import Admission, AdmissionLimits
from folio_backend.cache.eviction import LeastRecentlyUsed
from folio_backend.cache.kv_cache import KVCache
from folio_backend.cache.page import PageKind, PageState
from folio_backend.cache.page_store import PageCount, PageStore
from folio_backend.cache.prefix_key import PrefixKeys
from folio_backend.engine import Engine
from folio_backend.engine_parts import EngineParts
from folio_backend.errors import FolioError, Internal
from folio_backend.generation import Choice, Generation, Prompt
from folio_backend.model_check import head_dim, num_kv_heads
from folio_backend.model_runner import ModelRunner
from folio_backend.query_calibration import measure_key_guide
from folio_backend.request import GenerateRequest, Message, OutputOptions
from folio_backend.request_timings import RequestTimings
from folio_backend.responses import GenerateResponse
from folio_backend.sampler import SampledToken
from folio_backend.sampling_parameters import SamplingParameters
from folio_backend.scheduler import Scheduler
from folio_backend.sessions import SessionRegistry
from folio_backend.step import StepInput
from folio_backend.text_tokenizer import TextTokenizer
from folio_kernels.codecs import codec_named
from folio_kernels.mixed_pool import layout_of, pool_of
from folio_kernels.operations import operations_for
from tests.backend.tiny_models import random_ids, tokenizer

MAX_MODEL_TOKENS = 4096
MOST_STEPS = 5_000


@dataclass(frozen=True)
class EngineSize:
    """The bounds that a test may want tight."""

    codec: str = "none"
    """Of all layers, or several, which the layers take turns with: `int4+none`."""
    raw_pages: int = 80
    sealed_pages: int = 200
    sink_pages: int = 1
    max_running: int = 16
    max_step_tokens: int = 512
    max_queued: int = 64
    max_sessions: int = 100


@dataclass(eq=False)
class Answer:
    """What a client got: a channel that remembers."""

    responses: list[GenerateResponse] = field(default_factory=list)
    error: FolioError | None = None
    timings: RequestTimings | None = None

    def send(self, response: GenerateResponse) -> None:
        """Keeps a response; nothing may follow an end."""
        assert not self.has_ended, "a response after the end"
        self.responses.append(response)

    def fail(self, error: FolioError) -> None:
        """Keeps the error."""
        assert not self.has_ended, "an error after the end"
        self.error = error

    def end(self, timings: RequestTimings) -> None:
        """Keeps the timings; they come once, last."""
        assert self.has_ended, "timings before the end"
        assert self.timings is None, "timings twice"
        self.timings = timings

    @property
    def has_ended(self) -> bool:
        """Whether it got its one end."""
        return self.error is not None or any(response.is_final for response in self.responses)

    @property
    def texts(self) -> list[str]:
        """Each choice's whole text."""
        assert self.error is None, self.error
        return ["".join(parts) for parts in zip(*(response.texts for response in self.responses), strict=True)]


@dataclass(frozen=True)
class Turn:
    """A request in the engine."""

    generation: Generation
    answer: Answer

    @property
    def output_ids(self) -> list[int]:
        """Token ids of the first choice."""
        return self.generation.choices[0].output_token_ids


class WatchedRunner(ModelRunner):
    """Counts the tokens it computes; one token id makes it raise, another makes a row's logits NaN."""

    num_computed_tokens = 0
    poison_id: int | None = None
    nan_id: int | None = None

    def run(self, step: StepInput) -> torch.Tensor:
        """See `ModelRunner.run`."""
        self.num_computed_tokens += len(step.token_ids)
        logits = super().run(step)
        if self.poison_id is not None and bool((step.token_ids == self.poison_id).any()):
            raise RuntimeError("poisoned")
        if self.nan_id is not None:
            return logits.masked_fill((step.token_ids[step.logits_rows] == self.nan_id).unsqueeze(-1), torch.nan)
        return logits


class RecordingEngine(Engine):
    """Remembers the logits that each choice's tokens were sampled from."""

    def __init__(self, parts: EngineParts) -> None:
        super().__init__(parts)
        self.logits: dict[Choice, list[torch.Tensor]] = {}

    def _sample(self, choices: list[Choice], logits: torch.Tensor) -> Mapping[Choice, SampledToken | Internal]:
        for choice, row in zip(choices, logits, strict=True):
            self.logits.setdefault(choice, []).append(row)
        return super()._sample(choices, logits)


CALIBRATION_TOKENS = 128
"""Two pieces: every harness measures for itself."""


class EngineHarness:
    """An engine and short ways to use it.

    Args:
        model: served; its attention is set to ours.
        size: the bounds.
    """

    def __init__(self, model: PreTrainedModel, size: EngineSize) -> None:
        names = itertools.islice(itertools.cycle(size.codec.split("+")), model.config.num_hidden_layers)
        layout = layout_of(
            [codec_named(name) for name in names],
            num_kv_heads(model.config),
            head_dim(model.config),
            torch.float32 if size.codec == "none" else torch.float16,
        )
        is_guided = any(codec.guides_keys for codec in layout.codecs)
        key_guide = measure_key_guide(model, random_ids(CALIBRATION_TOKENS)) if is_guided else None
        pool = pool_of(layout, size.raw_pages, size.sealed_pages, key_guide=key_guide)
        self.runner = WatchedRunner(model, operations_for(pool, compiled=False))
        self.cache = KVCache(
            PageStore(PageCount(size.raw_pages, size.sealed_pages), LeastRecentlyUsed()), size.sink_pages
        )
        self.sessions = SessionRegistry(self.cache, size.max_sessions)
        self.tokenizer = TextTokenizer(tokenizer())
        self.engine = RecordingEngine(self._parts(size))

    def _parts(self, size: EngineSize) -> EngineParts:
        limits = AdmissionLimits(MAX_MODEL_TOKENS, size.max_queued, size.max_running)

        def prefix_keys(tenant: str) -> PrefixKeys:
            return PrefixKeys(tenant.encode(), b"weights", b"format")

        return EngineParts(
            runner=self.runner,
            cache=self.cache,
            scheduler=Scheduler(self.cache, size.max_running, size.max_step_tokens),
            sessions=self.sessions,
            admission=Admission(self.cache, self.sessions, self.tokenizer, prefix_keys, limits),
            tokenizer=self.tokenizer,
            max_model_tokens=MAX_MODEL_TOKENS,
            vocabulary_size=self.runner.vocabulary_size,
        )

    def submit(self, request: GenerateRequest, prompt: Prompt | None = None) -> Turn:
        """Puts a request into the queue."""
        answer = Answer()
        prompt = self.tokenizer.prompt(request) if prompt is None else prompt
        return Turn(self.engine.submit(request, prompt, answer), answer)

    def submit_ids(self, token_ids: Sequence[int], num_tokens: int = 8, session_id: str | None = None) -> Turn:
        """A greedy request of exactly these prompt tokens for exactly so many more."""
        request = text_request(max_tokens=num_tokens, ignore_eos=True, session_id=session_id)
        return self.submit(request, Prompt(list(token_ids)))

    def steps(self, count: int) -> None:
        """Takes so many steps."""
        for _ in range(count):
            self.engine.step()
            self.engine.check_integrity()

    def run(self) -> None:
        """Steps until everything has ended."""
        for _ in range(MOST_STEPS):
            if not self.engine.live:
                return
            self.engine.step()
        raise AssertionError("the engine does not come to an end")

    def logits(self, turn: Turn, index: int = 0) -> torch.Tensor:
        """The logits behind a choice's tokens, `[tokens, vocabulary]`."""
        return torch.stack(self.engine.logits[turn.generation.choices[index]])

    def num_pages(self, kind: PageKind, state: PageState) -> int:
        """Pages of a kind in a state."""
        return self.cache.store.count_states()[kind, state]

    def check_at_rest(self) -> None:
        """Nothing is live, nothing is lost, nothing but idle sessions' open pages is held."""
        assert not self.engine.live
        assert not self.engine.parts.scheduler.has_work
        self.engine.check_integrity()
        num_open = sum(session.table.open_page is not None for session in self.sessions)
        assert self.num_pages(PageKind.RAW, PageState.HELD) == num_open
        assert self.num_pages(PageKind.SEALED, PageState.HELD) == 0


def text_request(
    text: str | None = "",
    *,
    messages: Sequence[tuple[str, str]] | None = None,
    stream: bool = False,
    exclude_input: bool = True,
    session_id: str | None = None,
    session_length: int | None = None,
    priority: int = 0,
    deadline_ms: int | None = None,
    tenant: str = "default",
    request_id: str = "",
    temperature: float = 0.0,
    **sampling: object,
) -> GenerateRequest:
    """A request with greedy sampling unless told otherwise."""
    return GenerateRequest(
        request_id=request_id,
        text=None if messages is not None else text,
        messages=None if messages is None else tuple(Message(role, content) for role, content in messages),
        sampling=SamplingParameters(temperature=temperature, **sampling),  # type: ignore[arg-type]
        output=OutputOptions(stream, exclude_input, *[False] * 5),
        session_id=session_id,
        session_length=session_length,
        priority=priority,
        deadline_ms=deadline_ms,
        tenant=tenant,
    )
