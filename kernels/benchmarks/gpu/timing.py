"""How long a piece of work takes on the GPU: as a CUDA graph, from a cold L2 cache, the median of many runs."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

COPIED_BYTES = 2**30
"""How much the copy moves whose speed is the yardstick: far more than any cache holds."""


class GraphTimer:
    """Times work on the current GPU.

    Args:
        num_runs: timed runs of each piece of work.
    """

    def __init__(self, num_runs: int) -> None:
        self._num_runs = num_runs
        l2_bytes = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
        self._flushing = torch.zeros(4 * l2_bytes // 4, dtype=torch.int32, device="cuda")

    def seconds(self, work: Callable[[], object]) -> float:
        """The median time of one run.

        The work runs twice before, so that it is compiled and its memory is there, and then as a captured graph: what
        Python and the launches cost is not in it.
        """
        graph = captured(work)
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(self._num_runs)]
        graph.replay()
        for begin, end in events:
            self._flush()
            begin.record()
            graph.replay()
            end.record()
        torch.cuda.synchronize()
        times_ms: list[float] = [begin.elapsed_time(end) for begin, end in events]
        return statistics.median(times_ms) / 1000

    def _flush(self) -> None:
        """Fills the L2 cache by reading: lines that were written would be written back on the work's time."""
        self._flushing.sum()

    def copy_bytes_per_s(self) -> float:
        """Bytes read and written per second when a large tensor is copied."""
        source = torch.zeros(COPIED_BYTES, dtype=torch.uint8, device="cuda")
        target = torch.empty_like(source)
        return 2 * COPIED_BYTES / self.seconds(lambda: target.copy_(source))


def captured(work: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """The work as a graph, after two runs outside of it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
        work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph
