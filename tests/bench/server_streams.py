"""The same generations through a real server, over gRPC."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tritonclient.grpc as grpc_client

from tests.server.running_server import RunningServer


@contextmanager
def running_server(codec: str) -> Iterator[RunningServer]:
    """The repository's own models with a codec."""
    with (
        TemporaryDirectory() as folder,
        RunningServer(Path(folder), environment={"KV_CACHE_CODEC": codec}) as server,
    ):
        yield server


def run_server_streams(address: str, prompts: Sequence[str], num_tokens: int) -> float:
    """Streams one generation per prompt, each over a connection of its own; returns tokens per second in all."""
    failures: list[Exception] = []
    threads = [threading.Thread(target=_stream, args=(address, prompt, num_tokens, failures)) for prompt in prompts]
    started_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return len(prompts) * num_tokens / (time.perf_counter() - started_s)


def _stream(address: str, prompt: str, num_tokens: int, failures: list[Exception]) -> None:
    ended = threading.Event()

    def take(result: grpc_client.InferResult | None, error: Exception | None) -> None:
        if error is not None:
            failures.append(error)
            ended.set()
        elif result is not None and result.get_response().parameters["triton_final_response"].bool_param:
            ended.set()

    sampling = json.dumps({"temperature": 0, "max_tokens": num_tokens, "ignore_eos": True})
    inputs = [_string("text_input", prompt), _string("sampling_parameters", sampling)]
    inputs.append(grpc_client.InferInput("stream", [1], "BOOL"))
    inputs[-1].set_data_from_numpy(np.array([True]))
    with grpc_client.InferenceServerClient(address) as client:
        client.start_stream(take)
        client.async_stream_infer("smollm2", inputs, enable_empty_final_response=True)
        ended.wait()
        client.stop_stream()


def _string(name: str, text: str) -> grpc_client.InferInput:
    tensor = grpc_client.InferInput(name, [1], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode()], dtype=np.object_))
    return tensor
