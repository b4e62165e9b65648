"""The sessions behind a level, and perf_analyzer's input data for them.

Every row names its session, so that what is measured is what was meant: a new session is begun by one row only, and a
resumed one has its history before the measurement. Resumed generations each get a fork of one history; steps of an
attention session follow on each other. All sessions are closed after their level.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from folio_client import Client, NotFound
from folio_sweep.level_run import Row
from folio_sweep.options import TaskOptions
from folio_sweep.series import Level, Workload
from folio_sweep.target import AttentionShape, Target

# Everyday English, so that a word is about one token.
TEXT = (
    "the old house by the river has a red door and a small garden where two cats sleep in the sun while people walk "
    "past with bread from the shop on their way home to read a good book about ships that sail over a wide blue sea"
)
QUESTION_WORDS = 8
# Steps on a clock can overtake an answer: with this many sessions they seldom meet in one.
MAX_CLOCKED_SESSIONS = 64
HISTORY_STEP_TOKENS = 256


@dataclass(frozen=True)
class SessionPlan:
    """What the requests of a level are to be.

    Attributes:
        target: the model they go to.
        level: the load.
        workload: "new" or "resumed".
        sizes: lengths of prompts and histories.
        output_tokens: tokens that a generation asks for.
    """

    target: Target
    level: Level
    workload: Workload
    sizes: TaskOptions
    output_tokens: int


@contextlib.contextmanager
def prepared_rows(plan: SessionPlan) -> Iterator[list[Row]]:
    """Makes a level's histories and yields the input data, a row for each request; closes the sessions at the end.

    Raises:
        FolioError: the server refuses a history.
    """
    target, run_id = plan.target, f"sweep-{secrets.token_hex(4)}"
    with (
        Client(f"grpc://{target.address}", model=target.model, attention_model=target.model) as client,
        contextlib.ExitStack() as sessions,
    ):
        if target.shape is None:
            yield _generate_rows(client, sessions, plan, run_id)
        else:
            yield _attention_rows(client, sessions, plan, run_id)


def _generate_rows(client: Client, sessions: contextlib.ExitStack, plan: SessionPlan, run_id: str) -> list[Row]:
    ids = [f"{run_id}-{index}" for index in range(plan.level.num_requests)]
    for session_id in ids:
        sessions.callback(_close, client.admin.close, session_id)
    if plan.workload == "new":
        # The session's own name comes first: no page of another prompt can be used.
        texts = [f"{session_id} {words(plan.sizes.prompt_length, seed)}" for seed, session_id in enumerate(ids)]
    else:
        _fork_history(client, f"{run_id}-history", plan.sizes.history_length, ids)
        texts = [f" {words(QUESTION_WORDS, seed)}" for seed in range(len(ids))]
    sampling = json.dumps({"temperature": 0, "max_tokens": plan.output_tokens, "ignore_eos": True})
    asked = {"stream": [True], "return_num_input_tokens": [True], "return_num_output_tokens": [True]}
    return [
        {"text_input": [text], "session_id": [session_id], "sampling_parameters": [sampling], **asked}
        for text, session_id in zip(texts, ids, strict=True)
    ]


def _fork_history(client: Client, history_id: str, num_words: int, session_ids: Sequence[str]) -> None:
    with client.session(history_id) as history:
        history.generate(f"{history_id} {words(num_words, 0)}", max_tokens=1, temperature=0)
        for session_id in session_ids:
            client.admin.fork(history_id, session_id)


def _attention_rows(client: Client, sessions: contextlib.ExitStack, plan: SessionPlan, run_id: str) -> list[Row]:
    level, sizes, shape = plan.level, plan.sizes, plan.target.shape
    assert shape is not None, "it is an attention model"
    is_new, is_clocked = plan.workload == "new", level.mode == "request_rate"
    most = MAX_CLOCKED_SESSIONS if is_clocked else int(level.value)
    num_sessions = level.num_requests if is_new else min(level.num_requests, most)
    random = np.random.default_rng(0)
    for index in range(num_sessions):
        sessions.callback(_close, client.attention.admin.close, f"{run_id}-{index}")
        if not is_new:
            _append_history(client, f"{run_id}-{index}", shape, sizes.history_length, random)
    num_tokens, start = (sizes.prompt_length, 0) if is_new else (1, sizes.history_length)
    rows: list[Row] = []
    for index in range(level.num_requests):
        row: dict[str, Any] = {name: _content(tensor) for name, tensor in _tokens(shape, num_tokens, random).items()}
        row["session_id"] = [f"{run_id}-{index % num_sessions}"]
        if is_new or not is_clocked:
            # A step that is sent twice, or out of turn, is then refused instead of measured.
            row["position"] = [start + index // num_sessions]
        rows.append(row)
    return rows


def _append_history(
    client: Client, session_id: str, shape: AttentionShape, num_tokens: int, random: np.random.Generator
) -> None:
    for position in range(0, num_tokens, HISTORY_STEP_TOKENS):
        tokens = _tokens(shape, min(HISTORY_STEP_TOKENS, num_tokens - position), random)
        client.attention.step(session_id, tokens["query"], tokens["key"], tokens["value"], position=position)


def _tokens(shape: AttentionShape, num_tokens: int, random: np.random.Generator) -> dict[str, npt.NDArray[Any]]:
    """Queries, keys and values as a layer sees them: normally distributed."""
    heads = {"query": shape.num_heads, "key": shape.num_kv_heads, "value": shape.num_kv_heads}
    return {
        name: random.standard_normal((num_tokens, num_heads, shape.head_dim)).astype(shape.dtype)
        for name, num_heads in heads.items()
    }


def _content(tensor: npt.NDArray[Any]) -> dict[str, Any]:
    """A tensor as perf_analyzer's input data has it."""
    return {"b64": base64.b64encode(tensor.tobytes()).decode(), "shape": list(tensor.shape)}


def words(num_words: int, seed: int) -> str:
    """A text without much meaning, the same for the same seed."""
    return " ".join(np.random.default_rng(seed).choice(TEXT.split(), num_words))


def _close(close: Callable[[str], int], session_id: str) -> None:
    with contextlib.suppress(NotFound):  # its request never came, or it was evicted
        close(session_id)
