"""A seeded stream of good and bad requests over every protocol, and what each must come to.

Every kind of fault comes round once in each deck, so that a run of a few decks holds all of them. JSON bodies
stay below 3.5 MB: the server itself dies of larger ones.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from tests.server.fuzz_faults import CANARY, FIELD_FAULTS, FieldFault, Fields, Value
from tests.server.fuzz_malformed import BODY_FAULTS, TENSOR_FAULTS, WireTensor, mutated, strings

SESSION_IDS = tuple(f"fuzz-{index}" for index in range(4))

_DATA_TYPES = {
    "text_input": "BYTES",
    "messages": "BYTES",
    "op": "BYTES",
    "sampling_parameters": "BYTES",
    "session_id": "BYTES",
    "stream": "BOOL",
    "exclude_input_in_output": "BOOL",
    "return_finish_reason": "BOOL",
    "return_num_input_tokens": "BOOL",
    "session_length": "INT32",
    "deadline_ms": "INT32",
    "request_priority": "INT32",
}
_FORCED = "parameter:"  # a name with this in front is sent as a parameter, never as a tensor
_TENSOR_SHARE = 0.7
_TEXTS = ("Hello", "One two three", "def add(a, b):", "Ünïcödé 世界 🙂", "a\x00b", " ", "word " * 150)
_NUM_GOOD_PER_DECK = 20
_NUM_MUTATED_PER_DECK = 15
_NUM_INFER_PER_DECK = 3


class Wire(enum.Enum):
    """How a case is sent."""

    GENERATE = "generate"
    GENERATE_STREAM = "generate_stream"
    INFER = "infer"
    GRPC = "grpc"


class Outcome(enum.Enum):
    """What a case must come to; EITHER where a mutation decides."""

    GOOD = "good"
    REFUSED = "refused"
    EITHER = "either"


@dataclass(frozen=True)
class Case:
    """One request.

    Args:
        name: what is good or bad about it.
        wire: how it is sent.
        outcome: what it must come to.
        refused_field: what the refusal's field starts with; None where the server may refuse by itself.
        body: the HTTP body.
        tensors: the tensors of a gRPC request.
        parameters: the request parameters of a gRPC request.
        request_id: the id of a gRPC request.
    """

    name: str
    wire: Wire
    outcome: Outcome
    refused_field: str | None = None
    body: bytes = b""
    tensors: tuple[WireTensor, ...] = ()
    parameters: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    request_id: str = ""


def cases(seed: int) -> Iterator[Case]:
    """Requests without end, the same for the same seed."""
    random = Random(seed)
    while True:
        deck = _deck(random)
        random.shuffle(deck)
        yield from deck


def deck_size() -> int:
    """How many requests hold every kind of fault."""
    return len(_deck(Random(0)))


def _deck(random: Random) -> list[Case]:
    return [
        *(_refused(fault, Wire.GRPC, random) for fault in FIELD_FAULTS),
        *(_refused(fault, _http(fault.fields), random) for fault in FIELD_FAULTS if not fault.grpc_only),
        *(Case(name, Wire.GENERATE, Outcome.REFUSED, field, body) for name, field, body in BODY_FAULTS),
        *(Case(name, Wire.GRPC, Outcome.REFUSED, tensors=tensors) for name, tensors in TENSOR_FAULTS.items()),
        *(_mutated(random) for _ in range(_NUM_MUTATED_PER_DECK)),
        *(_infer(random) for _ in range(_NUM_INFER_PER_DECK)),
        *(_good(random) for _ in range(_NUM_GOOD_PER_DECK)),
    ]


def _refused(fault: FieldFault, wire: Wire, random: Random) -> Case:
    return _case(fault.name, wire, Outcome.REFUSED, fault.fields, random, fault.field)


def _mutated(random: Random) -> Case:
    return Case("mutated body", Wire.GENERATE, Outcome.EITHER, body=mutated(random))


def _infer(random: Random) -> Case:
    """The server refuses every /infer of a decoupled model, whatever it holds."""
    tensor = {"name": "text_input", "shape": [1], "datatype": "BYTES", "data": [CANARY]}
    body = json.dumps({"inputs": [tensor] * random.randint(0, 2)}).encode()
    return Case("infer of a decoupled model", Wire.INFER, Outcome.REFUSED, body=random.choice([body, b"", b"{"]))


def _good(random: Random) -> Case:
    makers = (_good_text, _good_text, _good_chat, _good_turn, _good_operation)
    fields = random.choice(makers)(random)
    wire = random.choice([Wire.GRPC, _http(fields)])
    return _case("good", wire, Outcome.GOOD, fields, random)


def _good_text(random: Random) -> dict[str, Value]:
    options: Sequence[dict[str, Value]] = (
        {"max_tokens": random.randint(1, 4)},
        {"max_tokens": str(random.randint(1, 4)), "temperature": "0"},
        {"max_tokens": 2, "temperature": 0.7, "top_p": 0.9, "top_k": 5, "seed": random.randrange(2**31)},
        {"max_tokens": 2, "n": 2},
        {"max_tokens": 4, "stop": "e", "return_finish_reason": True, "return_num_input_tokens": True},
        {"sampling_parameters": '{"max_tokens": "3", "temperature": "0.1"}', "deadline_ms": 600_000},
        {"max_tokens": 3, "stream": True, "request_priority": random.randint(-5, 5)},
        {"max_tokens": 3, "exclude_input_in_output": True, "id": f"good-{random.randrange(10**6)}"},
    )
    return {"text_input": CANARY + random.choice(_TEXTS), **random.choice(options)}


def _good_chat(random: Random) -> dict[str, Value]:
    turns = [{"role": role, "content": CANARY + random.choice(_TEXTS)} for role in ("system", "user")]
    return {"messages": json.dumps(turns[random.randrange(2) :]), "max_tokens": 2}


def _good_turn(random: Random) -> dict[str, Value]:
    return {"text_input": "More, please.", "session_id": random.choice(SESSION_IDS), "max_tokens": 2}


def _good_operation(random: Random) -> dict[str, Value]:
    return {"op": json.dumps({"op": random.choice(["stats", "health"])})}


def _http(fields: Fields) -> Wire:
    return Wire.GENERATE_STREAM if fields.get("stream") is True else Wire.GENERATE


def _case(
    name: str, wire: Wire, outcome: Outcome, fields: Fields, random: Random, refused_field: str | None = None
) -> Case:
    if wire is not Wire.GRPC:
        return Case(name, wire, outcome, refused_field, body=_json_body(fields))
    others = {key: value for key, value in fields.items() if key != "id"}
    as_tensors = {key for key in others if key in _DATA_TYPES and random.random() < _TENSOR_SHARE}
    as_tensors.update(key for key, value in others.items() if _needs_tensor(value))
    return Case(
        name,
        wire,
        outcome,
        refused_field,
        tensors=tuple(_tensor(key, others[key]) for key in others if key in as_tensors),
        parameters={key.removeprefix(_FORCED): others[key] for key in others if key not in as_tensors},
        request_id=str(fields.get("id", "")),
    )


def _needs_tensor(value: Value) -> bool:
    """A parameter cannot hold bytes that are no text, and the server cuts it at a null."""
    return isinstance(value, bytes) or (isinstance(value, str) and "\x00" in value)


def _tensor(name: str, value: Value) -> WireTensor:
    data_type = _DATA_TYPES[name]
    if data_type == "BYTES":
        data = strings(value if isinstance(value, bytes) else str(value).encode())
    elif data_type == "BOOL":
        data = bytes([bool(value)])
    else:
        data = int(value).to_bytes(4, "little", signed=True)
    return WireTensor(name, data_type, (1,), data)


def _json_body(fields: Fields) -> bytes:
    """A JSON object; bytes stand in it as they are, valid text or not."""
    members = [json.dumps(name).encode() + b": " + _json_value(value) for name, value in fields.items()]
    return b"{" + b", ".join(members) + b"}"


def _json_value(value: Value) -> bytes:
    return b'"' + value + b'"' if isinstance(value, bytes) else json.dumps(value).encode()
