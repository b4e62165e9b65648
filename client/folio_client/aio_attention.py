"""`attention` for asyncio; see there."""

from __future__ import annotations

from functools import partial

from folio_client.aio_admin import AsyncAdmin
from folio_client.aio_calls import AsyncCaller
from folio_client.requests import step_tensors
from folio_client.types import AttentionResult, Tensor


class AsyncAttention:
    """One attention model.

    Args:
        caller: carries requests out.
        model: the model's name.

    Attributes:
        admin: its operations: `stats`, `health`, `sessions` and `close`.
    """

    def __init__(self, caller: AsyncCaller, model: str) -> None:
        self._caller = caller
        self._model = model
        self.admin = AsyncAdmin(caller, model, is_batched=True)

    async def step(
        self,
        session_id: str,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        position: int | None = None,
        timeout_s: float | None = None,
    ) -> AttentionResult:
        """See `Attention.step`."""
        tokens = {"query": query, "key": key, "value": value}
        answer = await self._caller.step(
            self._model,
            partial(step_tensors, self._model, session_id, tokens, position),
            is_repeatable=position is not None,
            timeout_s=timeout_s,
        )
        return AttentionResult(output=answer["output"][0], length=int(answer["length"].item()))
