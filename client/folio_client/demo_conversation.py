"""The demonstration's side of the wire: a chat over one gRPC stream, and what each turn took.

Knows a generate model's inputs and outputs. Does not know what is asked or shown.
"""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.grpc

RESPONSE_LIMIT_S = 120


class DemoError(Exception):
    """The demonstration cannot go on; the text says why."""


@dataclass(frozen=True)
class Turn:
    """One question and its answer; times are in seconds, counted from the sending of the question."""

    text: str
    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int
    first_token_s: float
    decode_tokens_per_s: float


@dataclass(frozen=True)
class Response:
    """What one response of the stream holds, and when it came."""

    text: str
    outputs: Mapping[str, int]
    is_final: bool
    received_s: float


class Conversation:
    """Sends requests over one gRPC stream and reads the answers.

    Args:
        address: `host:port` of the server's gRPC listener.
        model: the model's name.
    """

    def __init__(self, address: str, model: str) -> None:
        self._client: Any = tritonclient.grpc.InferenceServerClient(address)
        self._model = model
        self._arrived: queue.SimpleQueue[tuple[Any, Any, float]] = queue.SimpleQueue()

    def __enter__(self) -> Conversation:  # noqa: PYI034 - typing.Self came with Python 3.11
        self._client.start_stream(lambda result, error: self._arrived.put((result, error, time.monotonic())))
        return self

    def __exit__(self, *reason: object) -> None:
        self._client.stop_stream(cancel_requests=True)
        self._client.close()

    def ask(
        self,
        messages: Sequence[Mapping[str, str]],
        session_id: str,
        sampling: Mapping[str, float],
        show: Callable[[str], object],
    ) -> Turn:
        """Sends the whole chat and returns the answer.

        Args:
            messages: role and content, the new question last.
            session_id: the session that remembers them.
            sampling: sampling parameters.
            show: is given every piece of the answer as it comes.

        Raises:
            DemoError: the server refuses or fails.
        """
        sent_s = time.monotonic()
        self._send(
            text("messages", json.dumps(list(messages))),
            text("session_id", session_id),
            text("sampling_parameters", json.dumps(dict(sampling))),
            *(flag(name) for name in ("stream", "return_num_input_tokens", "return_num_output_tokens")),
        )
        responses = []
        for response in self._responses():
            show(response.text)
            responses.append(response)
        return summary(responses, sent_s)

    def operate(self, operation: Mapping[str, str]) -> Any:
        """The result of an admin operation, read from its JSON."""
        self._send(text("op", json.dumps(dict(operation))))
        results = [response.text for response in self._responses("result")]
        return json.loads("".join(results))

    def _send(self, *inputs: Any) -> None:
        self._client.async_stream_infer(self._model, list(inputs), enable_empty_final_response=True)

    def _responses(self, text_name: str = "text_output") -> Iterator[Response]:
        is_final = False
        while not is_final:
            try:
                result, error, received_s = self._arrived.get(timeout=RESPONSE_LIMIT_S)
            except queue.Empty:
                raise DemoError(f"The server has not answered for {RESPONSE_LIMIT_S} s.") from None
            if error is not None:
                raise DemoError(str(error))
            response = read(result, text_name, received_s)
            is_final = response.is_final
            yield response


def text(name: str, value: str) -> Any:
    """A STRING input of one element."""
    return tensor(name, "BYTES", np.array([value.encode()], dtype=object))


def flag(name: str) -> Any:
    """A BOOL input that says yes."""
    return tensor(name, "BOOL", np.array([True]))


def tensor(name: str, data_type: str, values: np.ndarray[Any, Any]) -> Any:
    """An input with its values."""
    made = tritonclient.grpc.InferInput(name, list(values.shape), data_type)
    made.set_data_from_numpy(values)
    return made


def read(result: Any, text_name: str, received_s: float) -> Response:
    """A response's text and counts; an output that it does not have counts as nothing."""
    message = result.get_response()
    outputs = {output.name: result.as_numpy(output.name) for output in message.outputs}
    texts = outputs.pop(text_name, None)
    counts = {name: int(values[0]) for name, values in outputs.items() if values.dtype.kind in "iu"}
    return Response(
        text="" if texts is None else texts[0].decode(),
        outputs=counts,
        is_final=message.parameters["triton_final_response"].bool_param,
        received_s=received_s,
    )


def summary(responses: Sequence[Response], sent_s: float) -> Turn:
    """What a turn's responses add up to.

    Args:
        responses: all of them, in order.
        sent_s: when the question was sent, on the clock of the responses.
    """
    counts = [response.outputs.get("num_output_tokens", 0) for response in responses]
    first = next(index for index, count in enumerate(counts) if count)
    begin_s, end_s = responses[first].received_s, responses[-1].received_s
    return Turn(
        text="".join(response.text for response in responses),
        num_prompt_tokens=responses[first].outputs["num_input_tokens"],
        num_cached_tokens=sum(response.outputs.get("num_cached_tokens", 0) for response in responses),
        num_output_tokens=sum(counts),
        first_token_s=begin_s - sent_s,
        decode_tokens_per_s=sum(counts[first + 1 :]) / (end_s - begin_s) if end_s > begin_s else 0.0,
    )
