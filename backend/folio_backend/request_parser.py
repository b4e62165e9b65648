"""From what the server hands over to a request or an operation, or to an error that names the field.

Reads tensors and request parameters alike. Knows which fields go together; `request_fields` knows each alone.
Does not tokenise, and does not know what the model or a session holds: those checks are made at admission.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from folio_backend.errors import InvalidArgument
from folio_backend.field_values import identifier, shown_name, wrong_type
from folio_backend.json_document import parse_json_document
from folio_backend.operations import parse_operation
from folio_backend.request import (
    DEFAULT_TENANT,
    GenerateRequest,
    Message,
    Operation,
    OutputOptions,
    RequestLimits,
)
from folio_backend.request_fields import REQUEST_FIELDS, FieldValue, Tensor, parameter_scalar
from folio_backend.sampling_parameters import SamplingParameters, parse_sampling_parameters

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROLES = ("system", "user", "assistant", "tool")
_SUBJECTS = ("text_input", "messages", "op")
_FRONT_END_NAMES = frozenset({"id", "priority", "timeout", "headers", "binary_data_output"})
_FRONT_END_PREFIXES = ("sequence_", "triton_")


def parse_request(
    inputs: Mapping[str, Tensor],
    parameters: Mapping[str, object],
    limits: RequestLimits,
    *,
    request_id: str = "",
    correlation_id: int | str = 0,
    tenant: str = DEFAULT_TENANT,
) -> GenerateRequest | Operation:
    """The request or operation that a client sent.

    Args:
        inputs: tensors by name, each of one element; STRING as an object array of bytes.
        parameters: request parameters by name: fields, sampling parameters, what front ends add themselves.
        limits: how large a request may be.
        request_id: what the client calls the request; the parameter `id` counts where this is empty.
        correlation_id: the session where `session_id` is not given; 0 and empty mean none.
        tenant: who asks, from a source that clients cannot write to.

    Raises:
        InvalidArgument: names the field and what it allows; never holds what a string held.
    """
    given = _given_fields(inputs, parameters, limits)
    loose = _loose_parameters(parameters, limits)
    if _only_subject(given) == "op":
        return _operation(given, loose, limits, tenant)
    request = GenerateRequest(
        request_id=_request_id(request_id, parameters, limits),
        text=_string(given, "text_input"),
        messages=_messages(_string(given, "messages"), limits),
        sampling=_sampling(given, loose, limits),
        output=_output_options(given),
        session_id=_session_id(given, correlation_id, limits),
        session_length=_integer(given, "session_length"),
        priority=_integer(given, "request_priority") or 0,
        deadline_ms=_integer(given, "deadline_ms"),
        tenant=tenant,
    )
    _check_session(request)
    return request


def _given_fields(
    inputs: Mapping[str, Tensor], parameters: Mapping[str, object], limits: RequestLimits
) -> dict[str, FieldValue]:
    """The declared fields, each read once; given both ways a field must say the same."""
    given: dict[str, FieldValue] = {}
    for name, tensor in inputs.items():
        if name not in REQUEST_FIELDS:
            shown, allowed = shown_name(name), ", ".join(REQUEST_FIELDS)
            raise InvalidArgument(f"There is no input {shown}.", field=shown, allowed=allowed)
        given[name] = REQUEST_FIELDS[name].read_tensor(tensor, limits)
    for name, value in parameters.items():
        if name in REQUEST_FIELDS and not is_front_end_name(name, limits):
            read = REQUEST_FIELDS[name].read_parameter(value, limits)
            if given.setdefault(name, read) != read:
                raise _given_twice(name, "a tensor and a request parameter")
    return given


def _loose_parameters(parameters: Mapping[str, object], limits: RequestLimits) -> dict[str, object]:
    """Request parameters that are neither fields nor a front end's own: taken for sampling parameters."""
    return {
        name: parameter_scalar(shown_name(name), value)
        for name, value in parameters.items()
        if name not in REQUEST_FIELDS and not is_front_end_name(name, limits)
    }


def is_front_end_name(name: str, limits: RequestLimits) -> bool:
    """Whether a front end adds a parameter of this name itself; it is passed over."""
    own = name in _FRONT_END_NAMES or name.startswith(_FRONT_END_PREFIXES)
    return own or name.lower() in limits.forwarded_headers


def _only_subject(given: Mapping[str, FieldValue]) -> str:
    subjects = [name for name in _SUBJECTS if name in given]
    if len(subjects) != 1:
        found = " and ".join(subjects) if subjects else "none"
        raise InvalidArgument(
            f"The request gives {found} of text_input, messages and op.",
            field=subjects[-1] if subjects else "text_input",
            allowed=f"exactly one of {', '.join(_SUBJECTS)}",
        )
    return subjects[0]


