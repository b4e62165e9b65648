"""What a client may ask of sampling, read from JSON values or request parameters and checked.

Knows vLLM's parameter names, defaults and bounds, and at which values vLLM's other parameters do no harm.
Does not know how a token is drawn nor in which input the values came.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from folio_backend.errors import InvalidArgument
from folio_backend.field_values import INT32_MAX, boolean, integer, shown_name, wrong_type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# Below this a temperature means greedy, as in vLLM: dividing by it would only make infinities.
GREEDY_TEMPERATURE = 1e-5

_MAX_STOP_STRINGS = 16
_MAX_STOP_CHARACTERS = 256
_MAX_STOP_TOKEN_IDS = 128
_MAX_LOGPROBS = 20
_MAX_SHOWN_BITS = 64
_MAX_REPETITION_PENALTY = 1e6  # far beyond use, and every penalised logit stays a float32
_DECIMAL = re.compile(r"[+-]?([0-9]{1,32}\.?[0-9]{0,32}|\.[0-9]{1,32})([eE][+-]?[0-9]{1,4})?")

# vLLM's parameters that Folio does not have: accepted at these values (and at null), refused at any other.
_NEUTRAL_VALUES: Mapping[str, tuple[object, ...]] = {
    "allowed_token_ids": (),
    "bad_words": ([],),
    "detokenize": (True,),
    "early_stopping": (False,),
    "extra_args": ({},),
    "flat_logprobs": (False,),
    "guided_decoding": (),
    "length_penalty": (1.0,),
    "logit_bias": ({},),
    "logits_processors": ([],),
    "logprob_token_ids": (),
    "lora_name": (),
    "output_kind": (0, "CUMULATIVE"),
    "prompt_logprobs": (),
    "repetition_detection": (),
    "spaces_between_special_tokens": (True,),
    "stream_interval": (1,),
    "structured_outputs": (),
    "thinking_token_budget": (-1,),
    "truncate_prompt_tokens": (-1,),
    "use_beam_search": (False,),
}


@dataclass(frozen=True)
class SamplingParameters:
    """How the tokens of one request are chosen; names and defaults are vLLM's.

    Args:
        n: how many choices are drawn for the prompt.
        temperature: 0 (below 1e-5) means greedy.
        top_k: 0 means off.
        top_p: 1.0 means off.
        min_p: least probability relative to the likeliest token's; 0.0 means off.
        repetition_penalty: over prompt and output; 1.0 means off.
        presence_penalty: over the output; 0.0 means off.
        frequency_penalty: over the output, once per occurrence; 0.0 means off.
        seed: None lets the engine pick one.
        stop: strings that end the text.
        stop_token_ids: tokens that end the text, besides the model's own.
        max_tokens: most tokens to generate.
        min_tokens: tokens to generate before anything may end the text.
        ignore_eos: go on after the model's end-of-sequence tokens.
        logprobs: how many of the likeliest tokens to report per position; None reports nothing.
        include_stop_str_in_output: keep the matched stop string in the text.
        skip_special_tokens: leave special tokens out of the text.
    """

    n: int = 1
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    max_tokens: int = 16
    min_tokens: int = 0
    ignore_eos: bool = False
    logprobs: int | None = None
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature < GREEDY_TEMPERATURE


def parse_sampling_parameters(
    values: Mapping[str, object], *, vocabulary_size: int, max_choices: int
) -> SamplingParameters:
    """Read and check sampling parameters.

    A value may come as itself or as text: "0.7", "true", '["a", "b"]'. A text for `stop` that is not a JSON
    list of strings is one stop string. As in vLLM null means absent, `seed` -1 none and `top_k` -1 off.

    Args:
        values: the client's parameters by name, as JSON or the request gave them.
        vocabulary_size: number of token ids that the model has logits for.
        max_choices: the largest `n` served.

    Returns:
        The parameters, every one within its bounds.

    Raises:
        InvalidArgument: an unknown name, a value of the wrong type or out of bounds, or one of vLLM's other
            parameters away from its neutral value. Names field, value (never a string's) and bound.
    """
    given = {name: value for name, value in values.items() if value is not None}
    read = {name: _READERS[name](name, value) for name, value in given.items() if name in _READERS}
    parameters = SamplingParameters(**read)
    _check_limits(parameters, vocabulary_size, max_choices)
    neutral_values = {**_NEUTRAL_VALUES, "best_of": (parameters.n,)}
    for name in values.keys() - _READERS.keys():
        _check_neutral(name, values[name], neutral_values)
    return parameters


def _check_limits(parameters: SamplingParameters, vocabulary_size: int, max_choices: int) -> None:
    """Check what hangs on the model, the settings, or two parameters at once."""
    integer("n", parameters.n, 1, max_choices)
    for token_id in parameters.stop_token_ids:
        integer("stop_token_ids", token_id, 0, vocabulary_size - 1)
    if parameters.min_tokens > parameters.max_tokens:
        sentence = f"min_tokens is {parameters.min_tokens} with max_tokens {parameters.max_tokens}."
        raise InvalidArgument(sentence, field="min_tokens", allowed="integer from 0 to max_tokens")


def _check_neutral(name: str, value: object, neutral_values: Mapping[str, tuple[object, ...]]) -> None:
    """Refuse a name that is not vLLM's, or a value other than its neutral one; true is not 1 here."""
    if name not in neutral_values:
        shown = shown_name(name)
        raise InvalidArgument(f"{shown} is not a sampling parameter.", field=shown)
    neutral = (*neutral_values[name], None)
    meant = _json_or_text(value.lower()) if isinstance(value, str) else value
    if any(
        candidate == allowed and isinstance(candidate, bool) == isinstance(allowed, bool)
        for candidate in (value, meant)
        for allowed in neutral
    ):
        return
    raise InvalidArgument(f"{name} is not supported.", field=name, allowed=" or ".join(map(json.dumps, neutral)))


def _json_or_text(text: str) -> object:
    """What a text says as JSON, or the text itself when it is none."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value


def _number(name: str, value: object, *, low: float, high: float, above_low: bool = False) -> float:
    """A finite number from `low`, or above it, to `high`, or a text of one."""
    allowed = f"number {'above' if above_low else 'from'} {low} to {high}"
    if isinstance(value, str):
        if not _DECIMAL.fullmatch(value):
            raise InvalidArgument(f"{name} is a string that is no number.", field=name, allowed=allowed)
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong_type(name, value, allowed)
    # An integer may be too large to become a float, so the bounds come first; NaN is within no bounds.
    if not low <= value <= high or (above_low and value == low):
        shown = value if isinstance(value, float) or value.bit_length() <= _MAX_SHOWN_BITS else "an integer"
        raise InvalidArgument(f"{name} is {shown}, out of range.", field=name, allowed=allowed)
    return float(value)


def _top_k(name: str, value: object) -> int:
    return max(integer(name, value, -1, INT32_MAX), 0)


def _seed(name: str, value: object) -> int | None:
    seed = integer(name, value, -(2**63), 2**63 - 1)
    return None if seed == -1 else seed


def _stop_strings(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        listed = _json_or_text(value)
        is_list_of_strings = isinstance(listed, list) and all(isinstance(item, str) for item in listed)
        value = listed if is_list_of_strings else [value]
    items = _items(name, value, _MAX_STOP_STRINGS)
    return tuple(dict.fromkeys(_stop_string(name, item) for item in items))


def _stop_string(name: str, value: object) -> str:
    allowed = f"strings of 1 to {_MAX_STOP_CHARACTERS} characters"
    if not isinstance(value, str):
        raise wrong_type(name, value, allowed)
    if not 1 <= len(value) <= _MAX_STOP_CHARACTERS:
        raise InvalidArgument(f"{name} has a string of {len(value)} characters.", field=name, allowed=allowed)
    return value


def _stop_token_ids(name: str, value: object) -> tuple[int, ...]:
    listed = _json_or_text(value) if isinstance(value, str) else value
    items = _items(name, listed, _MAX_STOP_TOKEN_IDS)
    return tuple(dict.fromkeys(integer(name, item, 0, INT32_MAX) for item in items))


def _items(name: str, value: object, most: int) -> Sequence[object]:
    allowed = f"a list of at most {most}"
    if not isinstance(value, (list, tuple)):
        raise wrong_type(name, value, allowed)
    if len(value) > most:
        raise InvalidArgument(f"{name} has {len(value)} entries.", field=name, allowed=allowed)
    return value


_READERS: Mapping[str, Callable[[str, object], Any]] = {
    "n": partial(integer, minimum=1, maximum=INT32_MAX),
    "temperature": partial(_number, low=0.0, high=2.0),
    "top_k": _top_k,
    "top_p": partial(_number, low=0.0, above_low=True, high=1.0),
    "min_p": partial(_number, low=0.0, high=1.0),
    "repetition_penalty": partial(_number, low=0.0, above_low=True, high=_MAX_REPETITION_PENALTY),
    "presence_penalty": partial(_number, low=-2.0, high=2.0),
    "frequency_penalty": partial(_number, low=-2.0, high=2.0),
    "seed": _seed,
    "stop": _stop_strings,
    "stop_token_ids": _stop_token_ids,
    "max_tokens": partial(integer, minimum=1, maximum=INT32_MAX),
    "min_tokens": partial(integer, minimum=0, maximum=INT32_MAX),
    "ignore_eos": boolean,
    "logprobs": partial(integer, minimum=0, maximum=_MAX_LOGPROBS),
    "include_stop_str_in_output": boolean,
    "skip_special_tokens": boolean,
}
