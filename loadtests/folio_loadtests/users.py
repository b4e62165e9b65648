"""Locust's users: those who wait for answers, one class a kind, and the source of those who just arrive."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import ClassVar

from gevent.pool import Pool
from locust import User, task
from locust.exception import StopUser

from folio_loadtests.activities import Activity
from folio_loadtests.participant import Participant
from folio_loadtests.sample import Phase
from folio_loadtests.schedules import arrivals


class WaitingUser(User):
    """Sends a request, waits for its end, thinks, sends the next: a slow server gets fewer requests.

    A task is one request, so that Locust can stop the user between two.

    Attributes:
        kind: what it does, see the workload.
        participant: the process that it runs in; set before the first user starts.
    """

    abstract = True
    kind: ClassVar[str]
    participant: ClassVar[Participant]

    def on_start(self) -> None:
        """Users do not march in step: each begins at a moment of its own."""
        self._activity: Activity | None = None
        self._intended_s = time.monotonic() + self.participant.draw.random() * self.participant.think_time_s(self.kind)
        self.wait()  # type: ignore[no-untyped-call] # of a base class of Locust's

    def wait_time(self) -> float:
        """Seconds until the next request is meant to start."""
        return max(self._intended_s - time.monotonic(), 0.0)

    @task
    def ask(self) -> None:
        """One request of the visit, or of the next one."""
        if self.participant.recorder.phase is Phase.ENDING:
            raise StopUser
        if self._activity is None:
            self._activity = self.participant.activity(self.kind)
        if not self._activity.ask(self._intended_s):
            self._leave()
        self._intended_s = time.monotonic() + self.participant.think_time_s(self.kind)

    def on_stop(self) -> None:
        """Leaves nothing on the server."""
        self._leave()

    def _leave(self) -> None:
        activity, self._activity = self._activity, None
        if activity is not None:
            activity.close()


class ChatUser(WaitingUser):
    """Chats in sessions; some of them follow a script and are compared with a reference."""

    kind = "chat"


class OneShotUser(WaitingUser):
    """Asks for one generation at a time, without a session."""

    kind = "one_shot"


class DocumentUser(WaitingUser):
    """Asks questions on a long text."""

    kind = "document"


class AttentionUser(WaitingUser):
    """Takes attention steps."""

    kind = "attention"


class ProbeUser(WaitingUser):
    """Looks at health and stats."""

    kind = "probe"


class ArrivalUser(User):
    """A source of sessions that arrive at random, whether or not earlier ones were answered.

    Sessions start at the moments of a Poisson process. Where too many are under way one has to wait, and its first
    request counts from the moment at which it was meant to start.

    Attributes:
        participant: see `WaitingUser`.
    """

    participant: ClassVar[Participant]

    def on_start(self) -> None:
        """The process begins now."""
        briefing = self.participant.briefing
        self._sessions = Pool(briefing.max_sessions)
        self._start_s = time.monotonic()
        self._arrivals: Iterator[float] = arrivals(briefing.arrival_rate, self.participant.draw)
        self._intended_s = self._start_s + next(self._arrivals)
        self.wait()  # type: ignore[no-untyped-call] # of a base class of Locust's

    def wait_time(self) -> float:
        """Seconds until the next session is meant to start."""
        return max(self._intended_s - time.monotonic(), 0.0)

    @task
    def arrive(self) -> None:
        """One session begins, as soon as there is room for it."""
        recorder = self.participant.recorder
        if recorder.phase_at(self._intended_s) is Phase.ENDING:
            raise StopUser
        recorder.num_open += 1  # it is due, so the end has to wait for it
        try:
            session = self._sessions.spawn(self._visit, self._intended_s)
        finally:
            recorder.num_open -= 1
        session.link_exception(lambda failed: recorder.add_fault(type(failed.exception).__name__))
        self._intended_s = self._start_s + next(self._arrivals)

    def on_stop(self) -> None:
        """Counts what was due and never sent, and leaves nothing on the server."""
        now_s = time.monotonic()
        while self._intended_s < now_s and self.participant.recorder.phase_at(self._intended_s) is not Phase.ENDING:
            self.participant.asker.not_sent("session", self._intended_s, "not sent before the end")
            self._intended_s = self._start_s + next(self._arrivals)
        self._sessions.kill()

    def _visit(self, intended_s: float) -> None:
        kind = self.participant.any_kind()
        activity = self.participant.activity(kind)
        try:
            while activity.ask(intended_s) and self.participant.recorder.phase is not Phase.ENDING:
                intended_s = time.monotonic() + self.participant.think_time_s(kind)
                _sleep_until(intended_s)
        finally:
            activity.close()


USERS: tuple[type[WaitingUser], ...] = (ChatUser, OneShotUser, DocumentUser, AttentionUser, ProbeUser)


def _sleep_until(moment_s: float) -> None:
    time.sleep(max(moment_s - time.monotonic(), 0.0))  # Locust has made this gevent's
