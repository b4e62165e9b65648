"""A generation's response as the output tensors that its request wants.

Knows names, dtypes and shapes; nothing of where they go.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio_backend.request import OutputOptions
from folio_backend.responses import GenerateResponse
from folio_backend.server_request import Tensors, strings


def response_tensors(response: GenerateResponse, wanted: OutputOptions) -> Tensors:
    """A response as the outputs that its request wants."""
    outputs: dict[str, NDArray[Any]] = {"text_output": strings(list(response.texts))}
    if wanted.finish_reason:
        outputs["finish_reason"] = strings(list(response.finish_reasons))
    if wanted.cumulative_logprob:
        outputs["cumulative_logprob"] = np.array(response.cumulative_logprobs, dtype=np.float32)
    if wanted.logprobs:
        outputs["logprobs"] = strings(list(response.logprobs))
    if wanted.num_input_tokens:
        outputs["num_input_tokens"] = np.array([response.num_input_tokens], dtype=np.uint32)
    if wanted.num_output_tokens:
        outputs["num_output_tokens"] = np.array(response.num_output_tokens, dtype=np.uint32)
    if response.num_cached_tokens is not None:
        outputs["num_cached_tokens"] = np.array([response.num_cached_tokens], dtype=np.uint32)
    return outputs
