"""Which choices compute how many tokens in the next step.

Decodes come first, then prefills in chunks, then admissions in the order of the queue. When pages run out, the
youngest running choice is preempted: it lets go of its pages and waits, its tokens kept. Knows nothing of models,
text or responses; runs under the engine's lock.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Iterable

from folio_backend.cache.kv_cache import KVCache
from folio_backend.cache.page_store import PageCount
from folio_backend.generation import Choice
from folio_kernels.layout import PAGE_SIZE

Schedule = dict[Choice, int]
"""How many tokens each choice computes in a step."""


class Scheduler:
    """The queue and the running batch.

    Args:
        cache: the pages.
        max_running: most choices in a batch.
        max_step_tokens: most tokens in a step.
    """

    def __init__(self, cache: KVCache, max_running: int, max_step_tokens: int) -> None:
        self.waiting: list[Choice] = []
        self.running: list[Choice] = []
        self.num_preemptions = 0
        self._cache = cache
        self._max_running = max_running
        self._max_step_tokens = max_step_tokens
        self._computing: dict[bytes, Choice] = {}
        self._alone: set[Choice] = set()

    @property
    def has_work(self) -> bool:
        """Whether any choice waits or runs."""
        return bool(self.waiting or self.running)

    def add(self, choice: Choice) -> None:
        """Puts a choice into the queue."""
        bisect.insort(self.waiting, choice, key=_order)

    def remove(self, choice: Choice) -> None:
        """Forgets a choice; its pages stay with its table."""
        self._stop_computing(choice)
        self._alone.discard(choice)
        for choices in (self.waiting, self.running):
            if choice in choices:
                choices.remove(choice)

    def isolate(self, choices: Iterable[Choice]) -> None:
        """Lets these choices run one at a time from now on: one of them made a step fail."""
        self._alone.update(choices)

    def succeeded(self, choice: Choice) -> None:
        """Lets a choice run beside others again."""
        self._alone.discard(choice)

    def schedule(self) -> Schedule:
        """Takes the pages of the next step and says who computes how many tokens in it."""
        schedule: Schedule = {}
        decoding = [choice for choice in self.running if choice.num_left == 1]
        prefilling = [choice for choice in self.running if choice.num_left > 1]
        # One that must run alone goes before all others, or it would wait until they have ended.
        for choice in sorted(decoding + prefilling, key=lambda choice: choice not in self._alone):
            if choice in self.running:
                self._schedule_one(choice, schedule)
        while self.waiting and len(self.running) < self._max_running and sum(schedule.values()) < self._max_step_tokens:
            choice = self.waiting[0]
            if not self._admit(choice):
                break
            self._schedule_one(choice, schedule)
        return schedule

    def _schedule_one(self, choice: Choice, schedule: Schedule) -> None:
        if self._must_wait_alone(choice, schedule):
            return
        budget = self._max_step_tokens - sum(schedule.values())
        if choice.num_left > 1 and self._waits_for_prefix(choice):
            return
        num_new = min(choice.num_left, budget)
        if num_new > 0 and self._take_pages(choice, num_new, schedule):
            self._start_computing(choice)

    def _must_wait_alone(self, choice: Choice, schedule: Schedule) -> bool:
        if not self._alone or not schedule:
            return False
        return choice in self._alone or any(other in self._alone for other in schedule)

    def _take_pages(self, choice: Choice, num_new: int, schedule: Schedule) -> bool:
        """Takes pages for `num_new` tokens, or for fewer, preempting the youngest as long as there are too few."""
        to_page_end = PAGE_SIZE - choice.table.num_computed_tokens % PAGE_SIZE
        while True:
            for count in dict.fromkeys((num_new, min(num_new, to_page_end))):
                if self._cache.extend(choice.table, count):
                    schedule[choice] = count
                    return True
            victim = self.running[-1]
            schedule.pop(victim, None)
            self._preempt(victim)
            if victim is choice:
                return False

    def _preempt(self, choice: Choice) -> None:
        self.num_preemptions += 1
        self.remove(choice)
        self._cache.release(choice.table)
        self.add(choice)

    def _admit(self, choice: Choice) -> bool:
        """Starts or resumes a waiting choice if the pages for its whole prompt are there, or nothing else runs."""
        started_s = time.monotonic()
        self._cache.wake(choice.table, choice.token_ids)
        if self.running and not self._cache.store.can_take(self._pages_left(choice)):
            self._cache.park(choice.table)
            return False
        self.waiting.pop(0)
        self.running.append(choice)
        generation = choice.generation
        if choice.num_cached_tokens is None:
            choice.num_cached_tokens = choice.table.num_computed_tokens
        if generation.first_step_s is None:
            generation.first_step_s = time.monotonic()
            generation.history_s = generation.first_step_s - started_s
        return True

    def _pages_left(self, choice: Choice) -> PageCount:
        """The sealed pages of all that is left to compute, and the raw ones of the first step of it."""
        computed = choice.table.num_computed_tokens
        first_step = self._cache.pages_for(computed, min(choice.num_left, self._max_step_tokens))
        return PageCount(first_step.raw, self._cache.pages_for(computed, choice.num_left).sealed)

    def _waits_for_prefix(self, choice: Choice) -> bool:
        """Adopts pages that have come up meanwhile; True while another running choice computes the next one."""
        table = choice.table
        if table.open_page is not None:
            return False
        before = table.num_computed_tokens
        self._cache.adopt(table, len(choice.token_ids) - 1)
        if not choice.sampled and choice.num_cached_tokens is not None:
            choice.num_cached_tokens += table.num_computed_tokens - before
        next_page = len(table.pages)
        if next_page >= (len(choice.token_ids) - 1) // PAGE_SIZE:
            return False
        return self._computing.get(table.keys[next_page], choice) is not choice

    def _start_computing(self, choice: Choice) -> None:
        """Claims the full pages that the choice is going to compute, as far as nobody has."""
        if choice.num_left > 1:
            for key in choice.table.keys[len(choice.table.pages) :]:
                self._computing.setdefault(key, choice)

    def _stop_computing(self, choice: Choice) -> None:
        for key in choice.table.keys:
            if self._computing.get(key) is choice:
                del self._computing[key]

    def committed(self, choice: Choice) -> None:
        """Gives up the claims on pages that a step has finished."""
        for key in choice.table.keys[: len(choice.table.pages)]:
            self._computing.pop(key, None)


def _order(choice: Choice) -> tuple[int, float, int, int]:
    return *choice.generation.order, choice.index
