"""A server of the generate model alone, configured so that its limits, warm-up and other options show."""

from __future__ import annotations

from pathlib import Path

from tests.server.fuzz_malformed import strings
from tests.server.grpc_stream import MODEL
from tests.server.running_server import RunningServer

WARMUP_SESSION = "warmup"

_SOURCE = Path(__file__).parents[2] / "model_repository" / MODEL
_WARMUP = """
model_warmup [ {
  name: "a turn"
  batch_size: 1
  inputs { key: "text_input" value { data_type: TYPE_STRING dims: [ 1 ] input_data_file: "text" } }
  inputs { key: "session_id" value { data_type: TYPE_STRING dims: [ 1 ] input_data_file: "session" } }
} ]
"""
_ENVIRONMENT = {
    "KV_CACHE_MAX_RUNNING_REQUESTS": "1",
    "KV_CACHE_MAX_QUEUED_REQUESTS": "2",
    "KV_CACHE_VLLM_METRICS": "true",
}


def generate_repository(folder: Path, more_configuration: str = "") -> Path:
    """A repository in `folder` with the generate model, its config.pbtxt the project's own with more behind it."""
    version = folder / "repository" / MODEL / "1"
    version.mkdir(parents=True)
    config = (_SOURCE / "config.pbtxt").read_text() + more_configuration
    (version.parent / "config.pbtxt").write_text(config)
    return version.parents[1]


def start_small_server(folder: Path) -> RunningServer:
    """A server with room for one running and two waiting requests.

    Before it is ready it sends the model a first turn of a session. It publishes vLLM's metrics besides ours.
    """
    repository = generate_repository(folder, _WARMUP)
    warmup = repository / MODEL / "warmup"
    warmup.mkdir()
    (warmup / "text").write_bytes(strings(b"Hello"))
    (warmup / "session").write_bytes(strings(WARMUP_SESSION.encode()))
    # What runs at the end may finish, however slow the machine is.
    patience = ["--exit-timeout-secs=300"]
    server = RunningServer(folder, model_repository=repository, environment=_ENVIRONMENT, arguments=patience)
    server.wait_until_ready()
    return server
