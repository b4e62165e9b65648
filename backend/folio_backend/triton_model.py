"""What the server loads: the one place that speaks the server's own types.

Translates requests into plain values, answers into tensors, and every error once. Does not know how anything is
served (`generate_service`, `attention_service`).
"""

from __future__ import annotations

import json
import locale
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import triton_python_backend_utils as pb_utils

from folio_backend.config import Settings
from folio_backend.errors import ConfigurationError, FolioError, InvalidArgument, place_of
from folio_backend.finished_request import FinishedRequest
from folio_backend.json_log import JsonLog
from folio_backend.metric_definitions import VLLM_ALIASES
from folio_backend.metrics_publisher import MetricsPublisher
from folio_backend.model_signature import (
    GENERATE_INPUTS,
    GENERATE_OUTPUTS,
    attention_inputs,
    attention_outputs,
)
from folio_backend.server_request import ServerRequest, Tensors
from folio_backend.snapshot_thread import SnapshotThread
from folio_backend.tracing import RequestTracer
from folio_backend.triton_metrics import TritonMetricSink

if TYPE_CHECKING:
    from folio_backend.attention_service import AttentionService
    from folio_backend.generate_server import GenerateServer
    from folio_backend.generate_service import GenerateService


class TritonPythonModel:
    """A model of the folio backend."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Fills in inputs, outputs and the transaction policy, so that a few lines of config.pbtxt are enough."""
        config = auto_complete_model_config.as_dict()
        settings = Settings.load(_parameters(config), os.environ)
        if settings.task == "generate":
            inputs, outputs = GENERATE_INPUTS, GENERATE_OUTPUTS
            auto_complete_model_config.set_max_batch_size(0)
            auto_complete_model_config.set_model_transaction_policy({"decoupled": True})
        else:
            assert settings.num_heads is not None
            assert settings.num_kv_heads is not None
            assert settings.head_dim is not None
            dtype = settings.resolved_dtype("cpu", "float32")
            inputs = attention_inputs(settings.num_heads, settings.num_kv_heads, settings.head_dim, dtype)
            outputs = attention_outputs(settings.num_heads, settings.head_dim, dtype)
        _add_missing(config["input"], inputs, auto_complete_model_config.add_input)
        _add_missing(config["output"], outputs, auto_complete_model_config.add_output)
        return auto_complete_model_config

    def initialize(self, args: Mapping[str, str]) -> None:
        """Loads, compiles and warms up; the model is ready when this returns."""
        _check_numpy()
        # The stub runs in the C locale, where Python reads the compiler's files as ASCII.
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
        config = json.loads(args["model_config"])
        settings = Settings.load(_parameters(config), os.environ)
        device = _device(settings, args)
        self._log = _log(settings, args)
        self._log.start()
        self._tracer = _tracer(settings, args)
        self._server = self._load(settings, device)
        service = self._server.service
        self._snapshots = SnapshotThread(service.recorder, service.snapshot, settings.metrics_interval_s)
        self._publisher = _publisher(args, settings, service, self._report_error)
        self._snapshots.start()
        if self._publisher is not None:
            self._publisher.start()
        self._log.info("ready")

    def _load(self, settings: Settings, device: Literal["cpu", "cuda"]) -> _Generate | _Attention:
        """Each model is a process of its own and imports only what its task needs: transformers takes seconds."""
        if settings.task == "generate":
            from folio_backend.generate_server import GenerateServer  # noqa: PLC0415 - see above
            from folio_backend.generate_service import GenerateService  # noqa: PLC0415

            service = GenerateService(settings, device, self._log.info)
            return _Generate(GenerateServer(service, self._observe, self._report_error))
        from folio_backend.attention_service import AttentionService  # noqa: PLC0415 - see above

        return _Attention(AttentionService(settings, device, self._log.info, self._observe))

    def execute(self, requests: Sequence[Any]) -> list[Any] | None:
        """Takes a batch of requests; never blocks on a generation."""
        return self._server.execute(requests)

    def finalize(self) -> None:
        """Finishes what runs and stops."""
        self._server.close()
        self._snapshots.stop()
        if self._publisher is not None:
            self._publisher.stop()
        if self._tracer is not None:
            self._tracer.stop()
        self._log.stop()

    def _observe(self, finished: FinishedRequest) -> None:
        self._log.observe(finished)
        if self._tracer is not None:
            self._tracer.observe(finished)

    def _report_error(self, error: Exception) -> None:
        # What other exceptions say may quote a request.
        is_known = isinstance(error, (ConfigurationError, pb_utils.TritonModelException))
        self._log.error(f"{type(error).__name__}: {error}" if is_known else place_of(error))


class _ServerLog:
    """The server's own log, for people: what loading does, and faults."""

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def observe(self, finished: FinishedRequest) -> None:
        pass

    def info(self, sentence: str) -> None:
        pb_utils.Logger.log_info(f"[folio] {sentence}")

    def error(self, sentence: str) -> None:
        pb_utils.Logger.log_error(f"[folio] {sentence}")


