"""`folio-server` with a real server and a model that does nothing but wait: starts, ends, and what they leave."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from tests.server.running_server import RunningServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.server.fixtures import StartServer

MODEL = Path(__file__).parent / "waiting_model"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model repository with the waiting model."""
    version = tmp_path / "repository/waiting/1"
    version.mkdir(parents=True)
    shutil.copy(MODEL / "model.py", version)
    shutil.copy(MODEL / "config.pbtxt", version.parent)
    return version.parents[1]


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A named pipe by which a test holds the model."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def set_parameter(repository: Path, name: str, value: str | Path) -> None:
    with (repository / "waiting/config.pbtxt").open("a") as config:
        config.write(f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}\n')


def infer(address: str, pipe: str | Path = "", limit_s: float | None = None) -> int:
    """The model's process id, once `pipe` is closed."""
    tensor = tritonclient.grpc.InferInput("pipe", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([str(pipe).encode()], dtype=object))
    with tritonclient.grpc.InferenceServerClient(address) as client:
        return int(client.infer("waiting", [tensor], client_timeout=limit_s).as_numpy("pid")[0])


def refuses(address: str) -> bool:
    """Whether the server takes no request any more; one that it takes does not wait for its answer."""
    try:
        infer(address, limit_s=0.5)
    except InferenceServerException as error:
        # A server that drains unloads its models first and closes its port later.
        return error.status() in {"StatusCode.NOT_FOUND", "StatusCode.UNAVAILABLE"}
    return False


def get(address: str, path: str) -> tuple[int, str]:
    """Status and body of an HTTP answer."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def wait_for(condition: Callable[[], bool]) -> None:
    """Returns when `condition` holds; the test's own time limit ends a wait in vain."""
    while not condition():
        time.sleep(0.02)


def test_serves_on_three_ports_and_goes_without_a_trace(start_server: StartServer, repository: Path) -> None:
    server = start_server(model_repository=repository, arguments=["--id=passed-on"])
    assert get(server.http_address, "/v2/health/ready")[0] == 200
    assert "passed-on" in server.log.read_text()
    assert "nv_inference_request_success" in get(server.metrics_address, "/metrics")[1]
    assert [infer(server.grpc_address)] == server.stub_pids()
    assert server.shared_memory(), "the server's memory must carry the launcher's name, or none of it is cleaned up"
    assert "loading a model that waits" in server.messages()
    assert server.stop() == 0


def test_servers_run_side_by_side(start_server: StartServer, repository: Path) -> None:
    first, second = (start_server(model_repository=repository) for _ in range(2))
    assert infer(first.grpc_address) != infer(second.grpc_address)
    assert first.stop() == 0
    assert [infer(second.grpc_address)] == second.stub_pids()
    assert second.shared_memory()


def test_stop_lets_running_requests_finish(start_server: StartServer, repository: Path, pipe: Path) -> None:
    server = start_server(model_repository=repository, arguments=["--exit-timeout-secs=3600"])
    stub_pids = server.stub_pids()
    with ThreadPoolExecutor(1) as client:
        answer = client.submit(infer, server.grpc_address, pipe)
        with pipe.open("w"):  # opens when the model reads it, which is when the request runs
            server.signal(signal.SIGTERM)
            wait_for(lambda: refuses(server.grpc_address))
            assert not answer.done()
        assert [answer.result()] == stub_pids
    assert server.wait() == 0


def test_idle_clients_do_not_hold_up_the_end(start_server: StartServer, repository: Path) -> None:
    server = start_server(model_repository=repository, arguments=["--exit-timeout-secs=3600"])
    connection = http.client.HTTPConnection(server.http_address)
    connection.request("GET", "/v2/health/ready")
    connection.getresponse().read()
    with tritonclient.grpc.InferenceServerClient(server.grpc_address) as client:
        client.start_stream(lambda **_: None)
        assert server.stop() == 0
    connection.close()


@pytest.mark.parametrize("at_end", ["interrupt", "end of stdin"])
def test_other_ways_to_stop(start_server: StartServer, repository: Path, at_end: str) -> None:
    server = start_server(model_repository=repository)
    if at_end == "interrupt":
        server.signal(signal.SIGINT)
    else:
        assert server.launcher.stdin is not None
        server.launcher.stdin.close()
    assert server.wait() == 0


def test_killed_launcher_takes_the_server_along(tmp_path: Path, repository: Path) -> None:
    server = RunningServer(tmp_path, model_repository=repository)
    server.wait_until_ready()
    server.signal(signal.SIGKILL)
    assert server.wait() == -signal.SIGKILL


def test_killed_server_ends_the_launcher(tmp_path: Path, repository: Path) -> None:
    server = RunningServer(tmp_path, model_repository=repository)
    server.wait_until_ready()
    server.signal(signal.SIGKILL, server.server_pid())
    assert server.wait() == 1
    assert "ended by itself" in server.messages()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_stop_while_a_model_loads(
    tmp_path: Path, repository: Path, pipe: Path, number: signal.Signals, status: int
) -> None:
    set_parameter(repository, "load_pipe", pipe)
    server = RunningServer(tmp_path, model_repository=repository)
    with pipe.open("w"):  # opens when the model loads
        server.signal(number)
        assert server.wait() == status


def test_a_model_that_fails_to_load_is_reported(tmp_path: Path, repository: Path) -> None:
    set_parameter(repository, "load_error", "the weights are made of cheese")
    server = RunningServer(tmp_path, model_repository=repository)
    assert server.wait() == 1
    assert "waiting: Internal: ValueError: the weights are made of cheese" in server.messages()
    assert not server.shared_memory()


def test_taken_port_is_refused_by_name(start_server: StartServer, repository: Path, tmp_path: Path) -> None:
    first = start_server(model_repository=repository)
    port = first.grpc_address.partition(":")[2]
    second = RunningServer(tmp_path, model_repository=repository, arguments=[f"--grpc-port={port}"])
    assert second.wait() == 1
    assert f"grpc port {port}" in second.messages()
    assert "GRPC_PORT" in second.messages()
