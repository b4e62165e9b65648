"""A model without a model, for tests of the launcher: it loads and answers when a test lets it.

Its parameters name pipes. Opening one for writing waits until the model has come to that point; closing it lets
the model go on.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Answers every request with its process id, as soon as the pipe it names is closed."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Waits for the pipe `load_pipe`, or fails with the sentence `load_error`."""
        parameters = json.loads(args["model_config"])["parameters"]
        pb_utils.Logger.log_info("[folio] loading a model that waits")
        if "load_pipe" in parameters:
            Path(parameters["load_pipe"]["string_value"]).read_text()
        if "load_error" in parameters:
            raise ValueError(parameters["load_error"]["string_value"])
        kind = pb_utils.MetricFamily.GAUGE
        self.family = pb_utils.MetricFamily("folio_requests_running", "Requests that run.", kind)
        self.num_running = self.family.Metric(labels={})

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Waits for each request's pipe."""
        self.num_running.set(len(requests))
        responses = [self.answer(request) for request in requests]
        self.num_running.set(0)
        return responses

    def answer(self, request: Any) -> Any:
        """The process id, when the request's pipe is closed; at once where it names none."""
        pipe = pb_utils.get_input_tensor_by_name(request, "pipe").as_numpy()[0].decode()
        if pipe:
            Path(pipe).read_text()
        return pb_utils.InferenceResponse([pb_utils.Tensor("pid", np.array([os.getpid()], np.int32))])
