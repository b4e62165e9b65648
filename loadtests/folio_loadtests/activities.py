"""What one visitor does from beginning to end, request by request: the same for waiting users and for arrivals."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from folio_client import Client, GenerateResult, Message, Session
from folio_loadtests.asking import Asker, Check
from folio_loadtests.comparison import compare, read_answer
from folio_loadtests.recorder import Recorder
from folio_loadtests.references import Reference, greedy
from folio_loadtests.sample import Cohort
from folio_loadtests.workload import KindOfUser, Texts


class Activity(Protocol):
    """A visit: some requests, each at its time."""

    def ask(self, intended_s: float) -> bool:
        """Makes the next request, meant for that moment of the monotonic clock; returns whether more follow."""
        ...

    def close(self) -> None:
        """Ends what the server still holds for it."""
        ...


class OneShot:
    """One generation without a session."""

    def __init__(self, asker: Asker, client: Client, user: KindOfUser, texts: Texts, draw: random.Random) -> None:
        self._asker, self._client, self._user = asker, client, user
        # A number of its own, so that not every prompt is found in the cache.
        self._prompt = f"Visitor {draw.randrange(10**6)}. {draw.choice(texts.openings)}"

    def ask(self, intended_s: float) -> bool:
        """See `Activity`."""
        num_tokens = self._user.max_tokens
        stream = self._client.stream(self._prompt, max_tokens=num_tokens, temperature=0, ignore_eos=True)
        self._asker.generate("one_shot", intended_s, stream, num_tokens)
        return False

    def close(self) -> None:
        """See `Activity`."""


@dataclass
class _Conversation:
    """What `Chat` and `ScriptedChat` share: a session, and how long its last prompt was."""

    asker: Asker
    client: Client
    kind: str
    session: Session | None = None
    num_history_tokens: int | None = None

    def turn(
        self, intended_s: float, messages: Sequence[Message], num_tokens: int, check: Check | None = None
    ) -> GenerateResult | None:
        """Asks for the answer to a whole chat, of which the session holds the beginning."""
        if self.session is None:
            self.session = self.client.session()
        options = greedy(num_tokens, with_logprobs=check is not None)
        result = self.asker.generate(
            self.kind,
            intended_s,
            self.session.stream(messages, **options),
            num_tokens,
            num_history_tokens=self.num_history_tokens,
            check=check,
        )
        if result is not None:
            self.num_history_tokens = result.usage.num_prompt_tokens
        return result

    def close(self) -> None:
        """Ends the session, which is a request as any other."""
        session, self.session = self.session, None
        if session is not None:
            with self.asker.asking("close", time.monotonic()):
                session.close()


class Chat:
    """A chat in a session, with the model's own answers in its history.

    Args:
        conversation: the session.
        user: how many turns of how many tokens.
        beginning: the first messages.
        follow_up: gives each further one.
    """

    def __init__(
        self, conversation: _Conversation, user: KindOfUser, beginning: list[Message], follow_up: Callable[[], str]
    ) -> None:
        self._conversation, self._user, self._follow_up = conversation, user, follow_up
        self._messages = beginning
        self._num_left = user.num_turns

    def ask(self, intended_s: float) -> bool:
        """See `Activity`. A turn that did not end well is not repeated; the visitor says something else."""
        self._num_left -= 1
        result = self._conversation.turn(intended_s, self._messages, self._user.max_tokens)
        if result is None:
            self._messages = [*self._messages[:-1], _message("user", self._follow_up())]
        else:
            answer = _message("assistant", result.text)
            self._messages = [*self._messages, answer, _message("user", self._follow_up())]
        return self._num_left > 0

    def close(self) -> None:
        """See `Activity`."""
        self._conversation.close()


class ScriptedChat:
    """A chat whose every message is known beforehand; its last answer is compared with the reference.

    Args:
        conversation: the session.
        reference: the script, and its answer as it was before anything was evicted.
        recorder: learns of the comparison.
        codec: how the server's cache is compressed.
    """

    def __init__(self, conversation: _Conversation, reference: Reference, recorder: Recorder, *, codec: str) -> None:
        self._conversation, self._reference, self._recorder = conversation, reference, recorder
        self._codec = codec
        self._turns = list(reference.turns())

    def ask(self, intended_s: float) -> bool:
        """See `Activity`."""
        messages = self._turns.pop(0)
        num_tokens = self._reference.max_tokens
        self._conversation.turn(intended_s, messages, num_tokens, None if self._turns else self._compared)
        return bool(self._turns)

    def close(self) -> None:
        """See `Activity`."""
        self._conversation.close()

    def _compared(self, result: GenerateResult, cohort: Cohort) -> str:
        answer = read_answer(result.choices[0].logprobs, result.usage.num_prompt_tokens or 0)
        comparison = compare(self._reference.answer, answer, codec=self._codec)
        self._recorder.add_comparison(comparison, cohort)
        return "" if comparison.is_equal else f"not as its reference: {comparison.reason}"


def chat(asker: Asker, client: Client, user: KindOfUser, texts: Texts, draw: random.Random) -> Chat:
    """A chat that begins as every chat does, then goes its own way."""
    beginning = [_message("system", texts.system), _message("user", draw.choice(texts.openings))]
    return Chat(_Conversation(asker, client, "chat"), user, beginning, lambda: draw.choice(texts.follow_ups))


def document(asker: Asker, client: Client, user: KindOfUser, texts: Texts, draw: random.Random) -> Chat:
    """Questions on a long text that nobody has sent before."""
    sentences = draw.choices(texts.document_sentences, k=texts.num_document_sentences)
    text = f"Document {draw.randrange(10**9)}. " + " ".join(sentences)
    beginning = [_message("user", f"{text}\n\n{draw.choice(texts.openings)}")]
    return Chat(_Conversation(asker, client, "document"), user, beginning, lambda: draw.choice(texts.follow_ups))


def scripted_chat(asker: Asker, client: Client, reference: Reference, *, codec: str) -> ScriptedChat:
    """A chat that is compared with its reference."""
    return ScriptedChat(_Conversation(asker, client, "chat"), reference, asker.recorder, codec=codec)


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