def _operation(
    given: Mapping[str, FieldValue], loose: Mapping[str, object], limits: RequestLimits, tenant: str
) -> Operation:
    # Arguments of an operation travel inside it: a field beside it would be passed over without a word.
    for name in (*given, *loose):
        if name != "op":
            shown = shown_name(name)
            raise InvalidArgument(f"{shown} does not apply to an operation.", field=shown, allowed="op alone")
    document = _string(given, "op")
    assert document is not None
    return parse_operation(document, limits, tenant=tenant)


def _sampling(
    given: Mapping[str, FieldValue], loose: Mapping[str, object], limits: RequestLimits
) -> SamplingParameters:
    document = _string(given, "sampling_parameters")
    values = {} if document is None else parse_json_document("sampling_parameters", document)
    if not isinstance(values, dict):
        raise wrong_type("sampling_parameters", values, "a JSON object")
    for name, value in loose.items():
        # vllm_backend's own clients send the same parameters both ways.
        if name in values and _spelled(values[name]) != _spelled(value):
            raise _given_twice(shown_name(name), "sampling_parameters and a request parameter")
    return parse_sampling_parameters(
        {**loose, **values}, vocabulary_size=limits.vocabulary_size, max_choices=limits.max_choices
    )


def _spelled(value: object) -> str:
    """A value as its string, since values of sampling parameters may be strings."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _given_twice(name: str, places: str) -> InvalidArgument:
    return InvalidArgument(f"{name} differs between {places}.", field=name, allowed="one value")


def _session_id(given: Mapping[str, FieldValue], correlation_id: int | str, limits: RequestLimits) -> str | None:
    session_id = _string(given, "session_id")
    if session_id is not None or not correlation_id:
        return session_id
    return identifier("sequence_id", str(correlation_id), limits.max_id_bytes)


def _check_session(request: GenerateRequest) -> None:
    num_choices = request.sampling.n
    if request.session_id is None and request.session_length is not None:
        raise InvalidArgument(
            "session_length is given without a session.",
            field="session_length",
            allowed="only with session_id",
        )
    if request.session_id is not None and num_choices > 1:
        raise InvalidArgument(f"n is {num_choices} in a session.", field="n", allowed="1 with session_id")


def _request_id(request_id: str, parameters: Mapping[str, object], limits: RequestLimits) -> str:
    if request_id:
        return identifier("request_id", request_id, limits.max_id_bytes)
    name = parameters.get("id", "")
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    return identifier("id", name, limits.max_id_bytes) if name != "" else ""


def _messages(document: str | None, limits: RequestLimits) -> tuple[Message, ...] | None:
    if document is None:
        return None
    entries = parse_json_document("messages", document)
    if not isinstance(entries, list):
        raise wrong_type("messages", entries, "a JSON list of messages")
    if not 1 <= len(entries) <= limits.max_messages:
        allowed = f"1 to {limits.max_messages} messages"
        raise InvalidArgument(f"messages has {len(entries)} entries.", field="messages", allowed=allowed)
    return tuple(_message(index, entry) for index, entry in enumerate(entries))


def _message(index: int, entry: object) -> Message:
    where = f"messages[{index}]"
    if not isinstance(entry, dict) or entry.keys() != {"role", "content"}:
        raise InvalidArgument(f"{where} is no message.", field=where, allowed="an object of role and content")
    role, content = entry["role"], entry["content"]
    if role not in _ROLES:
        raise InvalidArgument(f"{where}.role is unknown.", field=f"{where}.role", allowed=", ".join(_ROLES))
    if not isinstance(content, str):
        raise wrong_type(f"{where}.content", content, "a string")
    return Message(role, content)


def _output_options(given: Mapping[str, FieldValue]) -> OutputOptions:
    stream = bool(given.get("stream", False))
    exclude_input = bool(given.get("exclude_input_in_output", stream))
    if stream and not exclude_input:
        raise InvalidArgument(
            "When streaming, `exclude_input_in_output` = False is not allowed.",
            field="exclude_input_in_output",
            allowed="true when stream is true",
        )
    return OutputOptions(
        stream=stream,
        exclude_input=exclude_input,
        finish_reason=bool(given.get("return_finish_reason", False)),
        cumulative_logprob=bool(given.get("return_cumulative_logprob", False)),
        logprobs=bool(given.get("return_logprobs", False)),
        num_input_tokens=bool(given.get("return_num_input_tokens", False)),
        num_output_tokens=bool(given.get("return_num_output_tokens", False)),
    )


def _string(given: Mapping[str, FieldValue], name: str) -> str | None:
    value = given.get(name)
    assert value is None or isinstance(value, str), name
    return value


def _integer(given: Mapping[str, FieldValue], name: str) -> int | None:
    value = given.get(name)
    assert value is None or (isinstance(value, int) and not isinstance(value, bool)), name
    return value
