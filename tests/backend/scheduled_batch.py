"""A scheduler over a small cache with a model that takes no time: it commits whatever is scheduled."""

from __future__ import annotations

from collections.abc import Sequence

from folio_backend.cache.page_table import PageTable
from folio_backend.generation import Choice, Generation, Prompt
from folio_backend.sampler import SampledToken
from folio_backend.scheduler import Schedule, Scheduler
from folio_backend.text_stream import TextStream
from tests.backend.cache_histories import KEYS, cache_of
from tests.backend.engine_harness import Answer, text_request


class ScheduledBatch:
    """Adds choices, takes steps, and knows what each choice computed.

    Args:
        raw: raw pages.
        sealed: sealed pages.
        max_running: most choices in a batch.
        max_step_tokens: most tokens in a step.
    """

    def __init__(self, raw: int = 40, sealed: int = 40, max_running: int = 8, max_step_tokens: int = 128) -> None:
        self.cache = cache_of(raw, sealed)
        self.scheduler = Scheduler(self.cache, max_running, max_step_tokens)
        self.choices: list[Choice] = []
        self.num_computed: dict[Choice, int] = {}
        self._goals: dict[Choice, int] = {}

    def add(
        self, token_ids: Sequence[int], num_output: int = 1, *, priority: int = 0, deadline_ms: int | None = None
    ) -> Choice:
        """Puts a choice into the queue that ends after `num_output` tokens."""
        generation = Generation(
            text_request(priority=priority, deadline_ms=deadline_ms), Prompt([]), Answer(), arrival=len(self.choices)
        )
        stream = TextStream(lambda _: "", (), include_stop=False)
        choice = Choice(generation, 0, list(token_ids), len(token_ids), PageTable(KEYS), 0, stream)
        generation.choices = [choice]
        self.choices.append(choice)
        self.num_computed[choice], self._goals[choice] = 0, num_output
        self.scheduler.add(choice)
        return choice

    def step(self) -> Schedule:
        """One step of everything: what is scheduled is committed, what has come to its end leaves."""
        schedule = self.scheduler.schedule()
        gets_token = [choice for choice, num_new in schedule.items() if num_new == choice.num_left]
        for choice, num_new in schedule.items():
            self.cache.commit(choice.table, choice.token_ids, num_new)
            self.scheduler.committed(choice)
            self.num_computed[choice] += num_new
        for choice in gets_token:
            choice.token_ids.append(7)
            choice.sampled.append(SampledToken(7))
            if len(choice.sampled) == self._goals[choice]:
                self.end(choice)
        self.check_integrity()
        return schedule

    def end(self, choice: Choice) -> None:
        """Takes a choice out, as the engine does with one that has ended or was cancelled."""
        self.scheduler.remove(choice)
        self.cache.release(choice.table)
        choice.finish_reason = "stop"

    def check_integrity(self) -> None:
        """Checks the cache against every table."""
        self.cache.store.check_integrity(choice.table for choice in self.choices)