class _Sender:
    """The server's own way to answer one request."""

    def __init__(self, sender: Any) -> None:
        self._sender = sender

    def send(self, outputs: Tensors, *, is_final: bool) -> None:
        self._sender.send(_response(outputs), flags=_final() if is_final else 0)

    def fail(self, error: FolioError) -> None:
        self._sender.send(_error_response(error), flags=_final())

    def is_cancelled(self) -> bool:
        return bool(self._sender.is_cancelled())


class _Generate:
    """A generate server behind decoupled requests."""

    def __init__(self, server: GenerateServer) -> None:
        self._server = server
        self.service = server.service

    def execute(self, requests: Sequence[Any]) -> None:
        for request in requests:
            self._server.take(partial(_plain, request), _Sender(request.get_response_sender()))

    def close(self) -> None:
        self._server.close()


class _Attention:
    """An attention service behind the server's own dynamic batching."""

    def __init__(self, service: AttentionService) -> None:
        self.service = service

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        plain = [self._read(request) for request in requests]
        answers = iter(self.service.execute([given for given in plain if isinstance(given, ServerRequest)]))
        results = [next(answers) if isinstance(given, ServerRequest) else given for given in plain]
        return [_error_response(result) if isinstance(result, FolioError) else _response(result) for result in results]

    def _read(self, request: Any) -> ServerRequest | FolioError:
        try:
            return _plain(request)
        except FolioError as error:
            return self.service.refuse(error)

    def close(self) -> None:
        self.service.close()


def _plain(request: Any) -> ServerRequest:
    return ServerRequest(
        inputs={tensor.name(): tensor.as_numpy() for tensor in request.inputs()},
        parameters=_request_parameters(request),
        request_id=request.request_id(),
        correlation_id=request.correlation_id(),
        trace_context=json.loads(request.trace().get_context() or "{}"),
    )


def _request_parameters(request: Any) -> dict[str, object]:
    try:
        return dict(json.loads(request.parameters() or "{}"))
    except UnicodeDecodeError:
        raise InvalidArgument(
            "The request's parameters are not UTF-8.", field="parameters", allowed="UTF-8 names and values"
        ) from None


def _final() -> int:
    """The flag of a last response; like the error codes it is not there yet while a configuration is completed."""
    return int(pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _response(outputs: Tensors) -> Any:
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in outputs.items()])


def _error_response(error: FolioError) -> Any:
    return pb_utils.InferenceResponse(
        error=pb_utils.TritonError(error.text(), getattr(pb_utils.TritonError, error.code.value))
    )


def _parameters(config: Mapping[str, Any]) -> dict[str, str]:
    return {name: value["string_value"] for name, value in (config.get("parameters") or {}).items()}


def _add_missing(present: Sequence[Mapping[str, Any]], wanted: Sequence[Any], add: Callable[[Any], None]) -> None:
    names = {tensor["name"] for tensor in present}
    for tensor in wanted:
        if tensor["name"] not in names:
            add(dict(tensor))


def _device(settings: Settings, args: Mapping[str, str]) -> Literal["cpu", "cuda"]:
    if settings.device != "auto":
        return settings.device
    return "cuda" if args["model_instance_kind"] == "GPU" and torch.cuda.is_available() else "cpu"


def _check_numpy() -> None:
    major = int(np.__version__.split(".")[0])
    if major > 1:
        raise ConfigurationError(
            f"NumPy {np.__version__} is installed; this server's Python stub corrupts every tensor with it; "
            "allowed: numpy<2."
        )


def _names(args: Mapping[str, str]) -> dict[str, str]:
    return {"model": args["model_name"], "version": args["model_version"]}


def _log(settings: Settings, args: Mapping[str, str]) -> JsonLog | _ServerLog:
    if settings.log_format == "text":
        return _ServerLog()
    # The server writes its own lines in pieces to standard error: whoever keeps the two apart gets ours whole.
    return JsonLog(sys.stdout, {**_names(args), "task": settings.task})


def _tracer(settings: Settings, args: Mapping[str, str]) -> RequestTracer | None:
    return None if settings.trace_url is None else RequestTracer(settings.trace_url.get_secret_value(), _names(args))


def _publisher(
    args: Mapping[str, str],
    settings: Settings,
    service: GenerateService | AttentionService,
    on_error: Callable[[Exception], None],
) -> MetricsPublisher | None:
    """The publisher, or None when the server was started without metrics."""
    try:
        return MetricsPublisher(
            service.recorder,
            TritonMetricSink(pb_utils),
            _names(args),
            on_error=on_error,
            interval_s=settings.metrics_interval_s,
            aliases=VLLM_ALIASES if settings.task == "generate" and settings.vllm_metrics else None,
        )
    except pb_utils.TritonModelException as error:
        if "metrics not supported" not in str(error):
            raise
        return None
