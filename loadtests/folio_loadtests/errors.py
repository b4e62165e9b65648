"""What ends a load test before it can say anything about the server."""

from __future__ import annotations


class RunError(Exception):
    """The run cannot be made as it was asked for; the text is for the person who asked."""
