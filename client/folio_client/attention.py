"""An attention model: steps of keys, values and queries into sessions that the server holds."""

from __future__ import annotations

from functools import partial

from folio_client.admin import Admin
from folio_client.calls import Caller
from folio_client.requests import step_tensors
from folio_client.types import AttentionResult, Tensor


class Attention:
    """One attention model.

    >>> query, key, value = (np.ones((3, heads, 64), np.float32) for heads in (9, 3, 3))
    >>> answer = client.attention.step("example", query, key, value, position=0)
    >>> answer.output.shape, answer.length
    ((3, 9, 64), 3)
    >>> client.attention.admin.close("example")
    3

    Args:
        caller: carries requests out.
        model: the model's name.

    Attributes:
        admin: its operations: `stats`, `health`, `sessions` and `close`.
    """

    def __init__(self, caller: Caller, model: str) -> None:
        self._caller = caller
        self._model = model
        self.admin = Admin(caller, model, is_batched=True)

    def step(
        self,
        session_id: str,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        position: int | None = None,
        timeout_s: float | None = None,
    ) -> AttentionResult:
        """Appends tokens to a session and attends causally over its whole history.

        Args:
            session_id: the session.
            query: `[tokens, heads, head_dim]` of the model's dtype.
            key: `[tokens, kv_heads, head_dim]` of the same dtype.
            value: shaped as `key`.
            position: the length that the session is believed to have, 0 to begin one. With it a step that is sent
                twice is refused the second time, and so may be repeated after a lost connection.
            timeout_s: when to give up, in seconds.

        Raises:
            NotFound: the session's pages are gone: begin again at position 0.
            InvalidArgument: another length than `position`, or tensors of a wrong shape.
        """
        tokens = {"query": query, "key": key, "value": value}
        answer = self._caller.step(
            self._model,
            partial(step_tensors, self._model, session_id, tokens, position),
            is_repeatable=position is not None,
            timeout_s=timeout_s,
        )
        return AttentionResult(output=answer["output"][0], length=int(answer["length"].item()))
