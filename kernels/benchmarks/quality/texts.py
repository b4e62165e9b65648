"""The text to measure on, and its windows. Knows files and tokens, not models."""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics

import torch


def read_text(path: Path | None) -> str:
    """The file's text, or the default text where `path` is None."""
    return default_text() if path is None else path.read_text(encoding="utf-8")


def default_text() -> str:
    """The pages behind Python's `help()`: about 400,000 characters of the language reference, in every installation.

    They differ a little between versions of Python. A page that another one repeats whole is left out: it would be
    read, not predicted.
    """
    pages = [topics[name] for name in sorted(topics)]
    return "\n\n".join(page for page in pages if not any(page in other for other in pages if len(other) > len(page)))


def spread_windows(token_ids: list[int], num_windows: int, window_tokens: int) -> torch.Tensor:
    """Windows at equal distances from the text's start to its end: int64 `[num_windows, window_tokens]`.

    Raises:
        ValueError: the windows do not fit side by side; the text names how many would.
    """
    num_fitting = len(token_ids) // window_tokens
    if not 1 <= num_windows <= num_fitting:
        raise ValueError(
            f"the number of windows is {num_windows}; allowed: 1 to {num_fitting}, "
            f"since the text has {len(token_ids)} tokens and a window {window_tokens}"
        )
    slack = len(token_ids) - num_windows * window_tokens
    gap = slack // max(num_windows - 1, 1)
    starts = [index * (window_tokens + gap) for index in range(num_windows)]
    return torch.tensor([token_ids[start : start + window_tokens] for start in starts])
