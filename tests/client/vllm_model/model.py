"""A model with vllm_backend's interface that says what its prompt tells it to: for tests of clients.

It answers "one two three" in three responses. A prompt "refused N ..." is refused that many times before; "breaks off"
ends after the first response, "fails" does so with an error.
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

PIECES = (("one", b"None"), (" two", b"None"), (" three", b"stop"))


class TritonPythonModel:
    """Answers each request over its own sender."""

    def initialize(self, args: object) -> None:
        """Nobody has been refused yet."""
        del args
        self.num_refused: Counter[str] = Counter()

    def execute(self, requests: Sequence[Any]) -> None:
        """Answers every request to its end."""
        for request in requests:
            prompt = pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy()[0].decode()
            self.answer(prompt, request.get_response_sender())

    def answer(self, prompt: str, sender: Any) -> None:
        """Refuses, or sends the pieces that the prompt asks for."""
        if prompt.startswith("refused ") and self.num_refused[prompt] < int(prompt.split()[1]):
            self.num_refused[prompt] += 1
            details = {"code": "UNAVAILABLE", "retry_after_ms": 20}
            self.fail(sender, f"128 requests wait already. {json.dumps(details)}", pb_utils.TritonError.UNAVAILABLE)
        elif prompt in {"breaks off", "fails"}:
            sender.send(response(*PIECES[0]))
            if prompt == "fails":
                self.fail(sender, "The model has failed.", pb_utils.TritonError.INTERNAL)
            else:
                sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        else:
            for piece in PIECES:
                sender.send(response(*piece))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def fail(self, sender: Any, text: str, code: int) -> None:
        """Sends an error as the last response."""
        error = pb_utils.InferenceResponse(error=pb_utils.TritonError(text, code))
        sender.send(error, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def response(text: str, finish_reason: bytes) -> Any:
    """One piece of an answer of one token."""
    tensors = {
        "text_output": np.array([text.encode()], dtype=object),
        "finish_reason": np.array([finish_reason], dtype=object),
        "num_input_tokens": np.array([2], dtype=np.uint32),
        "num_output_tokens": np.array([1], dtype=np.uint32),
    }
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, tensor) for name, tensor in tensors.items()])
