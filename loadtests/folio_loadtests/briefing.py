"""What every process of the generator is told: the server, the workload, and where the run stands."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from folio_client import Client, RetryPolicy
from folio_client.connection import ConnectionOptions
from folio_loadtests.references import Reference
from folio_loadtests.sample import Phase
from folio_loadtests.workload import Workload


@dataclass(frozen=True)
class Target:
    """The server under load.

    Attributes:
        url: as the client takes it.
        model: the generate model.
        attention_model: the attention model.
        timeout_s: for one request.
    """

    url: str
    model: str
    attention_model: str
    timeout_s: float

    def client(self) -> Client:
        """A client that asks once: a refusal is to be seen. Secrets come from the environment."""
        connection: ConnectionOptions = {}
        if api_key := os.environ.get("FOLIO_API_KEY"):
            connection["api_key"] = api_key
        if bearer_token := os.environ.get("FOLIO_BEARER_TOKEN"):
            connection["bearer_token"] = bearer_token
        return Client(
            self.url,
            model=self.model,
            attention_model=self.attention_model,
            timeout_s=self.timeout_s,
            retry=RetryPolicy(max_attempts=1),
            admin_token=os.environ.get("KV_CACHE_ADMIN_TOKEN") or None,
            **connection,
        )


@dataclass(frozen=True)
class Briefing:
    """What every process must know before it sends anything, and where the run stands.

    Attributes:
        phase: the one that runs.
        target: the server.
        workload: what its users do.
        page_size: tokens of a page on the server.
        codec: how its cache is compressed.
        arrival_rate: sessions a second from each source of them.
        max_sessions: most sessions that a source has at a time.
        references: of the chats that are compared.
    """

    phase: Phase
    target: Target
    workload: Workload
    page_size: int
    codec: str
    arrival_rate: float
    max_sessions: int
    references: tuple[Reference, ...]

    def fields(self) -> dict[str, Any]:
        """What `read` takes: values that any wire carries."""
        return {
            **vars(self),
            "phase": self.phase.value,
            "target": vars(self.target),
            "workload": self.workload.model_dump(),
            "references": [reference.fields() for reference in self.references],
        }

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Briefing:
        """The briefing that `fields` was made of."""
        return cls(
            **{
                **fields,
                "phase": Phase(fields["phase"]),
                "target": Target(**fields["target"]),
                "workload": Workload.model_validate(fields["workload"]),
                "references": tuple(Reference.read(reference) for reference in fields["references"]),
            }
        )
