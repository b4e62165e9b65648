"""What can be said about a generation besides its prompt: one set of names for every method.

Knows names and types; what values mean and which are allowed is the server's to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict


class SamplingOptions(TypedDict, total=False):
    """How tokens are chosen; names and defaults are vLLM's. See the backend's `sampling_parameters` for each."""

    n: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    seed: int
    stop: str | Sequence[str]
    stop_token_ids: Sequence[int]
    max_tokens: int
    min_tokens: int
    ignore_eos: bool
    logprobs: int
    include_stop_str_in_output: bool
    skip_special_tokens: bool


class GenerateOptions(SamplingOptions, total=False):
    """Sampling options, and those of the request itself.

    timeout_s: when to give up, in seconds; the client's own where it is not given. The server is told.
    request_id: a name for the request, by which it can be cancelled; the client makes one up.
    priority: lower goes first.
    cumulative_logprob: report the sum over each choice's tokens.
    sampling: further sampling parameters by name, for what another backend may know.
    """

    timeout_s: float
    request_id: str
    priority: int
    cumulative_logprob: bool
    sampling: Mapping[str, object]


REQUEST_OPTIONS = frozenset(GenerateOptions.__annotations__) - frozenset(SamplingOptions.__annotations__)
"""Names in `GenerateOptions` that are not sampling parameters."""


def sampling_parameters(options: GenerateOptions) -> dict[str, object]:
    """The sampling parameters among the options; names that nobody knows are left for the server to refuse."""
    named = {name: value for name, value in options.items() if name not in REQUEST_OPTIONS}
    return {**options.get("sampling", {}), **named}


def is_determined(options: GenerateOptions) -> bool:
    """Whether equal prompts give equal answers: tokens are chosen greedily, or from a named seed."""
    parameters = sampling_parameters(options)
    return parameters.get("temperature") == 0 or parameters.get("seed") is not None
