"""The engine: one thread that schedules, runs, samples and emits, step after step.

Knows when things happen and that one request's trouble stays its own. How pages are taken is the scheduler's, how a
prompt is made the admission's, what a client is told the responder's. Everything but `_run` and `_sample` happens
under one lock, held for milliseconds, so that `submit`, `cancel` and operations never wait for a model's forward.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

from folio_backend.choice_ending import accept_token
from folio_backend.engine_parts import EngineParts
from folio_backend.errors import Cancelled, FolioError, Internal, Unavailable
from folio_backend.generation import Choice, Generation, Prompt, ResponseChannel
from folio_backend.request import GenerateRequest
from folio_backend.responses import Responder
from folio_backend.sampler import SampledToken, sample
from folio_backend.sampling_row import sampling_row
from folio_backend.scheduler import Schedule
from folio_backend.step import StepSequence, build_step
from folio_backend.timings import timings_of

Result = TypeVar("Result")


class Engine:
    """Serves generations over one model.

    Args:
        parts: what it is made of; nobody else uses them while the engine runs.
    """

    def __init__(self, parts: EngineParts) -> None:
        self.parts = parts
        self.live: dict[Generation, Responder | None] = {}
        self.heartbeat_s = time.time()
        self._wakeup = threading.Condition(threading.RLock())
        self.integrity_error: str | None = None
        self._is_draining = False
        self._is_stopped = False
        self._recent_s: deque[float] = deque([1.0], maxlen=16)
        self._is_running = False

    def start(self) -> None:
        """Runs it on a thread of its own."""
        self._is_running = True
        threading.Thread(target=self.run, name="folio-engine", daemon=True).start()

    def submit(self, request: GenerateRequest, prompt: Prompt, channel: ResponseChannel) -> Generation:
        """Puts a request into the queue.

        Raises:
            FolioError: it is refused; nothing has changed.
        """
        with self._wakeup:
            if self._is_draining:
                raise Unavailable("The server is shutting down.", retry_after_ms=5_000, reason="draining")
            num_queued = sum(generation.first_step_s is None for generation in self.live)
            self.parts.admission.check_queue(num_queued, sum(self._recent_s) / len(self._recent_s))
            generation = self.parts.admission.generation(request, prompt, channel)
            self._enqueue(generation)
            self._wakeup.notify()
            return generation

    def cancel(self, wanted: Callable[[Generation], bool], sentence: str = "The request was cancelled.") -> int:
        """Ends matching generations by the end of the next step; returns how many."""
        with self._wakeup:
            matching = [generation for generation in self.live if wanted(generation)]
            for generation in matching:
                generation.cancel_reason = sentence
            self._wakeup.notify()
            return len(matching)

    def locked(self, action: Callable[[], Result]) -> Result:
        """Runs a short action between two of the engine's own changes."""
        with self._wakeup:
            return action()

    def drain(self) -> None:
        """Refuses what is new from now on and returns when all that is live has ended."""
        with self._wakeup:
            self._is_draining = True
            self._wakeup.wait_for(lambda: not self.live)

    def stop(self) -> None:
        """Ends `run`; what is still live gets an error."""
        with self._wakeup:
            self._is_draining = self._is_stopped = True
            self._wakeup.notify_all()
            self._wakeup.wait_for(lambda: not self._is_running)
            while self.live:
                self._fail(next(iter(self.live)), Unavailable("The server is shutting down.", reason="draining"))

    def check_integrity(self) -> None:
        """Checks the pages against every table there is; see `PageStore.check_integrity`."""
        with self._wakeup:
            tables = {choice.table for generation in self.live for choice in generation.choices}
            tables |= {session.table for session in self.parts.sessions}
            self.parts.cache.store.check_integrity(tables)

    def run(self) -> None:
        """Steps on the calling thread until `stop`."""
        self._is_running = True
        try:
            while not self._is_stopped:
                self.heartbeat_s = time.time()
                if self.live:
                    self._step_or_abandon()
                else:
                    self._rest()
        finally:
            with self._wakeup:
                self._is_running = False
                self._wakeup.notify_all()

    def _rest(self) -> None:
        """Waits for work; what has just come to rest is checked once."""
        with self._wakeup:
            try:
                self.check_integrity()
            except AssertionError as error:
                self.integrity_error = str(error)
            self._wakeup.notify_all()
            while not self.live and not self._is_stopped:
                self._wakeup.wait(timeout=1.0)
                self.heartbeat_s = time.time()

    def _step_or_abandon(self) -> None:
        """A step. After a fault outside of the model nobody is known to have caused it: all that is live ends."""
        try:
            self.step()
        except Exception as error:  # noqa: BLE001 - the thread must live on, and `health` tell what happened
            with self._wakeup:
                self.integrity_error = f"a step failed outside of the model ({type(error).__name__})"
                while self.live:
                    sentence = f"The engine failed ({type(error).__name__})."
                    self._fail(next(iter(self.live)), Internal(sentence, reason="engine_failure"))

    def step(self) -> None:
        """One iteration: schedule, run, sample, emit."""
        schedule = self._schedule()
        if not schedule:
            return
        try:
            choices, logits = self._run(schedule)
            tokens = self._sample(choices, logits)
        except Exception as error:  # noqa: BLE001 - whatever a model raises belongs to the requests of this step
            self._isolate(schedule, error)
            return
        self._emit(schedule, tokens)

    def _schedule(self) -> Schedule:
        with self._wakeup:
            now_s = time.monotonic()
            for generation in list(self.live):
                if generation not in self.live:
                    continue  # refused just now: the end of the turn before it was the beginning of its own
                if generation.cancel_reason is None and generation.deadline_s < now_s:
                    generation.cancel_reason = f"The deadline of {generation.request.deadline_ms} ms has passed."
                if generation.cancel_reason is not None:
                    self._fail(generation, Cancelled(generation.cancel_reason, reason="cancelled"))
            return self.parts.scheduler.schedule()

    def _run(self, schedule: Schedule) -> tuple[list[Choice], torch.Tensor]:
        """Computes the step; returns the choices that get a token and their logits `[choices, vocabulary]`."""
        sequences = []
        for choice, num_new in schedule.items():
            start = choice.table.num_computed_tokens
            token_ids = choice.token_ids[start : start + num_new]
            sequences.append(StepSequence(choice.table, token_ids, num_new == choice.num_left))
        sampling = [choice for choice, num_new in schedule.items() if num_new == choice.num_left]
        return sampling, self.parts.runner.run(build_step(sequences))

    def _sample(self, choices: list[Choice], logits: torch.Tensor) -> Mapping[Choice, SampledToken | Internal]:
        if not choices:
            return {}
        rows = [sampling_row(choice, self.parts.tokenizer.eos_token_ids) for choice in choices]
        return dict(zip(choices, sample(logits, rows), strict=True))

    def _emit(self, schedule: Schedule, tokens: Mapping[Choice, SampledToken | Internal]) -> None:
        with self._wakeup:
            for choice, num_new in schedule.items():
                self.parts.cache.commit(choice.table, choice.token_ids, num_new)
                self.parts.scheduler.committed(choice)
                self.parts.scheduler.succeeded(choice)
            touched: dict[Generation, FolioError | None] = {}
            for choice, token in tokens.items():
                failure = self._accept(choice, token)
                touched[choice.generation] = touched.get(choice.generation) or failure
            for generation, failure in touched.items():
                if failure is not None:
                    self._fail(generation, failure)
                else:
                    self._respond(generation)

    def _accept(self, choice: Choice, token: SampledToken | Internal) -> FolioError | None:
        """Gives a choice its token; returns the error of one whose logits are broken."""
        if isinstance(token, Internal):
            return token
        now_s = time.monotonic()
        generation = choice.generation
        generation.first_token_s = generation.first_token_s or now_s
        generation.last_token_s = now_s
        try:
            accept_token(choice, token, self.parts.tokenizer.eos_token_ids, self.parts.max_model_tokens)
        except Exception as error:  # noqa: BLE001 - a text that cannot be decoded belongs to this request alone
            return Internal(f"The text failed to decode ({type(error).__name__}).", reason="decode_failure")
        if choice.finish_reason is not None:
            self._retire(choice)
        return None

    def _respond(self, generation: Generation) -> None:
        responder = self.live[generation]
        assert responder is not None
        try:
            response = responder.next_response()
            if response is not None:
                generation.channel.send(response)
        except Exception as error:  # noqa: BLE001 - an answer that cannot be made or sent belongs to its request alone
            self._fail(generation, Internal(f"The answer failed ({type(error).__name__}).", reason="answer_failure"))
            return
        if generation.is_finished:
            self._forget(generation)

    def _fail(self, generation: Generation, error: FolioError) -> None:
        """Ends a generation early; a session keeps what was emitted of it."""
        for choice in generation.choices:
            if choice.finish_reason is None:
                choice.finish_reason = error.reason
                self._retire(choice)
        generation.channel.fail(error)
        self._forget(generation, error)

    def _retire(self, choice: Choice) -> None:
        """Takes a choice out of the batch; its pages go to its session or back to the cache."""
        self.parts.scheduler.remove(choice)
        session = choice.generation.session
        if session is None:
            self.parts.cache.release(choice.table)
        else:
            self.parts.sessions.rest(session, choice.token_ids if choice.sampled else session.token_ids)
            session.num_turns += bool(choice.sampled)

    def _forget(self, generation: Generation, error: FolioError | None = None) -> None:
        """Ends a generation's life here, lets the next one of its session begin, and tells its channel its timings."""
        del self.live[generation]
        session = generation.session
        if session is not None:
            session.generations.remove(generation)
            self._start_next(session.generations)
            self.parts.sessions.discard_if_empty(session)
        timings = timings_of(generation, error)
        self._recent_s.append(timings.end_to_end_s)
        generation.channel.end(timings)

    def _start_next(self, generations: deque[Generation]) -> None:
        """Gives the first generation in a session's line its choices, passing over those that are refused."""
        while generations and not generations[0].choices:
            generation = generations[0]
            try:
                generation.choices = self.parts.admission.choices(generation)
            except FolioError as error:
                generations.popleft()
                del self.live[generation]
                generation.channel.fail(error)
                generation.channel.end(timings_of(generation, error))
            else:
                self._enqueue(generation)

    def _enqueue(self, generation: Generation) -> None:
        has_choices = bool(generation.choices)
        self.live[generation] = Responder(generation, self.parts.tokenizer.decode_all) if has_choices else None
        for choice in generation.choices:
            self.parts.scheduler.add(choice)

    def _isolate(self, schedule: Schedule, error: Exception) -> None:
        """After a failed step: the one request in it is at fault, or each of them runs alone until it is found."""
        with self._wakeup:
            for choice in schedule:
                self.parts.cache.roll_back(choice.table)
            if len(schedule) > 1:
                self.parts.scheduler.isolate(schedule)
                return
            (choice,) = schedule
            sentence = f"The model failed on this request ({type(error).__name__})."
            self._fail(choice.generation, Internal(sentence, reason="model_failure"))
