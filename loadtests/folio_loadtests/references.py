"""Answers to compare with: each computed in one go from a prompt that the server has never seen.

A reference is a whole scripted chat, sent once without a session before the load begins. Its first message carries a
number drawn for this run, so that nothing behind it can come from the cache: a server that says it did has kept the KV
of tokens that nobody sent. A session that later arrives at the same chat turn by turn has the same tokens, since a chat
is rendered and tokenised whole.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from folio_client import Client, GenerateOptions, GenerateResult, Message
from folio_loadtests.asking import Asker
from folio_loadtests.comparison import Answer, read_answer
from folio_loadtests.sample import Cohort
from folio_loadtests.workload import Checks, Texts

NUM_LOGPROBS = 20
# A template's own words before the first message; pages are longer.
MOST_KNOWN_TOKENS = 16


@dataclass(frozen=True)
class Reference:
    """A scripted chat and its answer.

    Attributes:
        messages: the chat: what the system says, then user and assistant in turns, the user last.
        max_tokens: tokens of the answer.
        answer: what a server gave that had evicted nothing.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    answer: Answer

    def turns(self) -> Iterator[list[Message]]:
        """The chat as it stands at each turn of the user."""
        for index, message in enumerate(self.messages, start=1):
            if message["role"] == "user":
                yield list(self.messages[:index])

    def fields(self) -> dict[str, Any]:
        """What `read` takes: values that any wire carries."""
        return {
            "messages": list(self.messages),
            "max_tokens": self.max_tokens,
            "answer": list(vars(self.answer).values()),
        }

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Reference:
        """The reference that `fields` was made of."""
        token_ids, positions, num_prompt_tokens = fields["answer"]
        answer = Answer(tuple(token_ids), tuple(positions), num_prompt_tokens)
        return cls(tuple(fields["messages"]), fields["max_tokens"], answer)


def greedy(num_tokens: int, *, with_logprobs: bool) -> GenerateOptions:
    """Options under which equal tokens give equal answers, as long as asked for."""
    options: GenerateOptions = {"max_tokens": num_tokens, "temperature": 0, "ignore_eos": True}
    if with_logprobs:
        options["logprobs"] = NUM_LOGPROBS
    return options


def make_references(asker: Asker, client: Client, checks: Checks, texts: Texts, draw: random.Random) -> list[Reference]:
    """Asks for the reference of each conversation, one after the other; one that does not end well is left out."""
    references = []
    for index in range(checks.num_conversations):
        messages = _script(index, checks, texts, draw)
        stream = client.stream(messages, **greedy(checks.max_tokens, with_logprobs=True))
        result = asker.generate("reference", time.monotonic(), stream, checks.max_tokens, check=_is_cold)
        if result is not None:
            answer = read_answer(result.choices[0].logprobs, result.usage.num_prompt_tokens or 0)
            references.append(Reference(tuple(messages), checks.max_tokens, answer))
    return references


def _script(index: int, checks: Checks, texts: Texts, draw: random.Random) -> list[Message]:
    messages: list[Message] = [{"role": "system", "content": f"{draw.randrange(10**9)}-{index}: {texts.system}"}]
    for turn in range(checks.num_turns):
        if turn:
            messages.append({"role": "assistant", "content": texts.replies[(index + turn) % len(texts.replies)]})
        said = texts.follow_ups if turn else texts.openings
        messages.append({"role": "user", "content": said[(index + turn) % len(said)]})
    return messages


def _is_cold(result: GenerateResult, _: Cohort) -> str:
    num_cached_tokens = result.usage.num_cached_tokens or 0
    if num_cached_tokens <= MOST_KNOWN_TOKENS:
        return ""
    return f"{num_cached_tokens} tokens came from the cache that nobody had sent"
