"""What a caller wants as the fields of a request: pure functions, shared by both clients.

Knows which inputs a generate model may have, and sends none that this model does not. Values are checked where the wire
would damage them; what else is allowed is the server's to say.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from folio_client.errors import InvalidArgument, Unsupported
from folio_client.options import GenerateOptions, sampling_parameters
from folio_client.types import Message, Tensor
from folio_client.wire import GenerateCall, TensorCall

_INT32 = range(-(2**31), 2**31)
_MAX_DEADLINE_MS = 86_400_000
_WANTED_OUTPUTS = ("return_finish_reason", "return_num_input_tokens", "return_num_output_tokens")


@dataclass(frozen=True)
class SessionTurn:
    """The session that a generation continues.

    Attributes:
        session_id: its name.
        length: tokens that it is believed to hold; None where that is not known.
    """

    session_id: str
    length: int | None


@dataclass(frozen=True)
class GenerateRequest:
    """A generation to ask for.

    Attributes:
        prompt: a text, or the messages of a chat.
        options: see `GenerateOptions`; `timeout_s` counts for the whole, repetitions included.
        turn: the session, if any.
        request_id: its name at the server.
    """

    prompt: str | Sequence[Message] = field(repr=False)
    options: GenerateOptions
    turn: SessionTurn | None
    request_id: str

    @classmethod
    def of(cls, prompt: str | Sequence[Message], options: GenerateOptions, turn: SessionTurn | None) -> GenerateRequest:
        """The request, with a name made up where the options have none."""
        return cls(prompt, options, turn, options.get("request_id") or uuid.uuid4().hex)

    @property
    def is_repeatable(self) -> bool:
        """Whether a second arrival at the server does no harm."""
        return self.turn is None or self.turn.length is not None

    def call(self, model: str, inputs: frozenset[str], timeout_s: float) -> GenerateCall:
        """The call that asks for it.

        Args:
            model: the model's name.
            inputs: what the model takes.
            timeout_s: seconds that are left.

        Raises:
            Unsupported: it takes more than the model has.
            InvalidArgument: a value that cannot be sent.
        """
        fields: dict[str, str | bool | int] = dict(self._subject())
        if self.turn is not None:
            fields["session_id"] = self.turn.session_id
            if self.turn.length is not None:
                fields["session_length"] = self.turn.length
        if "priority" in self.options:
            fields["request_priority"] = self.options["priority"]
        fields |= self._sampling()
        check_supported(fields, inputs, model)
        fields |= {name: True for name in _WANTED_OUTPUTS if name in inputs}
        if "deadline_ms" in inputs:
            fields["deadline_ms"] = min(math.ceil(timeout_s * 1000), _MAX_DEADLINE_MS)
        check_fields(fields)
        return GenerateCall(model, fields, self.request_id, timeout_s)

    def _subject(self) -> dict[str, str]:
        if isinstance(self.prompt, str):
            return {"text_input": self.prompt}
        return {"messages": document("messages", list(self.prompt))}

    def _sampling(self) -> dict[str, str | bool]:
        parameters = sampling_parameters(self.options)
        fields: dict[str, str | bool] = {"stream": True}
        if parameters:
            # As one document: the server's front end wraps plain integers beyond 32 bits.
            fields["sampling_parameters"] = document("sampling_parameters", parameters)
        if self.options.get("cumulative_logprob"):
            fields["return_cumulative_logprob"] = True
        if parameters.get("logprobs") is not None:
            fields["return_logprobs"] = True
        return fields


def operation_document(name: str, arguments: Mapping[str, object], admin_token: str | None) -> str:
    """The JSON of an admin operation; None means that there is no such argument."""
    members = {**arguments, "admin_token": admin_token}
    return document("op", {"op": name, **{key: value for key, value in members.items() if value is not None}})


def operation_call(model: str, operation: str, timeout_s: float) -> GenerateCall:
    """An admin operation's call to a generate model."""
    check_fields({"op": operation})
    return GenerateCall(model, {"op": operation}, "", timeout_s)


def operation_tensors(model: str, operation: str, timeout_s: float) -> TensorCall:
    """An admin operation's call to an attention model."""
    return TensorCall(model, {"op": text_tensor("op", operation)}, timeout_s)


def step_tensors(
    model: str, session_id: str, tokens: Mapping[str, Tensor], position: int | None, timeout_s: float
) -> TensorCall:
    """The call for an attention step.

    Args:
        model: the model's name.
        session_id: whose history it continues.
        tokens: query, key and value, each `[tokens, heads, head_dim]`.
        position: the length before it; None not to have it checked.
        timeout_s: seconds that are left.
    """
    tensors: dict[str, Tensor] = {"session_id": text_tensor("session_id", session_id)}
    tensors |= {name: np.ascontiguousarray(tensor)[None] for name, tensor in tokens.items()}
    if position is not None:
        check_fields({"position": position})
        tensors["position"] = np.array([[position]], dtype=np.int32)
    return TensorCall(model, tensors, timeout_s)


def text_tensor(name: str, value: str) -> Tensor:
    """A STRING tensor `[1, 1]`."""
    check_fields({name: value})
    return np.array([[value.encode()]], dtype=object)


def check_supported(fields: Mapping[str, object], inputs: frozenset[str], model: str) -> None:
    """Raises Unsupported for a field that the model does not take."""
    for name in fields:
        if name not in inputs:
            raise Unsupported(
                f"The model {model} has no input {name}.", field=name, allowed=", ".join(sorted(inputs)) or None
            )


def check_fields(fields: Mapping[str, str | bool | int]) -> None:
    """Raises InvalidArgument for a value that the wire would damage."""
    for name, value in fields.items():
        if isinstance(value, str):
            _check_text(name, value)
        elif isinstance(value, bool):
            continue
        elif not isinstance(value, int):
            raise InvalidArgument(f"{name} is a {type(value).__name__}.", field=name, allowed="an integer")
        elif value not in _INT32:
            raise InvalidArgument(f"{name} is {value}.", field=name, allowed="a 32-bit integer")


def document(name: str, members: Mapping[str, object] | Sequence[object]) -> str:
    """Members or entries as JSON; raises InvalidArgument where they have no such form."""
    try:
        return json.dumps(members, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"{name} has no form in JSON: {error}.", field=name, allowed="JSON values") from None


def _check_text(name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        sentence = f"{name} has half a character at {error.start}."
        raise InvalidArgument(sentence, field=name, allowed="text that UTF-8 can hold") from None
