"""The inputs and outputs of both kinds of model, as the server's configuration spells them.

Knows names, types and shapes; nothing of values.
"""

from __future__ import annotations

from typing import Any

from folio_backend.request_fields import REQUEST_FIELDS

TensorSpecification = dict[str, Any]

GENERATE_INPUTS: tuple[TensorSpecification, ...] = tuple(
    {"name": field.name, "data_type": field.data_type, "dims": [1], "optional": True}
    for field in REQUEST_FIELDS.values()
)

GENERATE_OUTPUTS: tuple[TensorSpecification, ...] = tuple(
    {"name": name, "data_type": data_type, "dims": dims}
    for name, data_type, dims in (
        ("text_output", "TYPE_STRING", [-1]),
        ("finish_reason", "TYPE_STRING", [-1]),
        ("cumulative_logprob", "TYPE_FP32", [-1]),
        ("logprobs", "TYPE_STRING", [-1]),
        ("num_input_tokens", "TYPE_UINT32", [1]),
        ("num_output_tokens", "TYPE_UINT32", [-1]),
        ("num_cached_tokens", "TYPE_UINT32", [1]),
        ("result", "TYPE_STRING", [1]),
    )
)

ATTENTION_TYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16"}
"""Dtypes whose tensors NumPy can hold."""


def attention_inputs(num_heads: int, num_kv_heads: int, head_dim: int, dtype: str) -> tuple[TensorSpecification, ...]:
    """The inputs of an attention model, without the batch dimension."""
    element = ATTENTION_TYPES[dtype]
    ragged = {"data_type": element, "allow_ragged_batch": True, "optional": True}
    return (
        {"name": "session_id", "data_type": "TYPE_STRING", "dims": [1], "optional": True},
        {"name": "query", "dims": [-1, num_heads, head_dim], **ragged},
        {"name": "key", "dims": [-1, num_kv_heads, head_dim], **ragged},
        {"name": "value", "dims": [-1, num_kv_heads, head_dim], **ragged},
        {"name": "position", "data_type": "TYPE_INT32", "dims": [1], "optional": True},
        {"name": "op", "data_type": "TYPE_STRING", "dims": [1], "optional": True},
    )


def attention_outputs(num_heads: int, head_dim: int, dtype: str) -> tuple[TensorSpecification, ...]:
    """The outputs of an attention model."""
    return (
        {"name": "output", "data_type": ATTENTION_TYPES[dtype], "dims": [-1, num_heads, head_dim]},
        {"name": "length", "data_type": "TYPE_INT32", "dims": [1]},
        {"name": "result", "data_type": "TYPE_STRING", "dims": [1]},
    )
