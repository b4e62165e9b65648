"""Hands the recorder a fresh snapshot of the state, twice as often as it is published.

Knows neither what a snapshot holds nor where it goes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from folio_backend.metrics import EngineSnapshot, MetricsRecorder


class SnapshotThread:
    """A thread that takes snapshots.

    Args:
        recorder: gets them.
        take: takes one.
        publishing_interval_s: how often they are published.
    """

    def __init__(
        self, recorder: MetricsRecorder, take: Callable[[], EngineSnapshot], publishing_interval_s: float
    ) -> None:
        self._recorder = recorder
        self._take = take
        self._interval_s = publishing_interval_s / 2
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="folio-snapshots", daemon=True)

    def start(self) -> None:
        """Takes the first snapshot and starts the thread."""
        self._recorder.set_snapshot(self._take())
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and takes a last snapshot: what is published then stays."""
        self._stopping.set()
        self._thread.join()
        self._recorder.set_snapshot(self._take())

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            self._recorder.set_snapshot(self._take())
