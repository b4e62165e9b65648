"""A request as it comes from the server, in plain types.

The boundary (`triton_model`) fills it in; services read it without knowing the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class ServerRequest:
    """One inference request.

    Attributes:
        inputs: tensors by name; valid only until `execute` returns, so whoever keeps one copies it.
        parameters: request parameters by name.
        request_id: what the client calls the request; may be empty.
        correlation_id: the client's sequence id; 0 or empty means none.
        trace_context: W3C's headers of the span that it belongs to; empty where it is not traced.
    """

    inputs: Tensors = field(repr=False)
    parameters: Mapping[str, object] = field(repr=False)
    request_id: str = ""
    correlation_id: int | str = 0
    trace_context: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


UNREAD = ServerRequest(inputs={}, parameters={})
"""A request of which not even the form could be read."""


def strings(values: list[str]) -> NDArray[np.object_]:
    """A STRING tensor of UTF-8."""
    return np.array([value.encode("utf-8") for value in values], dtype=np.object_)
