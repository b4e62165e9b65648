"""Whether a model is ready, as far as that can be told from outside.

The server calls a model ready as soon as it is loaded, and goes on to when the model's process has died: so a model
that can tell is asked for its own health too.
"""

from __future__ import annotations

import time

from folio_client.admin import Admin
from folio_client.calls import Caller
from folio_client.errors import DeadlineExceeded, FolioError
from folio_client.retry import Deadline
from folio_client.types import Health

PAUSE_S = 0.1
PROBE_TIMEOUT_S = 5.0
NOT_LOADED = "it is not loaded"


def wait_ready(caller: Caller, admin: Admin, model: str, timeout_s: float) -> None:
    """Returns once the model is loaded and, where it can tell, healthy.

    Raises:
        DeadlineExceeded: it was not within `timeout_s`; says what was wrong last.
    """
    deadline = Deadline.after(timeout_s)
    while (obstacle := _obstacle(caller, admin, model, probe_timeout_s(deadline))) is not None:
        check_left(deadline, model, obstacle)
        time.sleep(PAUSE_S)


def probe_timeout_s(deadline: Deadline) -> float:
    """How long one question may take, so that a server that hangs is asked again."""
    return min(PROBE_TIMEOUT_S, deadline.left_s)


def check_left(deadline: Deadline, model: str, obstacle: str) -> None:
    """Raises DeadlineExceeded where there is no time to ask again."""
    if deadline.left_s <= PAUSE_S:
        sentence = f"The model {model} was not ready within {deadline.timeout_s:.3g} s: {obstacle}"
        raise DeadlineExceeded(sentence, field="timeout_s")


def sickness(health: Health) -> str | None:
    """What is wrong by the model's own account."""
    return None if health.is_healthy else f"it is not healthy: {health.integrity_error or 'it has stopped'}"


def _obstacle(caller: Caller, admin: Admin, model: str, timeout_s: float) -> str | None:
    try:
        if not caller.transport.is_ready(model, timeout_s):
            return NOT_LOADED
        if "op" not in caller.transport.input_names(model, timeout_s):
            return None
        return sickness(admin.health(timeout_s=timeout_s))
    except FolioError as error:
        return str(error)
