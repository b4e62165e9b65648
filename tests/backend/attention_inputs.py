"""Steps of attention sessions for tests, a service that answers them, and what the answers should be.

The numbers are multiples of 1/64, small enough that sums of them are exact in float32: what a codec makes of a page
then depends on nothing but its tokens.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from folio_backend.attention_service import AttentionService
from folio_backend.config import Settings
from folio_backend.errors import FolioError
from folio_backend.finished_request import Observer
from folio_backend.server_request import ServerRequest, strings
from folio_kernels.codecs import Codec, codec_named
from folio_kernels.layout import PAGE_SIZE
from folio_kernels.pool import hadamard
from folio_kernels.reference import decode_pages, encode_pages

NUM_HEADS, NUM_KV_HEADS, HEAD_DIM = 4, 2, 64
SINK_PAGES = 1
SHAPE: dict[str, Any] = {"num_heads": NUM_HEADS, "num_kv_heads": NUM_KV_HEADS, "head_dim": HEAD_DIM}


@dataclass(frozen=True)
class History:
    """Queries `[tokens, heads, head_dim]`, keys and values `[tokens, kv_heads, head_dim]` of one session."""

    query: Any
    key: Any
    value: Any

    def part(self, start: int, end: int) -> History:
        """Some of its tokens."""
        return History(self.query[start:end], self.key[start:end], self.value[start:end])

    def inputs(self) -> dict[str, Any]:
        """The three tensors as the server hands them over."""
        return {"query": self.query[None], "key": self.key[None], "value": self.value[None]}

    def step(self, session_id: str, position: int | None = None, **parameters: object) -> ServerRequest:
        """A request that appends all of it."""
        inputs = self.inputs() | {"session_id": strings([session_id]).reshape(1, 1)}
        if position is not None:
            inputs["position"] = np.array([[position]], dtype=np.int32)
        return ServerRequest(inputs, parameters)


def history(num_tokens: int, seed: int = 0, dtype: str = "float32", num_kv_heads: int = NUM_KV_HEADS) -> History:
    """Normally distributed tokens."""
    random = np.random.default_rng(seed)

    def numbers(num_heads: int) -> Any:
        drawn = random.standard_normal((num_tokens, num_heads, HEAD_DIM)).clip(-7, 7)
        return (np.round(drawn * 64) / 64).astype(dtype)

    return History(numbers(num_kv_heads * NUM_HEADS // NUM_KV_HEADS), numbers(num_kv_heads), numbers(num_kv_heads))


@contextlib.contextmanager
def serving(
    progress: Callable[[str], None] = lambda _: None, observe: Observer = lambda _: None, **settings: Any
) -> Iterator[AttentionService]:
    """A small service whose pages must add up at the end, and all be free once it is closed."""
    chosen = {"codec": "none", "max_memory_mb": 8, "sink_pages": SINK_PAGES, "compile": False, **SHAPE} | settings
    service = AttentionService(Settings(task="attention", **chosen), "cpu", progress, observe)
    yield service
    service.check_integrity()
    service.close()
    assert num_pages(service, "held") == 0


def num_pages(service: AttentionService, state: str) -> int:
    """Pages of both kinds in that state."""
    return sum(count for (_, other), count in service.snapshot().num_pages.items() if other == state)


def answer(service: AttentionService, request: ServerRequest) -> Any:
    """The outputs of a request that runs alone; a refusal is raised."""
    (only,) = service.execute([request])
    if isinstance(only, FolioError):
        raise only
    return only


def operate(service: AttentionService, **members: object) -> Any:
    """What an operation answers; a refusal is raised."""
    document = strings([json.dumps(members)]).reshape(1, 1)
    return json.loads(answer(service, ServerRequest({"op": document}, {}))["result"].item())


def sizes(service: AttentionService) -> tuple[object, ...]:
    """What a refused step must leave alone."""
    state = service.snapshot()
    return operate(service, op="sessions"), dict(state.num_pages), dict(state.num_evictions)


def expected_output(told: History, codec_name: str) -> Any:
    """Causal attention in float64, each query reading its own page raw and earlier ones as the codec stores them."""
    codec = codec_named(codec_name)
    cache_dtype = torch.float16 if codec.compresses else torch.float32
    rotation = hadamard(HEAD_DIM) if codec.rotates_values else torch.eye(HEAD_DIM)
    key = torch.tensor(told.key).to(cache_dtype)
    value = (torch.tensor(told.value).float() @ rotation).to(cache_dtype)
    stored_key, stored_value = _stored(key, codec, 0, value), _stored(key, codec, 1, value)
    outputs = []
    for position, query in enumerate(torch.tensor(told.query).double()):
        own = position - position % PAGE_SIZE
        keys = torch.cat([stored_key[:own], key[own : position + 1]])
        values = torch.cat([stored_value[:own], value[own : position + 1]])
        outputs.append(_attention(query, keys.double(), values.double()))
    return (torch.stack(outputs) @ rotation.double()).numpy()


def _attention(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    group = query.shape[0] // keys.shape[1]
    keys, values = keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1)
    weights = (torch.einsum("hd,thd->ht", query, keys) / HEAD_DIM**0.5).softmax(-1)
    return torch.einsum("ht,thd->hd", weights, values)


def _stored(key: torch.Tensor, codec: Codec, part: int, value: torch.Tensor) -> torch.Tensor:
    """Keys (part 0) or values (part 1) as later pages read them: sinks and the open page raw."""
    pages = []
    for start in range(0, len(key), PAGE_SIZE):
        page = slice(start, start + PAGE_SIZE)
        both = key[page].transpose(0, 1), value[page].transpose(0, 1)
        if start >= SINK_PAGES * PAGE_SIZE and len(key[page]) == PAGE_SIZE:
            both = decode_pages(encode_pages(*both, codec), codec)
        pages.append(both[part].transpose(0, 1).float())
    return torch.cat(pages)
