"""The server's own counts, as its metrics page has them."""

from __future__ import annotations

from folio_loadtests.server_counts import read_page

PAGE = """\
# HELP folio_generated_tokens_total Tokens.
# TYPE folio_generated_tokens_total counter
folio_generated_tokens_total{model="smollm2",version="1"} 30
folio_generated_tokens_total{model="other",version="1"} 500
# HELP folio_evictions_total Pages.
# TYPE folio_evictions_total counter
folio_evictions_total{model="smollm2",version="1",reason="cached"} 2
folio_evictions_total{model="smollm2",version="1",reason="idle"} 3
# HELP folio_time_to_first_token_seconds Time.
# TYPE folio_time_to_first_token_seconds histogram
folio_time_to_first_token_seconds_count{model="smollm2",version="1"} 20
folio_time_to_first_token_seconds_sum{model="smollm2",version="1"} 4
folio_time_to_first_token_seconds_bucket{model="smollm2",version="1",le="0.1"} 10
folio_time_to_first_token_seconds_bucket{model="smollm2",version="1",le="0.5"} 19
folio_time_to_first_token_seconds_bucket{model="smollm2",version="1",le="+Inf"} 20
"""


def test_one_model_is_read_and_its_series_are_summed() -> None:
    counts = read_page(PAGE, "smollm2")
    assert counts.count("folio_generated_tokens_total") == 30
    assert counts.count("folio_evictions_total") == 5
    assert counts.count("folio_preemptions_total") == 0
    assert counts.mean_first_token_s == 0.2
    assert counts.p95_first_token_bound_s == 0.5


def test_what_was_there_before_does_not_count() -> None:
    nothing = read_page(PAGE, "smollm2").since(read_page(PAGE, "smollm2"))
    assert nothing.count("folio_generated_tokens_total") == 0
    assert nothing.mean_first_token_s is None
    assert nothing.p95_first_token_bound_s is None
