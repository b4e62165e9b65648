"""Attention steps by a real server, over both protocols and with both clients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from folio_client import InvalidArgument, NotFound

NUM_HEADS, NUM_KV_HEADS, HEAD_DIM = 9, 3, 64


def tokens(num_tokens: int) -> dict[str, Any]:
    """Queries, keys and values drawn at random."""
    random = np.random.default_rng(num_tokens)
    heads = {"query": NUM_HEADS, "key": NUM_KV_HEADS, "value": NUM_KV_HEADS}
    shapes = {name: (num_tokens, count, HEAD_DIM) for name, count in heads.items()}
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def session_id(request: pytest.FixtureRequest) -> str:
    """A name of the test's own, so that what one test leaves when it fails is not in another's way."""
    return str(request.node.name)


def test_steps(client: Any, session_id: str) -> None:
    attention = client.attention
    held = attention.admin.stats().num_held_pages
    first = attention.step(session_id, **tokens(3), position=0)
    assert (first.output.shape, first.output.dtype, first.length) == ((3, NUM_HEADS, HEAD_DIM), np.float32, 3)
    # The first token attends to itself alone: it gets its own value, once for each query head of a group.
    value = tokens(3)["value"][0].repeat(NUM_HEADS // NUM_KV_HEADS, axis=0)
    # Pages of a codec that compresses hold half precision.
    np.testing.assert_allclose(first.output[0], value, rtol=1e-3, atol=2e-3)
    assert attention.step(session_id, **tokens(1)).length == 4
    with pytest.raises(InvalidArgument, match="position is 3 but the session holds 4") as refusal:
        attention.step(session_id, **tokens(1), position=3)
    assert (refusal.value.field, refusal.value.allowed) == ("position", "4")
    assert [info.num_tokens for info in attention.admin.sessions() if info.session_id == session_id] == [4]
    assert attention.admin.close(session_id) == 4
    assert attention.admin.stats().num_held_pages == held
    assert attention.admin.health().is_healthy


def test_refusals(client: Any) -> None:
    with pytest.raises(NotFound):
        client.attention.step("no such session", **tokens(1), position=5)
    wrong = {**tokens(2), "key": tokens(1)["key"]}
    with pytest.raises(InvalidArgument) as refusal:
        client.attention.step("refusals", **wrong)
    assert refusal.value.field == "key"
    with pytest.raises(InvalidArgument, match="not for attention models"):
        client.attention.admin.fork("a", "b")
