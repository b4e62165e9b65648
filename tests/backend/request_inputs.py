"""Requests as the server hands them over, for tests: tensors by dtype, and what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from folio_backend.errors import InvalidArgument
from folio_backend.request import GenerateRequest, RequestLimits
from folio_backend.request_parser import parse_request

LIMITS = RequestLimits(
    max_text_bytes=200,
    max_model_tokens=100,
    vocabulary_size=50,
    max_choices=4,
    max_id_bytes=16,
    max_document_bytes=300,
    max_messages=3,
    max_deadline_ms=60_000,
    forwarded_headers=frozenset({"x-tenant"}),
)
TURN = {"role": "user", "content": "Hi"}


def strings(*values: str | bytes) -> Any:
    """A STRING tensor of shape [number of values]."""
    encoded = [value.encode() if isinstance(value, str) else value for value in values]
    return np.array(encoded, dtype=np.object_)


def booleans(*values: bool) -> Any:
    """A BOOL tensor of shape [number of values]."""
    return np.array(values, dtype=np.bool_)


def integers(*values: int) -> Any:
    """An INT32 tensor of shape [number of values]."""
    return np.array(values, dtype=np.int32)


PROMPT = {"text_input": strings("Hi")}


def generate(inputs: dict[str, Any], parameters: Mapping[str, object] | None = None, **others: Any) -> GenerateRequest:
    """The request, which must be a good one for text."""
    request = parse_request(inputs, parameters or {}, LIMITS, **others)
    assert isinstance(request, GenerateRequest)
    return request


def refusal(inputs: dict[str, Any], parameters: Mapping[str, object] | None = None, **others: Any) -> InvalidArgument:
    """The error, which there must be."""
    with pytest.raises(InvalidArgument) as caught:
        parse_request(inputs, parameters or {}, LIMITS, **others)
    return caught.value


def outcome(inputs: dict[str, Any], parameters: dict[str, object], **others: Any) -> object:
    """The request, the operation, or the error that refuses it; nothing else is caught."""
    try:
        return parse_request(inputs, parameters, LIMITS, **others)
    except InvalidArgument as error:
        return error
