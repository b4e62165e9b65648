"""An asynchronous client behind the synchronous one's interface, so that one test tries both.

Whatever it returns or takes is passed through an event loop of its own: coroutines are run, asynchronous iterators are
iterated, asynchronous contexts entered. Knows nothing of what is called.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from folio_client import AsyncGenerationStream, AsyncSession
from folio_client.aio_admin import AsyncAdmin
from folio_client.aio_attention import AsyncAttention

_WRAPPED = (AsyncAdmin, AsyncAttention, AsyncGenerationStream, AsyncSession)


class Blocking:
    """One asynchronous object, called without `await`.

    Args:
        target: the object.
        loop: where its coroutines run.
    """

    def __init__(self, target: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.target = target
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.target, name)
        return self._call(found) if inspect.ismethod(found) else self._wrapped(found)

    def __enter__(self) -> Any:
        self._run(self.target.__aenter__())
        return self

    def __exit__(self, *reason: object) -> None:
        self._run(self.target.__aexit__(*reason))

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        try:
            return self._run(self.target.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def _call(self, method: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            plain = [argument.target if isinstance(argument, Blocking) else argument for argument in arguments]
            returned = method(*plain, **options)
            return self._wrapped(self._run(returned) if inspect.iscoroutine(returned) else returned)

        return call

    def _run(self, coroutine: Any) -> Any:
        return self._loop.run_until_complete(coroutine)

    def _wrapped(self, value: Any) -> Any:
        return Blocking(value, self._loop) if isinstance(value, _WRAPPED) else value
