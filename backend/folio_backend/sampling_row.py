"""What the sampler needs to know of a choice. Does not know how a token is drawn."""

from __future__ import annotations

from collections.abc import Iterable

from folio_backend.generation import Choice
from folio_backend.sampler import SamplingRow


def sampling_row(choice: Choice, eos_token_ids: Iterable[int]) -> SamplingRow:
    """A choice's row in the batch; tokens that would end it are forbidden until it has `min_tokens`."""
    request, num_output = choice.generation.request, len(choice.sampled)
    sampling = request.sampling
    ends = sorted({*eos_token_ids, *sampling.stop_token_ids})
    return SamplingRow(
        parameters=sampling,
        seed=choice.seed,
        choice=choice.index,
        position=num_output,
        prompt_token_ids=choice.token_ids[: choice.num_prompt_tokens],
        output_token_ids=choice.output_token_ids,
        forbidden_token_ids=ends if num_output < sampling.min_tokens else (),
        needs_logprob=request.output.cumulative_logprob,
    )
