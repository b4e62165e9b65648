"""From values to Triton's HTTP protocol and back, and from HTTP's errors to ours.

Pure functions, shared by the synchronous and the asynchronous transport. Generations are JSON and server-sent events
(`/generate_stream`: the server has no `/infer` for models that answer more than once). Tensors travel in Triton's
binary form, which tritonclient writes and reads; its own HTTP client is not used, since it has no `/generate_stream`
and is bound to the thread that made it.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx2
from tritonclient.http import InferenceServerClient, InferInput
from tritonclient.utils import np_to_triton_dtype

from folio_client.connection import Connection
from folio_client.error_text import deadline_exceeded, server_error
from folio_client.errors import BodyTooLarge, ConnectionFailed, ServerError
from folio_client.http_deadline import TimeLeft
from folio_client.retry import Deadline
from folio_client.types import Tensor
from folio_client.wire import GenerateCall, Outputs, TensorCall

MAX_JSON_BYTES = 3_999_999
"""A JSON body of 4.0 MB or more crashes the server (2.51); binary tensors do not."""

_HEADER_LENGTH = "Inference-Header-Content-Length"
_OK = 200
# The server's status for a model that is not loaded; others' for one that there is not, or for no server behind them.
_NOT_READY = frozenset({400, 404, 503})


def http_client_options(connection: Connection) -> dict[str, Any]:
    """Arguments for both of httpx's clients."""
    scheme = "https" if connection.is_encrypted else "http"
    most = connection.max_connections
    return {
        "base_url": f"{scheme}://{connection.address}",
        "headers": dict(connection.headers),
        "limits": httpx2.Limits(max_connections=most, max_keepalive_connections=most),
        "verify": connection.tls.ssl_context() if connection.is_encrypted else True,
    }


def model_path(model: str, verb: str = "") -> str:
    """The path of a model, or of something to do with it."""
    return f"/v2/models/{quote(model, safe='')}{verb}"


def generate_body(call: GenerateCall) -> bytes:
    """The JSON for a request to a generate model; raises BodyTooLarge."""
    fields = {"id": call.request_id, **call.fields} if call.request_id else call.fields
    body = json.dumps(fields, ensure_ascii=False).encode()
    if len(body) > MAX_JSON_BYTES:
        raise BodyTooLarge(len(body), MAX_JSON_BYTES)
    return body


def stream_request(body: bytes, deadline: Deadline) -> dict[str, Any]:
    """A request to be answered by server-sent events of any size: one may hold all sessions of a server."""
    return {"method": "POST", "content": body, "extensions": {"timeout": TimeLeft(deadline)}, "max_event_size": None}


def tensor_body(call: TensorCall) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a request that is answered once."""
    inputs = []
    for name, tensor in call.tensors.items():
        inputs.append(InferInput(name, list(tensor.shape), np_to_triton_dtype(tensor.dtype)))
        inputs[-1].set_data_from_numpy(tensor, binary_data=True)
    body, header_length = InferenceServerClient.generate_request_body(inputs)
    return body, {} if header_length is None else {_HEADER_LENGTH: str(header_length)}


def read_tensors(response: httpx2.Response) -> dict[str, Tensor]:
    """The outputs of an answer whose body is read; raises `FolioError` where it is an error."""
    check_status(response)
    length = response.headers.get(_HEADER_LENGTH)
    with _well_formed():
        result = InferenceServerClient.parse_response_body(
            response.content, header_length=None if length is None else int(length)
        )
        return {output["name"]: result.as_numpy(output["name"]) for output in result.get_response()["outputs"]}


def read_event(data: str) -> Outputs:
    """The outputs in a server-sent event; raises `FolioError` where it is an error."""
    members = _json_object(data)
    if "error" in members:
        raise server_error(str(members["error"]))
    return {name: tuple(value) if isinstance(value, list) else (value,) for name, value in members.items()}


def read_readiness(response: httpx2.Response) -> bool:
    """Whether a model is ready; raises `FolioError` where something else speaks, such as a gateway that lacks a key."""
    if response.status_code in _NOT_READY:
        return False
    check_status(response)
    return True


def read_input_names(response: httpx2.Response) -> frozenset[str]:
    """The inputs that a model's metadata lists; raises `FolioError` where it is an error."""
    check_status(response)
    with _well_formed():
        return frozenset(tensor["name"] for tensor in _json_object(response.text)["inputs"])


def check_status(response: httpx2.Response) -> None:
    """Raises `FolioError` for any status but 200; the body is read."""
    if response.status_code == _OK:
        return
    # An error of /generate_stream is an event, although its status is one of an error.
    text = response.text.strip().removeprefix("data:").strip()
    try:
        error = str(_json_object(text)["error"])
    except (ServerError, KeyError):
        error = f"HTTP status {response.status_code} {response.reason_phrase}".strip()
    raise server_error(error, response.status_code)


@contextmanager
def translated_errors(deadline: Deadline) -> Iterator[None]:
    """Turns what httpx raises into our errors; a connection that is cut off at the deadline fails in many ways."""
    try:
        yield
    except httpx2.ConnectTimeout as error:
        raise ConnectionFailed(f"The server cannot be reached: {_said(error)}.") from error
    except httpx2.TimeoutException as error:
        raise deadline_exceeded(deadline.timeout_s) from error
    # With asyncio, what TLS objects to behind the handshake, such as a missing certificate, arrives as it is.
    except (httpx2.HTTPError, ssl.SSLError) as error:
        if deadline.is_over:
            raise deadline_exceeded(deadline.timeout_s) from error
        raise ConnectionFailed(f"The connection to the server failed: {_said(error)}.") from error


@contextmanager
def _well_formed() -> Iterator[None]:
    """Turns what reading an answer stumbles over into our error: something else than Triton may have answered."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise ServerError("The server's answer is not of Triton's form.") from error


def _said(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__


def _json_object(text: str) -> Mapping[str, Any]:
    try:
        members = json.loads(text)
    except ValueError:
        members = None
    if not isinstance(members, dict):
        raise ServerError("The server's answer is not a JSON object.")
    return members
