"""Reads the server's log while it is written: what the backend says on its way up, and why a start failed.

Knows that the backend begins what a person should see with `[folio]`, or writes it as JSON of the event `load`. Does
not know the server.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

MARK = re.compile(r"\[folio\] (.*?)\"?$")
# Not always at the start: the server writes its lines in pieces, and ours may come between two.
JSON_LINE = '{"time": '
# The reason, without the stack that the server writes behind it as escaped lines.
NOT_LOADED = re.compile(r"failed to load '([^']+)' version \d+: (.*?)(?:\\n|\"$)", re.MULTILINE)
# The server draws tables of what it found.
TABLE = re.compile(r"^[+|]|^\s*$")
TAIL_LINES = 25


class LogReader:
    """Reads a growing log from where it stopped the last time.

    Args:
        path: the log.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._partial = b""

    def messages(self) -> list[str]:
        """The backend's messages since the last call, without what the server's logger puts around them."""
        with self._path.open("rb") as log:
            log.seek(self._offset)
            written = log.read()
        self._offset += len(written)
        *lines, self._partial = (self._partial + written).split(b"\n")
        found = (_message(line.decode(errors="replace").rstrip()) for line in lines)
        return [message for message in found if message is not None]


def _message(line: str) -> str | None:
    """What a line of the log tells a person; None where it is not for them."""
    match = MARK.search(line)
    if match:
        return match[1]
    begin = line.find(JSON_LINE)
    if begin < 0:
        return None
    try:
        members = json.loads(line[begin:])
    except ValueError:
        return None
    return str(members.get("message")) if members.get("event") == "load" else None


def failure(path: Path) -> str:
    """Why the server ended, from its log: what stopped each model from loading, else the last lines."""
    text = path.read_text(errors="replace")
    reasons = [f"{model}: {reason}" for model, reason in NOT_LOADED.findall(text)]
    if reasons:
        return "\n".join(reasons)
    return "\n".join([line for line in text.splitlines() if not TABLE.match(line)][-TAIL_LINES:])
