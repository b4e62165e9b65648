"""The fields of a generate request: one table that says what each is and how it is read.

The same table declares the model's inputs to the server and checks what arrives, whether as a tensor or as a
request parameter. Knows fields one by one; does not know which of them go together (`request_parser`).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from folio_backend.errors import InvalidArgument
from folio_backend.field_values import INT32_MAX, INT32_MIN, boolean, identifier, integer, text, wrong_type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from folio_backend.request import RequestLimits

FieldValue: TypeAlias = "str | bool | int"
Tensor: TypeAlias = npt.NDArray[Any]

_SHAPES_OF_ONE = ((), (1,), (1, 1))
_DTYPES: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {
        "TYPE_STRING": np.dtype(object),
        "TYPE_BOOL": np.dtype(bool),
        "TYPE_INT32": np.dtype(np.int32),
    }
)


@dataclass(frozen=True)
class RequestField:
    """One input of a generate model; as a tensor its shape is [1].

    Args:
        name: the input's and the request parameter's name.
        data_type: the tensor's type, as a model configuration spells it.
        check: turns (name, value, limits) into the checked value, or raises InvalidArgument.
    """

    name: str
    data_type: str
    check: Callable[[str, object, RequestLimits], FieldValue]

    def read_tensor(self, tensor: Tensor, limits: RequestLimits) -> FieldValue:
        """The value in a tensor of one element.

        Args:
            tensor: shape [1], [1, 1] or []; STRING as an object array of bytes.
            limits: bounds of the value.

        Raises:
            InvalidArgument: wrong dtype or shape, or a value that the field does not allow.
        """
        if tensor.dtype != _DTYPES[self.data_type]:
            raise self._wrong_tensor(f"dtype {tensor.dtype}", self.data_type.removeprefix("TYPE_"))
        if tensor.shape not in _SHAPES_OF_ONE:
            raise self._wrong_tensor(f"shape {list(tensor.shape)}", "shape [1]")
        return self.check(self.name, tensor.item(), limits)

    def read_parameter(self, value: object, limits: RequestLimits) -> FieldValue:
        """The value of a request parameter; raises InvalidArgument when the field does not allow it."""
        return self.check(self.name, value, limits)

    def _wrong_tensor(self, what: str, allowed: str) -> InvalidArgument:
        return InvalidArgument(f"{self.name} is a tensor of {what}.", field=self.name, allowed=allowed)


def _text(name: str, value: object, limits: RequestLimits) -> str:
    return text(name, value, limits.max_text_bytes)


def _document(name: str, value: object, limits: RequestLimits) -> str:
    return text(name, value, limits.max_document_bytes)


def _identifier(name: str, value: object, limits: RequestLimits) -> str:
    return identifier(name, value, limits.max_id_bytes)


def _boolean(name: str, value: object, _limits: RequestLimits) -> bool:
    return boolean(name, value)


def _session_length(name: str, value: object, limits: RequestLimits) -> int:
    return integer(name, value, 0, limits.max_model_tokens)


def _priority(name: str, value: object, _limits: RequestLimits) -> int:
    return integer(name, value, INT32_MIN, INT32_MAX)


def _deadline(name: str, value: object, limits: RequestLimits) -> int:
    return integer(name, value, 1, limits.max_deadline_ms)


REQUEST_FIELDS: Mapping[str, RequestField] = MappingProxyType(
    {
        field.name: field
        for field in (
            RequestField("text_input", "TYPE_STRING", _text),
            RequestField("messages", "TYPE_STRING", _text),
            RequestField("op", "TYPE_STRING", _document),
            RequestField("stream", "TYPE_BOOL", _boolean),
            RequestField("sampling_parameters", "TYPE_STRING", _document),
            RequestField("exclude_input_in_output", "TYPE_BOOL", _boolean),
            RequestField("return_finish_reason", "TYPE_BOOL", _boolean),
            RequestField("return_cumulative_logprob", "TYPE_BOOL", _boolean),
            RequestField("return_logprobs", "TYPE_BOOL", _boolean),
            RequestField("return_num_input_tokens", "TYPE_BOOL", _boolean),
            RequestField("return_num_output_tokens", "TYPE_BOOL", _boolean),
            RequestField("session_id", "TYPE_STRING", _identifier),
            RequestField("session_length", "TYPE_INT32", _session_length),
            RequestField("request_priority", "TYPE_INT32", _priority),
            RequestField("deadline_ms", "TYPE_INT32", _deadline),
        )
    }
)


def parameter_scalar(name: str, value: object) -> str | bool | int | float:
    """The value of a request parameter that is no field: the server hands over scalars only.

    Raises:
        InvalidArgument: anything but a string, a boolean or a number.
    """
    if isinstance(value, (str, bool, int, float)):
        return value
    raise wrong_type(name, value, "a string, a boolean or a number")
