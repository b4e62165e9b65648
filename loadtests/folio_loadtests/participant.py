"""One process of the generator: its client, its recorder, and the visitors that it can send.

Knows what the run's course has told it. Does not know Locust.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

from folio_client import Client
from folio_loadtests.activities import Activity, OneShot, chat, document, scripted_chat
from folio_loadtests.asking import Asker
from folio_loadtests.attention_steps import AttentionSteps
from folio_loadtests.briefing import Briefing
from folio_loadtests.probe import Probe
from folio_loadtests.recorder import Recorder
from folio_loadtests.workload import KindOfUser


class Participant:
    """See the module.

    Args:
        tell_locust: fires Locust's `request` event.

    Attributes:
        recorder: what this process has seen.
        draw: random choices of this process.
    """

    def __init__(self, tell_locust: Callable[..., None]) -> None:
        self.recorder = Recorder()
        self.draw = random.Random()  # noqa: S311 - load is no secret
        self._tell_locust = tell_locust
        self._briefing: Briefing | None = None
        self._client: Client | None = None
        self._asker: Asker | None = None
        self._num_chats = 0

    def brief(self, briefing: Briefing) -> None:
        """Takes in where the run stands. The client is made here, in the process that uses it."""
        if self._client is None:
            self._client = briefing.target.client()
            self._asker = Asker(self.recorder, self._tell_locust, briefing.page_size)
        self._briefing = briefing
        self.recorder.enter(briefing.phase)

    def report(self) -> dict[str, Any]:
        """What is new since the last report; see `Recorder.take_report`."""
        return {**self.recorder.take_report(), "is_briefed": self._briefing is not None}

    @property
    def briefing(self) -> Briefing:
        """The last one."""
        assert self._briefing is not None, "users start after the briefing"
        return self._briefing

    @property
    def asker(self) -> Asker:
        """Makes this process's requests."""
        assert self._asker is not None, "users start after the briefing"
        return self._asker

    def user(self, kind: str) -> KindOfUser:
        """What a kind of user does."""
        return next(user for name, user in self.briefing.workload.users.items() if name == kind)

    def think_time_s(self, kind: str) -> float:
        """How long such a user thinks this time."""
        return self.user(kind).think_time_s * self.draw.uniform(0.5, 1.5)

    def any_kind(self) -> str:
        """A kind of user, by the weights."""
        users = self.briefing.workload.users
        return self.draw.choices(list(users), [user.weight for user in users.values()])[0]

    def activity(self, kind: str) -> Activity:
        """A visitor of that kind."""
        assert self._client is not None, "users start after the briefing"
        user, texts = self.user(kind), self.briefing.workload.texts
        if kind == "chat":
            return self._chat(user)
        if kind == "document":
            return document(self.asker, self._client, user, texts, self.draw)
        if kind == "attention":
            seed = self.draw.randrange(2**32)
            return AttentionSteps(self.asker, self._client, user, self.briefing.workload.attention, seed)
        if kind == "probe":
            return Probe(self.asker, self._client)
        return OneShot(self.asker, self._client, user, texts, self.draw)

    def _chat(self, user: KindOfUser) -> Activity:
        assert self._client is not None, "users start after the briefing"
        briefing, number = self.briefing, self._num_chats
        self._num_chats += 1
        if not (briefing.references and is_sampled(number, briefing.workload.checks.share)):
            return chat(self.asker, self._client, user, briefing.workload.texts, self.draw)
        reference = self.draw.choice(briefing.references)
        return scripted_chat(self.asker, self._client, reference, codec=briefing.codec)


def is_sampled(number: int, share: float) -> bool:
    """Whether the chat of that number, from 0, belongs to an even sample of `share`; the first one always does."""
    return math.ceil((number + 1) * share) > math.ceil(number * share)
