"""What is measured, as values: a series of load levels, and the points that come of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from folio_sweep.measurement import Measurement

Task = Literal["generate", "attention"]
Workload = Literal["new", "resumed"]
LoadMode = Literal["concurrency", "request_rate"]


@dataclass(frozen=True)
class Level:
    """A load.

    Attributes:
        mode: whether requests follow on answers, or on a clock.
        value: requests at a time, or requests a second.
        num_requests: requests to send.
    """

    mode: LoadMode
    value: float
    num_requests: int

    @property
    def request_rate(self) -> float | None:
        """Requests a second; None where they follow on answers."""
        return self.value if self.mode == "request_rate" else None


@dataclass(frozen=True)
class Series:
    """One curve: a model under one kind of load, from level to level.

    Attributes:
        codec: how the server compresses sealed pages.
        task: the kind of model.
        model: its name.
        batch_delay_us: how long the server's batcher waits for more steps; None where it does not batch.
        workload: whether requests begin a session or continue one.
        mode: the kind of load.
    """

    codec: str
    task: Task
    model: str
    batch_delay_us: int | None
    workload: Workload
    mode: LoadMode

    @property
    def name(self) -> str:
        """For people."""
        unit = "concurrency" if self.mode == "concurrency" else "request rate"
        return f"{self.codec}, {self.model}, {self.workload} sessions, by {unit}"


@dataclass(frozen=True)
class Point:
    """What came of one level.

    Attributes:
        series: where it belongs.
        level: the load.
        measurement: its figures; None where it failed.
        failure: why it failed.
    """

    series: Series
    level: Level
    measurement: Measurement | None
    failure: str = ""
