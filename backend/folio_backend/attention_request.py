"""From what the server hands over to one step of an attention session or an operation, or to a refusal.

Knows the inputs of an attention model one request at a time: names, dtypes, shapes, which numbers are accepted. Does
not know what a session holds: position, history and room are checked when the step is applied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from folio_backend.errors import InvalidArgument
from folio_backend.field_values import identifier, integer, shown_name
from folio_backend.operations import parse_operation
from folio_backend.request import Operation, RequestLimits
from folio_backend.request_fields import REQUEST_FIELDS, FieldValue, RequestField, Tensor
from folio_backend.request_parser import is_front_end_name
from folio_backend.server_request import ServerRequest

OPERATION_NAMES = ("stats", "health", "sessions", "close")
"""The operations of an attention model: there are no tokens to fork or truncate, and nothing runs long."""

MAX_MAGNITUDE = 1e18
"""Largest number accepted in float32: products of two of them, summed over a head, stay finite."""


def _position(name: str, value: object, limits: RequestLimits) -> int:
    return integer(name, value, 0, limits.max_model_tokens)


_FIELDS: Mapping[str, RequestField] = {
    "session_id": REQUEST_FIELDS["session_id"],
    "position": RequestField("position", "TYPE_INT32", _position),
    "op": REQUEST_FIELDS["op"],
}
_TENSORS = ("query", "key", "value")


@dataclass(frozen=True)
class StepShape:
    """What the tensors of a step look like.

    Attributes:
        num_heads: heads of a query.
        num_kv_heads: heads of keys and values.
        head_dim: elements of a head.
        dtype: of all three tensors: float32 or float16.
        cache_dtype: of raw pages; keys and values beyond its range are refused.
        max_step_tokens: most tokens of one step.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    cache_dtype: torch.dtype
    max_step_tokens: int

    def heads_of(self, name: str) -> int:
        """Heads of the tensor of that name."""
        return self.num_heads if name == "query" else self.num_kv_heads

    def max_magnitude_of(self, name: str) -> float:
        """Largest number, by magnitude, that the tensor of that name may hold."""
        stored = MAX_MAGNITUDE if name == "query" else torch.finfo(self.cache_dtype).max
        return min(MAX_MAGNITUDE, stored, torch.finfo(self.dtype).max)


@dataclass(frozen=True)
class AttentionStep:
    """Tokens to append to a session; the tensors are copies.

    Attributes:
        session_id: the session, which position 0 starts.
        query: `[tokens, heads, head_dim]` of the model's dtype.
        key, value: `[tokens, kv_heads, head_dim]` of the same dtype.
        position: the length that the client believes the session has; None to append wherever it ends.
    """

    session_id: str
    query: torch.Tensor = field(repr=False)
    key: torch.Tensor = field(repr=False)
    value: torch.Tensor = field(repr=False)
    position: int | None

    @property
    def num_tokens(self) -> int:
        """Tokens that it appends, at least 1."""
        return self.query.shape[0]


def parse_attention_request(
    request: ServerRequest, shape: StepShape, limits: RequestLimits
) -> AttentionStep | Operation:
    """The step or the operation that a client sent.

    Args:
        request: inputs with the batch dimension, 1, first; `session_id`, `position` and `op` also as parameters.
        shape: what the tensors must look like.
        limits: how long identifiers, and by `max_model_tokens` histories, may be.

    Raises:
        InvalidArgument: names the field and what it allows.
    """
    given = _given_fields(request, limits)
    operation = given.pop("op", None)
    if operation is not None:
        for name in (*given, *(name for name in _TENSORS if name in request.inputs)):
            raise InvalidArgument(f"{name} does not apply to an operation.", field=name, allowed="op alone")
        return _operation(str(operation), limits)
    session_id, position = _session_id(given, request.correlation_id, limits), given.get("position")
    assert position is None or isinstance(position, int)
    return AttentionStep(session_id, *_step_tensors(request, shape), position)


