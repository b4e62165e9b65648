"""Whether two greedy answers to the same tokens are equal, as far as a client can tell.

The design's rule is about logits: runs are equal when, up to a tie (two best logits within 1e-4), logits agree within
5e-4 where nothing is compressed, or the Kullback-Leibler divergence of a token is at most 1e-4 (or what `bound_of`
says). A client sees the logarithms of the likeliest probabilities alone, and cannot force the tokens behind a tie. What
it can say for certain:

- Logits within 5e-4 give log-probabilities within 1e-3. Where two differ by more, the rule is broken.
- Merging tokens never raises a divergence. So the divergence over the tokens that both answers report, and one bin for
  all others, is at most the true one. Where it is over the bound, the rule is broken.
- At the first token that differs both have read the same history, so its distributions are still compared. If they
  agree, the choice was between equals as far as the rule's own bounds go, and nothing behind it can be compared.

So what is called wrong is wrong; what is called equal may differ where no client can look.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

MOST_LOGPROB_DIFFERENCE = 1e-3
# The rule's 1e-4 where the real model keeps to it. With fewer bits a last bit that moves one code moves those of all
# later layers: SmolLM2 under int4, cut up otherwise, diverges by up to 3e-4; where a cache is
# wrong it is ten times that and more.
MOST_DIVERGENCE = {"int8": 1e-4, "k8v4": 1e-4}
MOST_DIVERGENCE_OF_OTHERS = 1e-3
UNCOMPRESSED = "none"
TIE = 1e-4
_LEAST = 1e-9  # stands for a probability that rounding has eaten

Position: TypeAlias = Mapping[int, float]
"""The likeliest tokens at one position, and the one chosen, to the logarithm of their probabilities."""


@dataclass(frozen=True)
class Answer:
    """A greedy answer as the wire brings it.

    Attributes:
        token_ids: the tokens chosen.
        positions: what was likely at each.
        num_prompt_tokens: tokens that it answers.
    """

    token_ids: tuple[int, ...]
    positions: tuple[Position, ...]
    num_prompt_tokens: int


@dataclass(frozen=True)
class Comparison:
    """How an answer compares with its reference.

    Attributes:
        is_equal: whether nothing breaks the rule.
        reason: what does.
        num_compared: tokens whose distributions were compared.
        tie_gap: how far apart the two tokens were, in the reference, at which the answers parted; None if they did not.
        worst: the greatest divergence, or difference of log-probabilities.
    """

    is_equal: bool
    reason: str
    num_compared: int
    tie_gap: float | None
    worst: float


def bound_of(codec: str) -> float:
    """How far an answer may lie from its reference at a token: in log-probabilities, with compression in divergence."""
    if codec == UNCOMPRESSED:
        return MOST_LOGPROB_DIFFERENCE
    return MOST_DIVERGENCE.get(codec, MOST_DIVERGENCE_OF_OTHERS)


def read_answer(logprobs: Sequence[Mapping[str, Any]], num_prompt_tokens: int) -> Answer:
    """An answer from the `logprobs` of a greedy generation: the token of rank 1 is the one that was chosen."""
    token_ids = tuple(int(min(entry, key=lambda token: entry[token]["rank"])) for entry in logprobs)
    positions = tuple({int(token): float(entry[token]["logprob"]) for token in entry} for entry in logprobs)
    return Answer(token_ids, positions, num_prompt_tokens)


def compare(reference: Answer, answer: Answer, *, codec: str) -> Comparison:
    """Compares position by position, up to the first token that differs.

    Args:
        reference: computed in one go.
        answer: to the same tokens.
        codec: how the cache is compressed.
    """
    if reference.num_prompt_tokens != answer.num_prompt_tokens:
        reason = f"{answer.num_prompt_tokens} prompt tokens for {reference.num_prompt_tokens}"
        return Comparison(False, reason, 0, None, math.inf)
    measure = _difference if codec == UNCOMPRESSED else _divergence
    bound = bound_of(codec)
    worst, num_compared = 0.0, 0
    for expected, got, token, other in zip(
        reference.positions, answer.positions, reference.token_ids, answer.token_ids, strict=False
    ):
        worst = max(worst, measure(expected, got))
        num_compared += 1
        if worst > bound:
            reason = f"token {num_compared} is off by {worst:.2g}, allowed is {bound:.0e}"
            return Comparison(False, reason, num_compared, None, worst)
        if token != other:
            gap = expected[token] - expected.get(other, -math.inf)
            return Comparison(True, "", num_compared, gap, worst)
    if len(reference.token_ids) != len(answer.token_ids):
        reason = f"{len(answer.token_ids)} tokens for {len(reference.token_ids)}"
        return Comparison(False, reason, num_compared, None, worst)
    return Comparison(True, "", num_compared, None, worst)


def _difference(expected: Position, got: Position) -> float:
    """The greatest difference of log-probabilities that is certain.

    What only one side reports is at most as likely on the other as the least likely that is reported there.
    """
    shared = [abs(expected[token] - got[token]) for token in expected.keys() & got.keys()]
    missing = [expected[token] - min(got.values()) for token in expected.keys() - got.keys()]
    missing += [got[token] - min(expected.values()) for token in got.keys() - expected.keys()]
    return max([0.0, *shared, *missing])


def _divergence(expected: Position, got: Position) -> float:
    """At most the divergence over all tokens: over the shared ones, those that only `expected` reports, and the rest.

    A token that `got` does not report is there at most as likely as the least likely that it does. Where even that is
    less than its share of what is left, the divergence is least at that bound; elsewhere the two last bins are one.
    """
    shared, missing = expected.keys() & got.keys(), expected.keys() - got.keys()
    pairs = [(math.exp(expected[token]), math.exp(got[token])) for token in shared]
    left, other_left = (max(1.0 - math.fsum(side), _LEAST) for side in zip(*pairs, (0.0, 0.0), strict=True))
    known = min(math.fsum(math.exp(expected[token]) for token in missing), left)
    most = max(min(len(missing) * math.exp(min(got.values())), other_left - _LEAST), _LEAST)
    if most < other_left * known / left:
        pairs += [(known, most), (left - known, max(other_left - most, _LEAST))]
    else:
        pairs.append((left, other_left))
    return max(math.fsum(p * math.log(p / q) for p, q in pairs if p > 0), 0.0)
