"""How the command line speaks: JSON documents or text, with colour where it goes to a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape

from folio_client.errors import FolioError
from folio_client.types import GenerateResult


class Output:
    """Standard output and standard error.

    Args:
        is_json: whether to print JSON documents, one a line, and nothing else.

    Attributes:
        console: for tables and colour; plain where standard output is no terminal.
    """

    def __init__(self, *, is_json: bool) -> None:
        self.is_json = is_json
        self.console = _Console(highlight=False, soft_wrap=True)
        self._errors = _Console(stderr=True, highlight=False, soft_wrap=True)

    def document(self, members: Mapping[str, Any] | list[Any]) -> None:
        """A JSON document on a line of its own."""
        self.piece(f"{json.dumps(members, ensure_ascii=False)}\n")

    def show(self, members: Mapping[str, Any] | list[Any], text: RenderableType) -> None:
        """One or the other, as is wanted."""
        if self.is_json:
            self.document(members)
        else:
            self.console.print(text)

    def piece(self, text: str) -> None:
        """A part of an answer, at once."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """A remark on standard error; left out where JSON is wanted."""
        if not self.is_json:
            self._errors.print(text, style="dim", markup=False)

    def error(self, error: FolioError) -> None:
        """What went wrong: on standard error, or as a document."""
        if self.is_json:
            self.document({"error": error_members(error)})
        else:
            self._errors.print(f"[bold red]{type(error).__name__}[/]: {escape(str(error))}")


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leaves the end to the command; rich would end the process itself."""
        raise BrokenPipeError


def error_members(error: FolioError) -> dict[str, object]:
    """An error as a document."""
    members = {
        "kind": type(error).__name__,
        "sentence": error.sentence,
        "field": error.field,
        "allowed": error.allowed,
        "retry_after_ms": error.retry_after_ms,
    }
    return {name: value for name, value in members.items() if value is not None}


def result_members(result: GenerateResult) -> dict[str, object]:
    """A generation as a document."""
    return {
        "text": result.text,
        "finish_reason": result.finish_reason,
        "usage": asdict(result.usage),
        "request_id": result.request_id,
    }


def usage_line(result: GenerateResult) -> str:
    """What a generation took, in a line."""
    usage = result.usage
    parts = []
    if usage.num_prompt_tokens is not None:
        parts.append(f"{usage.num_prompt_tokens} prompt tokens")
    if usage.num_cached_tokens is not None:
        parts.append(f"{usage.num_cached_tokens} of them reused")
    if usage.num_generated_tokens is not None:
        parts.append(f"{usage.num_generated_tokens} generated")
    if usage.first_token_s is not None:
        parts.append(f"first after {usage.first_token_s * 1000:,.0f} ms")
    if usage.tokens_per_s is not None:
        parts.append(f"{usage.tokens_per_s:.1f} tokens/s")
    return ", ".join(parts)
