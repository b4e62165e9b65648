"""Talks to a Folio server: sessions, streams, batches, attention and administration, over HTTP or gRPC.

    >>> from folio_client import Client
    >>> with Client("grpc://localhost:8001") as client:
    ...     client.generate("The capital of France is", max_tokens=2, temperature=0).text
    ' Paris.'

`AsyncClient` is the same for asyncio. Every error is a `FolioError`.
"""

from folio_client.aio import AsyncClient
from folio_client.aio_session import AsyncSession
from folio_client.client import Client
from folio_client.connection import TlsOptions
from folio_client.errors import (
    AlreadyExists,
    BatchFailed,
    BodyTooLarge,
    Cancelled,
    ConnectionFailed,
    DeadlineExceeded,
    FolioError,
    IncompleteResponse,
    InvalidArgument,
    NotFound,
    ServerError,
    Unavailable,
    Unsupported,
)
from folio_client.options import GenerateOptions, SamplingOptions
from folio_client.retry import RetryPolicy
from folio_client.session import Session
from folio_client.streams import AsyncGenerationStream, GenerationStream
from folio_client.types import (
    AttentionResult,
    Choice,
    Delta,
    GenerateResult,
    Health,
    Message,
    PageCounts,
    SessionInfo,
    Stats,
    Usage,
    WarmUpResult,
)

__all__ = [
    "AlreadyExists",
    "AsyncClient",
    "AsyncGenerationStream",
    "AsyncSession",
    "AttentionResult",
    "BatchFailed",
    "BodyTooLarge",
    "Cancelled",
    "Choice",
    "Client",
    "ConnectionFailed",
    "DeadlineExceeded",
    "Delta",
    "FolioError",
    "GenerateOptions",
    "GenerateResult",
    "GenerationStream",
    "Health",
    "IncompleteResponse",
    "InvalidArgument",
    "Message",
    "NotFound",
    "PageCounts",
    "RetryPolicy",
    "SamplingOptions",
    "ServerError",
    "Session",
    "SessionInfo",
    "Stats",
    "TlsOptions",
    "Unavailable",
    "Unsupported",
    "Usage",
    "WarmUpResult",
]
