"""Takes a choice's next token: what it adds to the text, and whether the choice ends with it.

Knows why a choice ends by itself ("stop", "length"). Does not know batches, pages or clients.
"""

from __future__ import annotations

from collections.abc import Collection

from folio_backend.generation import Choice
from folio_backend.sampler import SampledToken


def accept_token(choice: Choice, token: SampledToken, eos_token_ids: Collection[int], max_model_tokens: int) -> None:
    """Appends a sampled token to a choice and sets its `finish_reason` when it ends.

    The token is kept among the choice's ids whatever it is; one that ends the text as an id adds nothing to the text,
    unless the request wants its stop in the output.
    """
    sampling = choice.generation.request.sampling
    choice.token_ids.append(token.token_id)
    choice.sampled.append(token)
    is_stop = token.token_id in sampling.stop_token_ids
    is_eos = token.token_id in eos_token_ids and not sampling.ignore_eos
    if not (is_stop or is_eos) or (is_stop and sampling.include_stop_str_in_output):
        choice.text += choice.text_stream.push(token.token_id)
    if is_stop or is_eos or choice.text_stream.stopped is not None:
        choice.finish_reason = "stop"
    elif len(choice.sampled) >= sampling.max_tokens or len(choice.token_ids) >= max_model_tokens:
        choice.finish_reason = "length"
    if choice.finish_reason is not None:
        choice.text += choice.text_stream.finish()
