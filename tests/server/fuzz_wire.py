"""Sends a fuzz case over its protocol, and says what is wrong with the answer.

Knows HTTP and gRPC as a client sees them, and the form of Folio's errors; does not know why a case is good or
bad.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.server.fuzz import Case, Outcome, Wire
from tests.server.fuzz_faults import CANARY

MODEL = "smollm2"

_TIMEOUT_S = 300.0
_OUTPUTS = ("text_output", "result")
_DETAILS = {"code", "field", "allowed", "retry_after_ms"}


@dataclass(frozen=True)
class Answer:
    """What came back.

    Args:
        outputs: the names of the outputs, over all responses.
        error: the error's text; None when there was none.
    """

    outputs: frozenset[str]
    error: str | None


class Client:
    """One connection for each protocol; not to be shared between threads.

    Args:
        http_address: host:port.
        grpc_address: host:port.
    """

    def __init__(self, http_address: str, grpc_address: str) -> None:
        self._http = http.client.HTTPConnection(http_address, timeout=_TIMEOUT_S)
        self._channel = grpc.insecure_channel(grpc_address)
        self._stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def reconnect(self) -> None:
        """Gives up an HTTP connection in an unknown state; gRPC's mends itself."""
        self._http.close()

    def close(self) -> None:
        """Ends both connections."""
        self._http.close()
        self._channel.close()

    def send(self, case: Case) -> Answer:
        """Sends a case and waits for the whole answer.

        Raises:
            OSError, http.client.HTTPException, grpc.RpcError: the server went away or broke the protocol.
        """
        if case.wire is Wire.GRPC:
            return self._send_grpc(case)
        self._http.request("POST", f"/v2/models/{MODEL}/{case.wire.value}", case.body)
        text = self._http.getresponse().read().decode("utf-8")
        return _read_http(_events(text) if case.wire is Wire.GENERATE_STREAM else [text])

    def run_operation(self, **members: str) -> dict[str, Any]:
        """The result of an admin operation, which must succeed."""
        body = json.dumps({"op": json.dumps(members)})
        self._http.request("POST", f"/v2/models/{MODEL}/generate", body)
        answer = json.loads(self._http.getresponse().read())
        assert "result" in answer, answer
        result = json.loads(answer["result"])
        assert isinstance(result, dict)
        return result

    def _send_grpc(self, case: Case) -> Answer:
        outputs: set[str] = set()
        error = None
        for message in self._stub.ModelStreamInfer(iter([_grpc_request(case)]), timeout=_TIMEOUT_S):
            error = error or message.error_message or None
            outputs.update(output.name for output in message.infer_response.outputs)
        return Answer(frozenset(outputs), error)


def _events(text: str) -> list[str]:
    """The data of server-sent events; an error before the first is a plain body."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    return lines or [text]


def _read_http(documents: Iterable[str]) -> Answer:
    outputs: set[str] = set()
    error = None
    for document in documents:
        members = json.loads(document)
        error = error or members.get("error")
        outputs.update(members)
    return Answer(frozenset(outputs), error)


def _grpc_request(case: Case) -> Any:
    request = service_pb2.ModelInferRequest(model_name=MODEL, id=case.request_id)
    for tensor in case.tensors:
        request.inputs.add(name=tensor.name, shape=tensor.shape, datatype=tensor.data_type)
        if tensor.data is not None:
            request.raw_input_contents.append(tensor.data)
    for name, value in case.parameters.items():
        kind = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}[type(value)]
        setattr(request.parameters[name], kind, value)
    return request


def problem(case: Case, answer: Answer) -> str | None:
    """What is wrong with an answer; None when it is as it must be."""
    if answer.error is None:
        return _problem_of_success(case, answer)
    if case.outcome is Outcome.GOOD:
        return f"a good request was refused: {answer.error}"
    if CANARY in answer.error:
        return "the error repeats what the client wrote"
    return None if case.refused_field is None else _problem_of_refusal(case.refused_field, answer.error)


def _problem_of_success(case: Case, answer: Answer) -> str | None:
    if case.outcome is Outcome.REFUSED:
        return "a bad request was answered"
    return None if answer.outputs.intersection(_OUTPUTS) else f"no output among {sorted(answer.outputs)}"


def _problem_of_refusal(field: str, error: str) -> str | None:
    """Folio's errors are one sentence, then JSON that names the field."""
    sentence, _, document = error.partition(" {")
    try:
        details = json.loads("{" + document)
    except json.JSONDecodeError:
        return f"no details in the error: {error}"
    if not sentence.endswith(".") or not details.keys() <= _DETAILS:
        return f"not the form of Folio's errors: {error}"
    if not str(details.get("field", "")).startswith(field):
        return f"the error should name {field}: {error}"
    return None
