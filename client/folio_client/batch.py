"""Many prompts at once: which of them to ask for, and what came of them. Pure functions, shared by both clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from folio_client.errors import BatchFailed, FolioError, InvalidArgument
from folio_client.options import GenerateOptions, is_determined
from folio_client.types import GenerateResult

DEFAULT_CONCURRENCY = 16


@dataclass(frozen=True)
class BatchPlan:
    """Which prompts to ask for.

    Attributes:
        prompts: each to be asked for once.
        positions: for each prompt of the batch, where in `prompts` its answer comes from.
    """

    prompts: tuple[str, ...]
    positions: tuple[int, ...]

    def results(self, outcomes: Sequence[GenerateResult | FolioError]) -> list[GenerateResult]:
        """A result for each prompt of the batch.

        Args:
            outcomes: one for each of `prompts`.

        Raises:
            BatchFailed: some are errors; it holds the rest.
        """
        spread = [outcomes[position] for position in self.positions]
        errors: Mapping[int, FolioError] = {
            index: outcome for index, outcome in enumerate(spread) if isinstance(outcome, FolioError)
        }
        results = [None if isinstance(outcome, FolioError) else outcome for outcome in spread]
        if errors:
            raise BatchFailed(results, errors)
        return [result for result in results if result is not None]


def plan_batch(
    prompts: Sequence[str], options: GenerateOptions, *, deduplicate: bool | None, max_concurrency: int
) -> BatchPlan:
    """What to ask for.

    Args:
        prompts: in any number, perhaps none.
        options: of all of them.
        deduplicate: whether equal prompts share one answer; None where the answer is determined by the prompt
            (`temperature=0` or a `seed`), since a caller who samples wants different ones.
        max_concurrency: how many run at a time.

    Raises:
        InvalidArgument: a single text for a list of them, a `request_id` for all, or no concurrency.
    """
    if isinstance(prompts, str):
        raise InvalidArgument("prompts is one text.", field="prompts", allowed="a list of texts")
    if max_concurrency < 1:
        sentence = f"max_concurrency is {max_concurrency}."
        raise InvalidArgument(sentence, field="max_concurrency", allowed="1 or more")
    if "request_id" in options:
        raise InvalidArgument("One request_id for many requests.", field="request_id", allowed="none in a batch")
    if not (is_determined(options) if deduplicate is None else deduplicate):
        return BatchPlan(tuple(prompts), tuple(range(len(prompts))))
    unique = {prompt: position for position, prompt in enumerate(dict.fromkeys(prompts))}
    return BatchPlan(tuple(unique), tuple(unique[prompt] for prompt in prompts))
