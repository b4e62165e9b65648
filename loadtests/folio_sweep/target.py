"""What a server says of its models: their codec, an attention model's shape and batch delay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.grpc
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from folio_client import Client
from folio_sweep.errors import SweepError
from folio_sweep.series import Task


@dataclass(frozen=True)
class AttentionShape:
    """What the tensors of an attention step look like."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Target:
    """One model of one server.

    Attributes:
        address: `host:port` of the server's gRPC.
        model: its name.
        codec: how it compresses sealed pages.
        shape: an attention model's tensors; None for a generate model.
        batch_delay_us: how long the server's batcher waits for more steps; None where it does not batch.
    """

    address: str
    model: str
    codec: str
    shape: AttentionShape | None
    batch_delay_us: int | None

    @property
    def task(self) -> Task:
        """The kind of model."""
        return "generate" if self.shape is None else "attention"


def describe_generate(address: str, model: str) -> Target:
    """A generate model of a server; raises FolioError where it has none of that name."""
    with Client(f"grpc://{address}", model=model) as client:
        return Target(address, model, client.admin.stats().codec, None, None)


def describe_attention(address: str, model: str) -> Target:
    """An attention model of a server.

    Raises:
        FolioError: the server has none of that name.
        SweepError: it is no attention model.
    """
    with Client(f"grpc://{address}", attention_model=model) as client:
        codec = client.attention.admin.stats().codec
    config = _configuration(address, model)
    inputs = {tensor["name"]: tensor for tensor in config["input"]}
    if not {"query", "key"} <= inputs.keys():
        raise SweepError(f"{model} is no attention model: it has no inputs query and key.")
    _, num_heads, head_dim = map(int, inputs["query"]["dims"])
    _, num_kv_heads, _ = map(int, inputs["key"]["dims"])
    dtype = np.dtype(triton_to_np_dtype(inputs["query"]["data_type"].removeprefix("TYPE_")))
    delay_us = config.get("dynamic_batching", {}).get("max_queue_delay_microseconds", 0)
    return Target(address, model, codec, AttentionShape(num_heads, num_kv_heads, head_dim, dtype), int(delay_us))


def _configuration(address: str, model: str) -> dict[str, Any]:
    with tritonclient.grpc.InferenceServerClient(address) as client:
        try:
            answer: dict[str, Any] = client.get_model_config(model, as_json=True)["config"]
        except InferenceServerException as error:
            raise SweepError(f"The server at {address} does not describe {model}: {error.message()}") from error
        return answer
