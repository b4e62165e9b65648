"""Every kind of malformed message: bodies of /generate and tensors that contradict themselves or the model.

Knows requests as bytes and tensors; `fuzz_faults` has those that are well formed and hold bad values.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from tests.server.fuzz_faults import PROMPT


@dataclass(frozen=True)
class WireTensor:
    """A tensor as it stands in a gRPC request; nothing checks that its parts agree."""

    name: str
    data_type: str
    shape: tuple[int, ...]
    data: bytes | None


def strings(*values: bytes) -> bytes:
    """The bytes of a BYTES tensor: each value after its length."""
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


# Bodies of /generate with what the refusal's field starts with; None where the server refuses by itself.
BODY_FAULTS: tuple[tuple[str, str | None, bytes], ...] = (
    ("empty body", None, b""),
    ("half an object", None, b'{"text_input": "hi"'),
    ("a list", None, b"[]"),
    ("null", None, b"null"),
    ("a string", None, b'"hi"'),
    ("bytes that are no text", None, bytes(range(256))),
    ("text that is a number", None, b'{"text_input": 5}'),
    ("text that is null", None, b'{"text_input": null}'),
    ("text that is an object", None, b'{"text_input": {"a": "b"}}'),
    ("text that is an empty list", None, b'{"text_input": []}'),
    ("two texts", None, b'{"text_input": ["a", "b"]}'),
    ("text twice", None, b'{"text_input": "a", "text_input": "b"}'),
    ("half a surrogate pair", None, b'{"text_input": "\\ud800"}'),
    ("boolean that is a number", None, b'{"text_input": "a", "stream": 1}'),
    ("boolean that is a string", None, b'{"text_input": "a", "stream": "true"}'),
    ("integer that is a fraction", None, b'{"text_input": "a", "deadline_ms": 1.5}'),
    ("parameter that is a list", None, b'{"text_input": "a", "stop": ["b"]}'),
    ("parameter that is an object", None, b'{"text_input": "a", "logit_bias": {"1": 2}}'),
    ("parameters that are a list", None, b'{"text_input": "a", "parameters": [1]}'),
    ("parameter that is not UTF-8", "", b'{"text_input": "a", "stop": "b\xff"}'),
    ("parameter whose name is not UTF-8", "", b'{"text_input": "a", "b\xff": "c"}'),
)

_TEXT = WireTensor("text_input", "BYTES", (1,), strings(PROMPT.encode()))

# Tensors that the server, or Folio behind it, refuses.
TENSOR_FAULTS: Mapping[str, tuple[WireTensor, ...]] = {
    "text of floats": (WireTensor("text_input", "FP32", (1,), struct.pack("<f", float("nan"))),),
    "text of no type": (WireTensor("text_input", "NOPE", (1,), strings(b"a")),),
    "two texts": (WireTensor("text_input", "BYTES", (2,), strings(b"a", b"b")),),
    "text of no element": (WireTensor("text_input", "BYTES", (0,), b""),),
    "text of a negative shape": (WireTensor("text_input", "BYTES", (-1,), strings(b"a")),),
    "text of a huge shape": (WireTensor("text_input", "BYTES", (2**62, 4), strings(b"a")),),
    "text of many dimensions": (WireTensor("text_input", "BYTES", (1,) * 40, strings(b"a")),),
    "text without data": (WireTensor("text_input", "BYTES", (1,), None),),
    "text shorter than its length": (WireTensor("text_input", "BYTES", (1,), b"\xff\xff\xff\xff" + b"a"),),
    "text longer than its length": (WireTensor("text_input", "BYTES", (1,), strings(b"a") + b"bc"),),
    "half a length": (WireTensor("text_input", "BYTES", (1,), b"\x01\x00"),),
    "text twice": (_TEXT, _TEXT),
    "unknown tensor": (_TEXT, WireTensor("image", "BYTES", (1,), strings(b"a"))),
    "boolean of strings": (_TEXT, WireTensor("stream", "BYTES", (1,), strings(b"true"))),
    "boolean of two": (_TEXT, WireTensor("stream", "BOOL", (2,), b"\x01\x00")),
    "integer of 64 bits": (_TEXT, WireTensor("deadline_ms", "INT64", (1,), struct.pack("<q", 5))),
    "integer cut short": (_TEXT, WireTensor("deadline_ms", "INT32", (1,), b"\x05")),
    "session of numbers": (_TEXT, WireTensor("session_id", "INT32", (1,), struct.pack("<i", 5))),
}


def mutated(random: Random) -> bytes:
    """A good body of /generate with a few bytes changed: it may be good still.

    Digits are never written, since more digits would ask for more tokens.
    """
    body = bytearray(json.dumps({"text_input": PROMPT, "max_tokens": 2, "stop": "xyz"}).encode())
    letters = [byte for byte in range(256) if not chr(byte).isdigit()]
    changes: tuple[Callable[[int], None], ...] = (
        lambda place: body.insert(place, random.choice(letters)),
        lambda place: body.__setitem__(place, random.choice(letters)),
        body.__delitem__,
    )
    for _ in range(random.randint(1, 4)):
        random.choice(changes)(random.randrange(len(body)))
    return bytes(body)
