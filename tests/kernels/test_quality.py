"""`make quality`: its attention is the engine's, its figures are what they say, its windows lie in the text."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from benchmarks.quality.__main__ import main, measure
from benchmarks.quality.page_rule import QUERY_BLOCK, PageRule, page_rule_attention
from benchmarks.quality.plot import draw
from benchmarks.quality.summary import as_json, as_table, summarise
from benchmarks.quality.teacher_forcing import TeacherForcing, WindowScores
from benchmarks.quality.texts import default_text, read_text, spread_windows
from folio_kernels import reference
from folio_kernels.codecs import CODECS, codec_named
from folio_kernels.layout import PAGE_SIZE, PageLayout
from folio_kernels.pool import RAW, SEALED, AttentionBatch, PagePool
from tests.backend.tiny_models import llama_config, random_ids, random_model
from tests.kernels.test_key_guide import random_guide

HEADS, KV_HEADS, HEAD_DIM = 6, 2, 64
NOTHING = torch.empty(0, dtype=torch.int64)


@pytest.fixture
def tiny_model() -> PreTrainedModel:
    return random_model(llama_config())


def paged_attention(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    codec: str,
    sink_pages: int,
    key_guide: torch.Tensor | None = None,
) -> torch.Tensor:
    """The reference's attention of one sequence's prefill, through a pool of pages."""
    length, num_pages = len(query), -(-len(query) // PAGE_SIZE)
    layout = PageLayout(1, KV_HEADS, HEAD_DIM, codec_named(codec), torch.float32)
    pool = PagePool(layout, num_pages, num_pages, key_guide=key_guide)
    reference.append(pool, 0, keys.transpose(0, 1), values.transpose(0, 1), torch.arange(length))
    full_pages = torch.arange(length // PAGE_SIZE)
    reference.seal(pool, slice(0, 1), full_pages, full_pages)
    batch = AttentionBatch(
        query_starts=torch.tensor([0, length]),
        lengths=torch.tensor([length]),
        page_tables=torch.arange(num_pages).unsqueeze(0),
        page_kinds=torch.where(torch.arange(num_pages) < sink_pages, RAW, SEALED).unsqueeze(0),
        open_pages=torch.arange(num_pages).unsqueeze(0),
        slots=NOTHING,
        seal_raw=NOTHING,
        seal_sealed=NOTHING,
    )
    return reference.attend(pool, 0, query, batch, HEAD_DIM**-0.5)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("length", "sink_pages"), [(1, 1), (64, 1), (65, 0), (QUERY_BLOCK + 70, 1), (200, 2)])
def test_attention_is_the_references(codec: str, length: int, sink_pages: int) -> None:
    draws = torch.Generator().manual_seed(length)
    query = torch.randn((length, HEADS, HEAD_DIM), generator=draws)
    keys, values = torch.randn((2, KV_HEADS, length, HEAD_DIM), generator=draws)
    found = page_rule_attention(query, keys, values, PageRule(codec_named(codec), sink_pages), HEAD_DIM**-0.5)
    torch.testing.assert_close(found, paged_attention(query, keys, values, codec, sink_pages), atol=1e-5, rtol=1e-4)


def test_keys_are_encoded_by_their_layers_guide() -> None:
    query, keys, values = torch.randn((200, HEADS, HEAD_DIM)), *torch.randn((2, KV_HEADS, 200, HEAD_DIM))
    guide = torch.stack([random_guide(KV_HEADS, HEAD_DIM, seed=seed) for seed in (1, 2)])
    rule = PageRule(codec_named("int4"), 1, guide)
    found = page_rule_attention(query, keys, values, rule, HEAD_DIM**-0.5, layer=1)
    torch.testing.assert_close(found, paged_attention(query, keys, values, "int4", 1, guide[1:]), atol=1e-5, rtol=1e-4)


def test_an_uncompressed_cache_changes_nothing(tiny_model: PreTrainedModel) -> None:
    token_ids = torch.tensor(random_ids(QUERY_BLOCK + 90))
    with torch.inference_mode():
        expected = tiny_model.base_model(input_ids=token_ids.unsqueeze(0)).last_hidden_state[0]
    found = TeacherForcing(tiny_model).hidden_states(token_ids, PageRule(codec_named("none"), 1))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_scores_are_those_of_whole_distributions(tiny_model: PreTrainedModel) -> None:
    model = TeacherForcing(tiny_model)
    token_ids = torch.tensor(random_ids(700))  # more rows than are scored at once
    states = {name: model.hidden_states(token_ids, PageRule(codec_named(name), 1)) for name in ("none", "k4v2")}
    with torch.inference_mode():
        exact, lossy = (tiny_model.lm_head(part[:-1]).double().log_softmax(-1) for part in states.values())
    targets = token_ids[1:].unsqueeze(1)
    score = model.scores(token_ids, states["none"], states)["k4v2"]
    assert score.kl == pytest.approx(float((exact.exp() * (exact - lossy)).sum(-1).mean()), rel=1e-3)
    assert score.loss_change == pytest.approx(float((exact - lossy).gather(1, targets).mean()), abs=1e-6)
    assert score.top1_agreement == pytest.approx(float((exact.argmax(-1) == lossy.argmax(-1)).double().mean()))


def test_fewer_bits_diverge_more(tiny_model: PreTrainedModel) -> None:
    windows = torch.tensor([random_ids(330, seed=1), random_ids(330, seed=2)])
    qualities = measure(TeacherForcing(tiny_model), windows, list(CODECS.values()))
    divergences = [quality.kl.mean for quality in qualities.values()]
    assert divergences[0] == pytest.approx(0, abs=1e-9)
    assert all(fewer > 2 * more for more, fewer in itertools.pairwise(divergences))


def test_intervals_are_students_over_windows() -> None:
    quality = summarise([WindowScores(loss_change=nats, kl=nats, top1_agreement=1.0) for nats in (0.01, 0.02, 0.03)])
    reach = 4.302653 * 0.01 / math.sqrt(3)
    assert (quality.kl.low, quality.kl.high) == pytest.approx((0.02 - reach, 0.02 + reach))
    assert quality.perplexity_change_percent.mean == pytest.approx(100 * (math.exp(0.02) - 1))


def test_one_window_tells_nothing_about_chance() -> None:
    quality = summarise([WindowScores(loss_change=0.01, kl=0.02, top1_agreement=0.9)])
    assert math.isinf(quality.kl.high)
    assert "inf" in as_table({"int4": quality}, {"int4": 72})


def test_the_last_line_is_json_of_means() -> None:
    quality = summarise([WindowScores(loss_change=0.01, kl=0.02, top1_agreement=0.9)] * 2)
    assert json.loads(as_json({"int4": quality})) == {
        "codecs": {"int4": {"perplexity_change_percent": 1.005, "kl": 0.02, "top1_agreement": 0.9}}
    }


@pytest.mark.parametrize("num_windows", [1, 2])
def test_the_plot_names_the_codecs(num_windows: int, tmp_path: Path) -> None:
    windows = [
        WindowScores(loss_change=0.01, kl=0.001 * (9 + index), top1_agreement=0.9) for index in range(num_windows)
    ]
    path = tmp_path / "folder" / "kl.svg"
    draw({"int4": summarise(windows)}, {"int4": 72}, path)
    assert "int4" in path.read_text()


@given(st.integers(1, 50), st.integers(1, 9), st.integers(1, 9))
def test_windows_lie_side_by_side_in_the_text(extra: int, num_windows: int, window_tokens: int) -> None:
    text = list(range(num_windows * window_tokens + extra))
    windows = spread_windows(text, num_windows, window_tokens).tolist()
    assert [len(window) for window in windows] == [window_tokens] * num_windows
    read = [token for window in windows for token in window]
    assert read == sorted(set(read))
    assert set(read) <= set(text)


@pytest.mark.parametrize("num_windows", [0, 3])
def test_windows_that_do_not_fit_are_refused(num_windows: int) -> None:
    with pytest.raises(ValueError, match=f"number of windows is {num_windows}; allowed: 1 to 2"):
        spread_windows(list(range(29)), num_windows, 10)


@pytest.mark.parametrize("text", [None, b"\xff\xfe"], ids=["missing", "no text"])
def test_a_file_that_is_no_text_is_refused_before_the_model_is_loaded(
    text: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "text"
    if text is not None:
        path.write_bytes(text)
    monkeypatch.setattr("sys.argv", ["quality", "--text", str(path)])
    with pytest.raises(SystemExit, match=r"quality: .*text cannot be read as text: "):
        main()


def test_the_default_text_is_long_and_repeats_no_page(tmp_path: Path) -> None:
    text = default_text()
    assert len(text) > 8 * 4096 * 5
    assert read_text(None) == text
    (tmp_path / "text").write_text("other", encoding="utf-8")
    assert read_text(tmp_path / "text") == "other"
