"""Whatever a client sends comes to a request or a refusal, and no refusal repeats what it wrote."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from folio_backend.errors import InvalidArgument
from folio_backend.request import GenerateRequest, Operation
from folio_backend.request_fields import REQUEST_FIELDS
from tests.backend.request_inputs import outcome, strings

CANARY = "xqzcanaryzqx"
KEYS = st.text(max_size=9)
ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
SCALARS = ATOMS | st.binary(max_size=8)
JSON_VALUES = st.recursive(
    ATOMS | st.just(CANARY),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(KEYS, children, max_size=3),
    max_leaves=6,
)
SAMPLING_KEYS = ["n", "temperature", "top_k", "seed", "stop", "stop_token_ids", "max_tokens", "lora_name"]
SAMPLING_DOCUMENTS = st.dictionaries(st.sampled_from(SAMPLING_KEYS), JSON_VALUES, max_size=4).map(json.dumps)
ROLES = st.sampled_from(["system", "user", CANARY])
TURNS = st.fixed_dictionaries({"role": ROLES, "content": JSON_VALUES})
CHATS = st.lists(TURNS, max_size=3).map(json.dumps)
CONTENT = st.just(CANARY) | JSON_VALUES.map(json.dumps) | st.text(max_size=30).map(CANARY.__add__)
FRONT_END_NAMES = ["id", "priority", "sequence_id", "X-Tenant"]
NAMES = st.sampled_from([*REQUEST_FIELDS, *SAMPLING_KEYS, *FRONT_END_NAMES, "other"])


def tensors_of(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Tensors of any of the dtypes and shapes that a client can send."""
    shapes = st.sampled_from([(1,), (1,), (1,), (), (1, 1), (2,), (0,), (1, 2)])
    dtypes = st.sampled_from([np.object_, np.object_, np.bool_, np.int32, np.float32])

    def tensor(value: object, shape: tuple[int, ...], dtype: Any) -> Any:
        filled = np.empty(shape, dtype=np.object_)
        filled.fill(value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value)
        return filled if dtype is np.object_ else np.ones(shape, dtype=dtype)

    return st.builds(tensor, values, shapes, dtypes)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(NAMES | KEYS, tensors_of(SCALARS), max_size=4),
    st.dictionaries(NAMES | KEYS, SCALARS, max_size=4),
    st.text(max_size=20),
    st.integers(0, 2**64 - 1) | st.text(max_size=20),
)
@example({"text_input": strings("a")}, {"n": 10**5_000}, "", 0)
def test_whatever_arrives_is_a_request_or_refused_by_field(
    inputs: dict[str, Any], parameters: dict[str, object], request_id: str, correlation_id: int | str
) -> None:
    result = outcome(inputs, parameters, request_id=request_id, correlation_id=correlation_id)
    if isinstance(result, InvalidArgument):
        assert result.field
        assert result.text().isprintable()
    else:
        assert isinstance(result, (GenerateRequest, Operation))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["text_input", "messages"]),
    CONTENT | CHATS,
    SAMPLING_DOCUMENTS | CONTENT,
    st.dictionaries(st.sampled_from(SAMPLING_KEYS), st.just(CANARY) | SCALARS, max_size=2),
    st.booleans(),
)
def test_no_error_shows_what_the_client_wrote(
    subject: str, content: str, document: str, parameters: dict[str, object], as_tensor: bool
) -> None:
    fields = {subject: content, "sampling_parameters": document}
    inputs = {name: strings(value.encode("utf-8", "replace")) for name, value in fields.items()} if as_tensor else {}
    result = outcome(inputs, parameters if as_tensor else {**fields, **parameters})
    assert CANARY not in (result.text() if isinstance(result, InvalidArgument) else repr(result))
