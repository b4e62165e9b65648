"""A generation to iterate over: its deltas as they come, and what they add up to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from types import TracebackType
from typing import TYPE_CHECKING

from folio_client.generation import Generation
from folio_client.types import Delta, GenerateResult

if TYPE_CHECKING:
    from typing_extensions import Self


class GenerationStream:
    """The deltas of one generation.

    The request is sent when iteration begins. Leaving early, by the end of a `with` block, by `close` or by dropping
    the stream, cancels it on the server.

    Args:
        deltas: yields them.
        generation: what they add up to.
    """

    def __init__(self, deltas: Generator[Delta, None, None], generation: Generation) -> None:
        self._deltas = deltas
        self._generation = generation

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Delta:
        return next(self._deltas)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def request_id(self) -> str:
        """The request's name, by which it can be cancelled."""
        return self._generation.request_id

    @property
    def result(self) -> GenerateResult:
        """What has come so far: everything once iteration has ended."""
        return self._generation.result()

    def collect(self) -> GenerateResult:
        """Reads what is left; returns everything."""
        with self:
            for _ in self:
                pass
        return self.result

    def close(self) -> None:
        """Cancels what is left."""
        self._deltas.close()


class AsyncGenerationStream:
    """The deltas of one generation, asynchronously; see `GenerationStream`.

    Prefer `async with`: a stream that is dropped is cancelled only when the event loop next gets to it.
    """

    def __init__(self, deltas: AsyncGenerator[Delta, None], generation: Generation) -> None:
        self._deltas = deltas
        self._generation = generation

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        return await self._deltas.__anext__()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def request_id(self) -> str:
        """See `GenerationStream`."""
        return self._generation.request_id

    @property
    def result(self) -> GenerateResult:
        """See `GenerationStream`."""
        return self._generation.result()

    async def collect(self) -> GenerateResult:
        """See `GenerationStream`."""
        async with self:
            async for _ in self:
                pass
        return self.result

    async def close(self) -> None:
        """See `GenerationStream`."""
        await self._deltas.aclose()
