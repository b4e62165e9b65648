"""Loads an engine and runs it, both on one thread.

An OpenMP runtime keeps a team of workers for every thread that ever computed. Two teams are more workers than cores,
so each parallel region would put them to sleep and wake them again, which doubles the time of a small step: whoever
serves must be the only one to have computed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from folio_backend.engine import Engine


def start_engine(load: Callable[[], Engine]) -> Engine:
    """Runs `load` and then the engine it returns on a new thread.

    Returns:
        The engine, serving.

    Raises:
        Exception: whatever `load` raises.
    """
    loaded: Future[Engine] = Future()
    threading.Thread(target=_load_and_run, args=(load, loaded), name="folio-engine", daemon=True).start()
    return loaded.result()


def _load_and_run(load: Callable[[], Engine], loaded: Future[Engine]) -> None:
    try:
        engine = load()
    except BaseException as error:  # noqa: BLE001 - raised again where the engine was asked for
        loaded.set_exception(error)
        return
    loaded.set_result(engine)
    engine.run()
