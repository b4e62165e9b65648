"""A chat in a file, so that it can be continued later. Knows the file's form, not what is said."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from folio_client.errors import InvalidArgument
from folio_client.types import Message


class Transcript:
    """The messages of a chat, as a JSON list of objects with role and content.

    Args:
        path: the file, which need not exist yet; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self) -> list[Message]:
        """What was said so far.

        Raises:
            InvalidArgument: the file is no transcript.
        """
        if self._path is None or not self._path.exists():
            return []
        with _usable_file():
            entries = json.loads(self._path.read_text(encoding="utf-8"))
            messages: list[Message] = [{"role": entry["role"], "content": entry["content"]} for entry in entries]
            if not isinstance(entries, list) or not all(isinstance(text, str) for m in messages for text in m.values()):
                raise TypeError
        return messages

    def write(self, messages: Sequence[Message]) -> None:
        """Puts a chat in the file's place.

        Raises:
            InvalidArgument: the file cannot be written.
        """
        if self._path is not None:
            with _usable_file():
                self._path.write_text(json.dumps(messages, ensure_ascii=False, indent=1), encoding="utf-8")


@contextmanager
def _usable_file() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidArgument(
            f"The transcript cannot be used ({type(error).__name__}).",
            field="transcript",
            allowed="a JSON list of objects with role and content",
        ) from None
