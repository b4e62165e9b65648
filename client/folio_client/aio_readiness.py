"""`readiness` for asyncio; see there."""

from __future__ import annotations

import asyncio

from folio_client.aio_admin import AsyncAdmin
from folio_client.aio_calls import AsyncCaller
from folio_client.errors import FolioError
from folio_client.readiness import NOT_LOADED, PAUSE_S, check_left, probe_timeout_s, sickness
from folio_client.retry import Deadline


async def wait_ready(caller: AsyncCaller, admin: AsyncAdmin, model: str, timeout_s: float) -> None:
    """See `readiness.wait_ready`."""
    deadline = Deadline.after(timeout_s)
    while (obstacle := await _obstacle(caller, admin, model, probe_timeout_s(deadline))) is not None:
        check_left(deadline, model, obstacle)
        await asyncio.sleep(PAUSE_S)


async def _obstacle(caller: AsyncCaller, admin: AsyncAdmin, model: str, timeout_s: float) -> str | None:
    try:
        if not await caller.transport.is_ready(model, timeout_s):
            return NOT_LOADED
        if "op" not in await caller.transport.input_names(model, timeout_s):
            return None
        return sickness(await admin.health(timeout_s=timeout_s))
    except FolioError as error:
        return str(error)
