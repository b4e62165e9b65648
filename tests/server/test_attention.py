"""The attention model behind a real server: batches formed by the server, answers checked against float64."""

from __future__ import annotations

import shutil
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.server.generate_client import wait_until
from tests.server.running_server import RunningServer

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = Path(__file__).parents[2] / "model_repository/attention"
NUM_HEADS, NUM_KV_HEADS, HEAD_DIM = 9, 3, 64
NUM_CLIENTS, NUM_DECODE_STEPS = 16, 40


@dataclass(frozen=True)
class Tokens:
    """Queries `[tokens, heads, head_dim]`, keys and values `[tokens, kv_heads, head_dim]`."""

    query: Any
    key: Any
    value: Any

    def part(self, start: int, end: int) -> dict[str, Any]:
        """Some of them, as inputs."""
        tensors = {"query": self.query, "key": self.key, "value": self.value}
        return {name: tensor[None, start:end] for name, tensor in tensors.items()}

    def attention(self) -> Any:
        """Causal attention in float64."""
        group = NUM_HEADS // NUM_KV_HEADS
        key, value = (tensor.astype(np.float64).repeat(group, 1) for tensor in (self.key, self.value))
        scores = np.einsum("qhd,khd->hqk", self.query.astype(np.float64), key) / HEAD_DIM**0.5
        scores = np.where(np.tri(len(key), dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        return np.einsum("hqk,khd->qhd", weights / weights.sum(-1, keepdims=True), value)


def tokens(num_tokens: int, seed: int) -> Tokens:
    random = np.random.default_rng(seed)
    shapes = ((num_tokens, heads, HEAD_DIM) for heads in (NUM_HEADS, NUM_KV_HEADS, NUM_KV_HEADS))
    return Tokens(*(random.standard_normal(shape).astype(np.float32) for shape in shapes))


def text(value: str) -> Any:
    return np.array([[value.encode()]], dtype=object)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The attention model as it is shipped, alone, without compression, so that float64 says what is right."""
    folder = tmp_path_factory.mktemp("attention")
    shutil.copytree(MODEL, folder / "repository/attention")
    environment = {"KV_CACHE_CODEC": "none", "KV_CACHE_ADMIN_TOKEN": ""}
    with RunningServer(folder, model_repository=folder / "repository", environment=environment) as running:
        yield running


def infer(client: Any, session_id: str, inputs: dict[str, Any], position: int | None = None) -> Any:
    """The answer to one step."""
    inputs = {"session_id": text(session_id), **inputs}
    if position is not None:
        inputs["position"] = np.array([[position]], dtype=np.int32)
    return client.infer("attention", [tensor_of(tritonclient.grpc, name, array) for name, array in inputs.items()])


def tensor_of(protocol: Any, name: str, array: Any) -> Any:
    tensor = protocol.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array)
    return tensor


def counters(server: RunningServer) -> dict[str, float]:
    """The server's own counters of the attention model."""
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics") as response:
        families = list(text_string_to_metric_families(response.read().decode()))
    samples = [sample for family in families for sample in family.samples]
    # The parser gives every counter OpenMetrics' suffix, which the server's own do not have.
    named = ((sample.name.removesuffix("_total"), sample) for sample in samples)
    return {name: sample.value for name, sample in named if sample.labels.get("model") == "attention"}


def test_steps_of_many_clients_share_executions(server: RunningServer) -> None:
    before = counters(server)
    start = threading.Barrier(NUM_CLIENTS)

    def converse(index: int) -> tuple[Tokens, list[Any]]:
        """A prompt of a length of its own, then one token at a time."""
        num_prompt = 1 + 20 * index
        told = tokens(num_prompt + NUM_DECODE_STEPS, seed=index)
        with tritonclient.grpc.InferenceServerClient(server.grpc_address) as client:
            start.wait()
            outputs = [infer(client, f"s{index}", told.part(0, num_prompt), 0).as_numpy("output")[0]]
            for position in range(num_prompt, len(told.key)):
                answer = infer(client, f"s{index}", told.part(position, position + 1), position)
                assert answer.as_numpy("length").tolist() == [[position + 1]]
                outputs.append(answer.as_numpy("output")[0])
        return told, outputs

    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        conversations = list(pool.map(converse, range(NUM_CLIENTS)))
    for told, outputs in conversations:
        np.testing.assert_allclose(np.concatenate(outputs), told.attention(), rtol=0, atol=1e-4)
    num_steps = NUM_CLIENTS * (NUM_DECODE_STEPS + 1)
    # The server counts a step behind its answer.
    wait_until(lambda: counters(server)["nv_inference_count"] - before.get("nv_inference_count", 0) == num_steps)
    num_executions = counters(server)["nv_inference_exec_count"] - before.get("nv_inference_exec_count", 0)
    assert num_executions <= num_steps / 3, f"{num_executions} executions for {num_steps} steps"


WRONG: list[tuple[dict[str, Any], int | None, str, str]] = [
    ({"key": np.full((1, 5, 3, 64), np.nan, dtype=np.float32)}, None, "key", "numbers from"),
    ({"query": np.zeros((1, 5, 8, 64), dtype=np.float32)}, None, "query", "9"),
    ({"value": np.zeros((1, 5, 3, 64), dtype=np.float16)}, None, "value", "FP"),
    ({"value": np.zeros((1, 4, 3, 64), dtype=np.float32)}, None, "value", "5 tokens"),
    ({}, 3, "position", "70"),
    ({}, 0, "position", "70"),
]


@pytest.mark.parametrize(("changes", "position", "named", "allowed"), WRONG)
def test_wrong_inputs_are_refused_over_the_wire_and_change_nothing(
    server: RunningServer, changes: dict[str, Any], position: int | None, named: str, allowed: str
) -> None:
    told = tokens(75, seed=99)
    session_id = f"wrong {named} {position} {allowed}"
    with tritonclient.grpc.InferenceServerClient(server.grpc_address) as client:
        infer(client, session_id, told.part(0, 70), 0)
        with pytest.raises(InferenceServerException) as refusal:
            infer(client, session_id, told.part(70, 75) | changes, position)
        assert named in refusal.value.message()
        assert allowed in refusal.value.message()
        assert refusal.value.status() == "StatusCode.INVALID_ARGUMENT"
        output = infer(client, session_id, told.part(70, 75), 70).as_numpy("output")[0]
    np.testing.assert_allclose(output, told.attention()[70:], rtol=0, atol=1e-4)


def test_operations_and_steps_over_http(server: RunningServer) -> None:
    told = tokens(3, seed=5)
    inputs = {"session_id": text("over http"), **told.part(0, 3)}
    with tritonclient.http.InferenceServerClient(server.http_address) as client:
        steps = [tensor_of(tritonclient.http, name, array) for name, array in inputs.items()]
        answer = client.infer("attention", steps)
        np.testing.assert_allclose(answer.as_numpy("output")[0], told.attention(), rtol=0, atol=1e-4)
        close = tensor_of(tritonclient.http, "op", text('{"op": "close", "session_id": "over http"}'))
        assert b'"num_tokens": 3' in client.infer("attention", [close]).as_numpy("result").item()
        with pytest.raises(InferenceServerException, match="There is no such session"):
            client.infer("attention", [close])