def _given_fields(request: ServerRequest, limits: RequestLimits) -> dict[str, FieldValue]:
    """The values of one element, each read once, from tensors and parameters."""
    given: dict[str, FieldValue] = {}
    for name, tensor in request.inputs.items():
        if name in _FIELDS:
            given[name] = _FIELDS[name].read_tensor(tensor, limits)
        elif name not in _TENSORS:
            raise _unknown("input", name)
    for name, value in request.parameters.items():
        if name in _FIELDS:
            read = _FIELDS[name].read_parameter(value, limits)
            if given.setdefault(name, read) != read:
                sentence = f"{name} differs between a tensor and a request parameter."
                raise InvalidArgument(sentence, field=name, allowed="one value")
        elif not is_front_end_name(name, limits):
            raise _unknown("parameter", name)
    return given


def _unknown(what: str, name: str) -> InvalidArgument:
    shown = shown_name(name)
    allowed = ", ".join((*_FIELDS, *_TENSORS) if what == "input" else _FIELDS)
    return InvalidArgument(f"There is no {what} {shown}.", field=shown, allowed=allowed)


def _operation(document: str, limits: RequestLimits) -> Operation:
    operation = parse_operation(document, limits)
    if operation.name not in OPERATION_NAMES:
        sentence = f"{operation.name} is not for attention models."
        raise InvalidArgument(sentence, field="op", allowed=", ".join(OPERATION_NAMES))
    return operation


def _session_id(given: Mapping[str, FieldValue], correlation_id: int | str, limits: RequestLimits) -> str:
    if "session_id" in given:
        return str(given["session_id"])
    if correlation_id:
        return identifier("sequence_id", str(correlation_id), limits.max_id_bytes)
    allowed = f"1 to {limits.max_id_bytes} bytes of printable UTF-8"
    raise InvalidArgument("session_id is missing.", field="session_id", allowed=allowed)


def _step_tensors(request: ServerRequest, shape: StepShape) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    for name in _TENSORS:
        _check_form(name, request.inputs.get(name), shape)
    num_tokens = request.inputs["query"].shape[1]
    for name in _TENSORS:
        _check_num_tokens(name, request.inputs[name].shape[1], num_tokens)
    query, key, value = (_finite(name, request.inputs[name], shape) for name in _TENSORS)
    return query, key, value


def _check_form(name: str, tensor: Tensor | None, shape: StepShape) -> None:
    dtype, heads = str(shape.dtype).removeprefix("torch."), shape.heads_of(name)
    allowed = f"{dtype} [1, T, {heads}, {shape.head_dim}], T from 1 to {shape.max_step_tokens}"
    if tensor is None:
        raise InvalidArgument(f"{name} is missing.", field=name, allowed=allowed)
    if str(tensor.dtype) != dtype:
        raise InvalidArgument(f"{name} is a tensor of dtype {tensor.dtype}.", field=name, allowed=allowed)
    fits = tensor.ndim == 4 and tensor.shape[0] == 1 and tensor.shape[2:] == (heads, shape.head_dim)
    if not fits or not 1 <= tensor.shape[1] <= shape.max_step_tokens:
        raise InvalidArgument(f"{name} is a tensor of shape {list(tensor.shape)}.", field=name, allowed=allowed)


def _check_num_tokens(name: str, given: int, expected: int) -> None:
    if given != expected:
        sentence = f"{name} holds {given} tokens but query holds {expected}."
        raise InvalidArgument(sentence, field=name, allowed=f"{expected} tokens")


def _finite(name: str, tensor: Tensor, shape: StepShape) -> torch.Tensor:
    """A copy without the batch dimension, every number in it checked."""
    copy = torch.tensor(tensor[0])
    largest, bound = copy.abs().max().item(), shape.max_magnitude_of(name)
    if not largest <= bound:  # NaN is not
        what = "numbers out of range" if math.isfinite(largest) else "NaN or infinity"
        raise InvalidArgument(f"{name} holds {what}.", field=name, allowed=f"numbers from {-bound:g} to {bound:g}")
    return copy
