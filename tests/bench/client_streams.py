"""The same generations through the client package, all over one client."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from folio_client import Client


def run_client_streams(address: str, prompts: Sequence[str], num_tokens: int) -> float:
    """Streams one generation per prompt, all at once; returns tokens per second in all."""
    with Client(f"grpc://{address}") as client, ThreadPoolExecutor(len(prompts)) as executor:

        def stream(prompt: str) -> int | None:
            result = client.stream(prompt, temperature=0, max_tokens=num_tokens, ignore_eos=True).collect()
            return result.usage.num_generated_tokens

        started_s = time.perf_counter()
        counts = list(executor.map(stream, prompts))
        duration_s = time.perf_counter() - started_s
    assert counts == [num_tokens] * len(prompts)
    return len(prompts) * num_tokens / duration_s
