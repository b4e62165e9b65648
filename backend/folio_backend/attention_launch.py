"""Applies steps of attention sessions: as many as may run together in one launch, one launch after another.

Knows which steps may share a launch and how a failure is kept to the step that caused it. Does not know requests.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from folio_backend.attention_request import AttentionStep
from folio_backend.attention_sessions import AttentionSession, AttentionSessions
from folio_backend.errors import FolioError, Internal, Unavailable
from folio_backend.step import StepSequence, build_step
from folio_kernels.operations import ALL_LAYERS, Operations

OutputTensors = dict[str, NDArray[Any]]
Answer = OutputTensors | FolioError


@dataclass(frozen=True)
class BegunStep:
    """A step whose pages are taken; `index` is its request's place in the batch."""

    index: int
    step: AttentionStep
    session: AttentionSession


class StepLauncher:
    """Runs steps on one pool.

    Args:
        operations: the operations on it; its pages have one layer.
        sessions: whose pages they are.
    """

    def __init__(self, operations: Operations, sessions: AttentionSessions) -> None:
        self._operations = operations
        self._sessions = sessions

    def apply(self, steps: Mapping[int, AttentionStep], in_batch: Collection[str]) -> dict[int, Answer]:
        """Applies steps, those of one session in their order.

        Args:
            steps: by place in the batch, ascending.
            in_batch: sessions that no step evicts.

        Returns:
            By place: `output` `[1, T, heads, head_dim]` and `length` int32 `[1, 1]`, or why the step changed nothing.
        """
        answers: dict[int, Answer] = {}
        while len(answers) < len(steps):
            waiting = {index: step for index, step in steps.items() if index not in answers}
            wave, refused = self._begin_wave(waiting, in_batch)
            answers.update(refused)
            if wave:
                answers.update(self._run(wave, in_batch))
        return answers

    def _begin_wave(
        self, steps: Mapping[int, AttentionStep], in_batch: Collection[str]
    ) -> tuple[list[BegunStep], dict[int, FolioError]]:
        """Begins the first step of every session; those without room wait for what the wave gives back."""
        wave: list[BegunStep] = []
        refused: dict[int, FolioError] = {}
        spoken_for = set()
        for index, step in steps.items():
            if step.session_id in spoken_for:
                continue
            try:
                session = self._sessions.begin_step(step.session_id, step.position, step.num_tokens, in_batch)
            except FolioError as error:
                if not (isinstance(error, Unavailable) and wave):
                    refused[index] = error
                    continue
            else:
                wave.append(BegunStep(index, step, session))
            spoken_for.add(step.session_id)
        return wave, refused

    def _run(self, wave: Sequence[BegunStep], in_batch: Collection[str]) -> dict[int, Answer]:
        try:
            outputs = self._attend(wave)
        except Exception as error:  # noqa: BLE001 - a fault of ours belongs to the step that caused it
            for begun in wave:
                self._sessions.roll_back(begun.session)
            return self._run_apart(wave, in_batch, error)
        for begun in wave:
            self._sessions.commit(begun.session, begun.step.num_tokens)
        return {
            begun.index: {"output": output[None], "length": np.array([[begun.session.num_tokens]], dtype=np.int32)}
            for begun, output in zip(wave, outputs, strict=True)
        }

    def _run_apart(self, wave: Sequence[BegunStep], in_batch: Collection[str], error: Exception) -> dict[int, Answer]:
        """After a launch that failed: each of its steps alone, and the one that fails alone is refused."""
        if len(wave) == 1:
            sentence = f"The backend failed on this step ({type(error).__name__})."
            return {wave[0].index: Internal(sentence, reason="model_failure")}
        answers: dict[int, Answer] = {}
        for begun in wave:
            answers.update(self.apply({begun.index: begun.step}, in_batch))
        return answers

    @torch.inference_mode()
    def _attend(self, wave: Sequence[BegunStep]) -> list[NDArray[Any]]:
        """One launch: each step's output `[tokens, heads, head_dim]`, of the query's dtype."""
        # Of the token ids only the number counts: there is no model to read them.
        sequences = [StepSequence(b.session.table, [0] * b.step.num_tokens, wants_logits=False) for b in wave]
        step, operations = build_step(sequences), self._operations
        device = operations.pool.device
        query, key, value = (
            torch.cat([getattr(b.step, name) for b in wave]).to(device) for name in ("query", "key", "value")
        )
        operations.append(0, key, value, step.attention.slots)
        if len(step.attention.seal_raw):
            operations.seal(ALL_LAYERS, step.attention.seal_raw, step.attention.seal_sealed)
        output = operations.attend(0, query, step.attention, query.shape[-1] ** -0.5).cpu()
        if len(step.seal_after_raw):
            operations.seal(ALL_LAYERS, step.seal_after_raw, step.seal_after_sealed)
        return [part.numpy() for part in output.split([b.step.num_tokens for b in wave])]
