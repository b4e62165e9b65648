"""Everything that a client raises: one tree, whatever the protocol.

    FolioError
        InvalidArgument         the request cannot be served as it stands
            BodyTooLarge        an HTTP body that the server would not survive
            Unsupported         this model does not know what was asked for
        NotFound                what the request names is not there
        AlreadyExists           what it would create is there already
        Unavailable             overload, quota or drain: asking again later may succeed
        Cancelled               somebody cancelled it
        DeadlineExceeded        its time is over, by the client's clock or the server's
        ServerError             a fault of the server
        ConnectionFailed        the server cannot be reached, or was lost on the way
            IncompleteResponse  the answer ended before its end
        BatchFailed             some of a batch's prompts have failed

Knows nothing of how an error travels (`error_text`, the transports).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from folio_client.types import GenerateResult


class FolioError(Exception):
    """Base of everything that a client raises.

    Args:
        sentence: what was wrong.
        field: the offending input or parameter.
        allowed: what that field may hold, in words or as a bound.
        retry_after_ms: when asking again may succeed.
    """

    def __init__(
        self,
        sentence: str,
        *,
        field: str | None = None,
        allowed: str | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.field = field
        self.allowed = allowed
        self.retry_after_ms = retry_after_ms

    def __str__(self) -> str:
        return f"{self.sentence} (allowed: {self.allowed})" if self.allowed else self.sentence

    def __reduce__(self) -> tuple[object, ...]:
        # An exception is otherwise rebuilt from its sentence alone, which loses the rest between processes.
        return (type(self).__new__, (type(self), self.sentence), self.__dict__)


class InvalidArgument(FolioError):
    """The request cannot be served as it stands."""


class BodyTooLarge(InvalidArgument):
    """An HTTP body of a size that crashes this server; gRPC carries it.

    Args:
        size_bytes: how large it is.
        limit_bytes: how large it may be.
    """

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"The HTTP body has {size_bytes:,} bytes, and from 4.0 MB on it would crash the server; "
            "use a grpc:// address for requests this large.",
            allowed=f"at most {limit_bytes:,} bytes over HTTP",
        )
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class Unsupported(InvalidArgument):
    """The model does not know what was asked for, such as a session of a vllm_backend model."""


class NotFound(FolioError):
    """What the request names is not there."""


class AlreadyExists(FolioError):
    """What the request would create is there already."""


class Unavailable(FolioError):
    """Overload, quota or drain: nothing was done, and asking again later may succeed."""


class Cancelled(FolioError):
    """The request was cancelled."""


class DeadlineExceeded(FolioError):
    """The request's time is over."""


class ServerError(FolioError):
    """A fault of the server."""


class ConnectionFailed(FolioError):
    """The server cannot be reached, or was lost on the way: whether it has done anything is not known."""


class IncompleteResponse(ConnectionFailed):
    """The answer ended before its end."""


class BatchFailed(FolioError):
    """Some prompts of a batch have failed.

    Args:
        results: what the prompts gave, in their order; None where one has failed.
        errors: index of a failed prompt to its error.
    """

    def __init__(self, results: list[GenerateResult | None], errors: Mapping[int, FolioError]) -> None:
        first = min(errors)
        super().__init__(f"{len(errors)} of {len(results)} prompts failed; prompt {first}: {errors[first]}")
        self.results = results
        self.errors = dict(errors)
