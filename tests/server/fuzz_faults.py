"""Every kind of bad value, as tables: the fields of a request, and which of them the refusal must name.

Knows requests as fields, name to value; does not know how they are put on the wire.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

# Stands in every text that a request carries: no error text may repeat it.
CANARY = "xqzcanaryzqx"
PROMPT = f"{CANARY} Name a colour."
LONG_ID = "i" * 300
ONE_TURN = [{"role": "user", "content": PROMPT}]

Value: TypeAlias = "str | bytes | bool | int | float"
Fields: TypeAlias = Mapping[str, Value]


@dataclass(frozen=True)
class FieldFault:
    """A request that Folio refuses, by the field that the refusal names.

    Args:
        name: what is wrong.
        field: what the name of the refused field starts with.
        fields: the request's fields; bytes are sent as a tensor, what is called `parameter:` as a parameter,
            the rest either way.
        grpc_only: HTTP cannot carry it: JSON has no such value, or the server answers by itself.
    """

    name: str
    field: str
    fields: Fields
    grpc_only: bool = False


def with_prompt(name: str, field: str, fields: Fields, *, grpc_only: bool = False) -> FieldFault:
    """A fault of other fields beside a good prompt."""
    return FieldFault(name, field, {"text_input": PROMPT, **fields}, grpc_only)


def with_sampling(name: str, field: str, document: str) -> FieldFault:
    """A fault inside `sampling_parameters`."""
    return with_prompt(f"sampling_parameters {name}", field, {"sampling_parameters": document})


def with_messages(name: str, field: str, document: str) -> FieldFault:
    """A fault inside `messages`."""
    return FieldFault(f"messages {name}", field, {"messages": document})


def with_operation(name: str, field: str, document: str) -> FieldFault:
    """A fault inside `op`."""
    return FieldFault(f"op {name}", field, {"op": document})


_NESTED = "[" * 20_000 + "]" * 20_000

TEXT_FAULTS = (
    FieldFault("nothing given", "text_input", {}),
    FieldFault("only options given", "text_input", {"stream": False, "max_tokens": 2}),
    FieldFault("empty text", "text_input", {"text_input": ""}),
    FieldFault("text of 1 MB", "text_input", {"text_input": CANARY + "long " * 200_000}),
    FieldFault("text of 3 MB of one word", "text_input", {"text_input": CANARY * 250_000}),
    FieldFault("text that is not UTF-8", "text_input", {"text_input": CANARY.encode() + b"\xff\xfe"}),
    FieldFault("text with an encoded surrogate", "text_input", {"text_input": b"\xed\xa0\x80"}),
    with_prompt("text and messages", "messages", {"messages": json.dumps(ONE_TURN)}),
    with_prompt("text and operation", "op", {"op": '{"op": "stats"}'}),
    FieldFault(
        "text twice, differently",
        "text_input",
        {"text_input": PROMPT.encode(), "parameter:text_input": "other"},
        grpc_only=True,
    ),
)

OPTION_FAULTS = (
    with_prompt("unknown parameter", "no_such_parameter", {"no_such_parameter": 1}),
    with_prompt("unknown parameter with a long name", "k" * 40, {"k" * 2_000: "v"}),
    with_prompt("unknown parameter that cannot be printed", "", {"a\x1b[2Jb": "v"}),
    with_prompt("tenant in the body", "tenant", {"tenant": "someone else"}),
    with_prompt(
        "streaming with the prompt",
        "exclude_input_in_output",
        {"stream": True, "exclude_input_in_output": False},
    ),
    with_prompt("boolean that is a word", "stream", {"parameter:stream": "maybe"}, grpc_only=True),
    with_prompt("deadline of zero", "deadline_ms", {"deadline_ms": 0}),
    with_prompt("negative deadline", "deadline_ms", {"deadline_ms": -5}),
    with_prompt("deadline beyond its bound", "deadline_ms", {"deadline_ms": 2**31 - 1}),
    with_prompt("deadline beyond INT32", "deadline_ms", {"parameter:deadline_ms": 2**40}, grpc_only=True),
    with_prompt("deadline that is no number", "deadline_ms", {"parameter:deadline_ms": "soon"}, grpc_only=True),
    with_prompt("priority beyond INT32", "request_priority", {"parameter:request_priority": 2**31}, grpc_only=True),
)

SESSION_FAULTS = (
    with_prompt("empty session id", "session_id", {"session_id": ""}),
    with_prompt("oversized session id", "session_id", {"session_id": LONG_ID}),
    with_prompt("session id with a control character", "session_id", {"session_id": "a\nb"}),
    with_prompt("session id with a null", "session_id", {"session_id": "a\x00b"}),
    with_prompt("session id that is not UTF-8", "session_id", {"session_id": b"s\xff"}),
    with_prompt("length without a session", "session_length", {"session_length": 3}),
    with_prompt("negative session length", "session_length", {"session_id": "fuzz-none", "session_length": -1}),
    with_prompt(
        "session length beyond the model",
        "session_length",
        {"session_id": "fuzz-none", "session_length": 10**9},
    ),
    with_prompt("session length that is wrong", "session_length", {"session_id": "fuzz-none", "session_length": 17}),
    with_prompt("two choices in a session", "n", {"session_id": "fuzz-none", "n": 2}),
    with_prompt("oversized request id", "request_id", {"id": LONG_ID}),
)

SAMPLING_FAULTS = (
    with_prompt("temperature below zero", "temperature", {"temperature": -0.5}),
    with_prompt("temperature too high", "temperature", {"temperature": 1e30}),
    with_prompt("temperature that is no number", "temperature", {"temperature": "warm"}),
    with_prompt("temperature NaN", "temperature", {"temperature": float("nan")}, grpc_only=True),
    with_prompt("temperature infinite", "temperature", {"temperature": float("inf")}, grpc_only=True),
    with_prompt("temperature in words of NaN", "temperature", {"temperature": "nan"}),
    with_prompt("top_p of zero", "top_p", {"top_p": 0}),
    with_prompt("top_p above one", "top_p", {"top_p": 1.5}),
    with_prompt("top_k below its bound", "top_k", {"top_k": -2}),
    with_prompt("top_k that is a fraction", "top_k", {"top_k": 2.5}),
    with_prompt("min_p above one", "min_p", {"min_p": 2}),
    with_prompt("repetition_penalty of zero", "repetition_penalty", {"repetition_penalty": 0}),
    with_prompt("presence_penalty too high", "presence_penalty", {"presence_penalty": 9}),
    with_prompt("frequency_penalty too low", "frequency_penalty", {"frequency_penalty": -9}),
    with_prompt("n of zero", "n", {"n": 0}),
    with_prompt("n far too large", "n", {"n": 100_000}),
    with_prompt("max_tokens of zero", "max_tokens", {"max_tokens": 0}),
    with_prompt("max_tokens below zero", "max_tokens", {"max_tokens": -4}),
    with_prompt("max_tokens that is a boolean", "max_tokens", {"max_tokens": True}),
    with_prompt("min_tokens above max_tokens", "min_tokens", {"min_tokens": 5, "max_tokens": 4}),
    with_prompt("logprobs far too many", "logprobs", {"logprobs": 10_000}),
    with_prompt("seed beyond 64 bits", "seed", {"seed": "9" * 30}),
    with_prompt("stop string too long", "stop", {"stop": CANARY * 500}),
    with_prompt("stop token outside the vocabulary", "stop_token_ids", {"stop_token_ids": "[99999999]"}),
    with_prompt("ignore_eos that is a word", "ignore_eos", {"ignore_eos": "perhaps"}),
    with_prompt("adapter that is not there", "lora_name", {"lora_name": CANARY}),
    with_sampling("empty", "sampling_parameters", ""),
    with_sampling("cut short", "sampling_parameters", '{"max_tokens": 2'),
    with_sampling("a list", "sampling_parameters", "[1]"),
    with_sampling("a word", "sampling_parameters", CANARY),
    with_sampling("with a key twice", "sampling_parameters", '{"max_tokens": 2, "max_tokens": 3}'),
    with_sampling("with NaN", "sampling_parameters", '{"temperature": NaN}'),
    with_sampling("with infinity", "sampling_parameters", '{"temperature": -Infinity}'),
    with_sampling("with a number beyond 64 bits", "sampling_parameters", '{"temperature": 1e999}'),
    with_sampling("with an endless integer", "sampling_parameters", '{"seed": ' + "9" * 20_000 + "}"),
    with_sampling("nested without end", "sampling_parameters", f'{{"stop": {_NESTED}}}'),
    with_sampling("with half a surrogate pair", "sampling_parameters", '{"stop": "\\ud800"}'),
    with_sampling("far too long", "sampling_parameters", '{"stop": "' + CANARY * 50_000 + '"}'),
    with_sampling("with an unknown key", "no_such_parameter", '{"no_such_parameter": 1}'),
    with_sampling("with a wrong type", "max_tokens", '{"max_tokens": {"a": 1}}'),
    with_sampling("with a wrong list", "stop", '{"stop": [1, 2]}'),
    with_prompt("sampling parameter given twice", "top_p", {"sampling_parameters": '{"top_p": 0.5}', "top_p": 0.25}),
)

MESSAGE_FAULTS = (
    with_messages("empty", "messages", ""),
    with_messages("cut short", "messages", '[{"role": "user"'),
    with_messages("an object", "messages", json.dumps(ONE_TURN[0])),
    with_messages("of none", "messages", "[]"),
    with_messages("of 5,000", "messages", json.dumps(ONE_TURN * 5_000)),
    with_messages("of strings", "messages", json.dumps([PROMPT])),
    with_messages("without content", "messages", '[{"role": "user"}]'),
    with_messages("with more keys", "messages", json.dumps([{**ONE_TURN[0], "name": CANARY}])),
    with_messages("of an unknown role", "messages", json.dumps([{"role": CANARY, "content": "a"}])),
    with_messages("of parts", "messages", json.dumps([{"role": "user", "content": [PROMPT]}])),
    with_messages("nested without end", "messages", _NESTED),
)

OPERATION_FAULTS = (
    with_operation("empty", "op", ""),
    with_operation("a word", "op", "stats"),
    with_operation("a list", "op", '["stats"]'),
    with_operation("without a name", "op", "{}"),
    with_operation("unknown", "op", json.dumps({"op": CANARY})),
    with_operation("with an unknown argument", "verbose", '{"op": "stats", "verbose": true}'),
    with_operation("close without a session", "session_id", '{"op": "close"}'),
    with_operation("close of no session", "session_id", '{"op": "close", "session_id": "fuzz-none"}'),
    with_operation("close of an oversized id", "session_id", json.dumps({"op": "close", "session_id": LONG_ID})),
    with_operation("close of an id that is a number", "session_id", '{"op": "close", "session_id": 5}'),
    with_operation("fork without a name", "new_session_id", '{"op": "fork", "session_id": "fuzz-none"}'),
    with_operation("truncate below zero", "num_tokens", '{"op": "truncate", "session_id": "s", "num_tokens": -1}'),
    with_operation("truncate to a word", "num_tokens", '{"op": "truncate", "session_id": "s", "num_tokens": "x"}'),
    with_operation("cancel of nothing", "request_id", '{"op": "cancel"}'),
    with_operation("cancel of two", "request_id", '{"op": "cancel", "request_id": "r", "session_id": "s"}'),
    FieldFault("operation with an option", "stream", {"op": '{"op": "stats"}', "stream": True}),
)

FIELD_FAULTS = (
    *TEXT_FAULTS, *OPTION_FAULTS, *SESSION_FAULTS, *SAMPLING_FAULTS, *MESSAGE_FAULTS, *OPERATION_FAULTS
)  # fmt: skip
