"""What a request asks for, as values.

Knows the shape of a request that has passed every check: nothing here is half valid. Does not know how a
request arrives (`request_parser`), how it is tokenised or scheduled, or what an operation does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from folio_backend.sampling_parameters import SamplingParameters

DEFAULT_TENANT = "default"


@dataclass(frozen=True)
class RequestLimits:
    """How large a request may be, set once when the model is loaded.

    Args:
        max_text_bytes: most bytes of UTF-8 in `text_input`, and of JSON in `messages`.
        max_model_tokens: most tokens that one sequence can hold.
        vocabulary_size: number of token ids of the model.
        max_choices: largest `n`.
        max_id_bytes: most bytes of a request id or session id.
        max_document_bytes: most bytes of JSON in `sampling_parameters` and in `op`.
        max_messages: most entries of `messages`.
        max_deadline_ms: longest `deadline_ms`.
        forwarded_headers: lower-case names of the headers that the server forwards as request parameters.
            They are passed over: a client can put a parameter of the same name into the body.
    """

    max_text_bytes: int
    max_model_tokens: int
    vocabulary_size: int
    max_choices: int
    max_id_bytes: int = 256
    max_document_bytes: int = 65_536
    max_messages: int = 1_024
    max_deadline_ms: int = 86_400_000
    forwarded_headers: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Message:
    """One entry of a chat: who speaks, and what is said."""

    role: str
    content: str = field(repr=False)


@dataclass(frozen=True)
class OutputOptions:
    """How a request wants its answer.

    Args:
        stream: one response per piece of text instead of one at the end.
        exclude_input: leave the prompt out of `text_output`.
        finish_reason: send the output of this name, as the four that follow.
        cumulative_logprob: see `finish_reason`.
        logprobs: see `finish_reason`.
        num_input_tokens: see `finish_reason`.
        num_output_tokens: see `finish_reason`.
    """

    stream: bool
    exclude_input: bool
    finish_reason: bool
    cumulative_logprob: bool
    logprobs: bool
    num_input_tokens: bool
    num_output_tokens: bool


@dataclass(frozen=True)
class GenerateRequest:
    """A request for text.

    Args:
        request_id: what the client calls the request; empty when it gave no name.
        text: the prompt, or None when `messages` is given.
        messages: the whole chat, at least one entry, or None when `text` is given.
        sampling: how tokens are chosen.
        output: how the answer is wanted.
        session_id: the session that the request continues or starts.
        session_length: the tokens that the client believes the session holds.
        priority: orders the queue.
        deadline_ms: milliseconds after which the answer is of no use any more.
        tenant: who asks.
    """

    request_id: str
    text: str | None = field(repr=False)
    messages: tuple[Message, ...] | None = field(repr=False)
    sampling: SamplingParameters = field(repr=False)
    output: OutputOptions
    session_id: str | None
    session_length: int | None
    priority: int = 0
    deadline_ms: int | None = None
    tenant: str = DEFAULT_TENANT


@dataclass(frozen=True)
class Operation:
    """An admin operation whose arguments have passed the checks of its entry in `operations.OPERATIONS`.

    Args:
        name: the operation.
        arguments: argument name to value; optional arguments that were not given are absent.
        admin_token: the token as the client sent it, unchecked (`operations.check_admin`).
        tenant: who asks.
    """

    name: str
    arguments: Mapping[str, object]
    admin_token: str | None = field(default=None, repr=False)
    tenant: str = DEFAULT_TENANT
