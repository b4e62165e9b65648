"""The command line."""

from __future__ import annotations

import pytest

from folio_sweep.options import parse_options
from folio_sweep.plan import concurrency_levels, num_levels, rate_levels
from folio_sweep.series import Level


def test_lists_are_separated_by_spaces_or_commas_and_sorted() -> None:
    options = parse_options(["--codecs=int4,none", "--generate-concurrency=8 1,4", "--batch-delays-us="])
    assert (options.codecs, options.generate.concurrency, options.batch_delays_us) == (("int4", "none"), (1, 4, 8), ())


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--codecs=int3", "'int3' is not one of none, int8, k8v4, int4"),
        ("--codecs=", "it is empty"),
        ("--generate-concurrency=0", "below 1"),
        ("--attention-rates=fast", "not a list of numbers"),
        ("--attention-rates=inf", "or infinity"),
        ("--modes=request_rate", "--generate-rates is empty"),
        ("--output-tokens=-1", "not a whole number from 1"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(
    argument: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_options([argument])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_every_level_has_requests_for_all_that_run_at_a_time_and_for_a_second() -> None:
    sizes = parse_options(["--generate-concurrency=1 9", "--generate-num-requests=8"]).generate
    assert concurrency_levels(sizes) == (Level("concurrency", 1, 8), Level("concurrency", 9, 27))
    assert rate_levels([2.5, 8.5], sizes) == (Level("request_rate", 2.5, 8), Level("request_rate", 8.5, 9))


def test_levels_are_counted_before_they_are_measured() -> None:
    lists = ["--codecs=int8 int4", "--batch-delays-us=0 500", "--generate-rates=1 2", "--generate-concurrency=1 2 4"]
    assert num_levels(parse_options([*lists, "--attention-concurrency=1"])) == 2 * 2 * (3 + 2 + 2 * (1 + 3))
    assert num_levels(parse_options([*lists, "--attention-concurrency=1", "--host=h:1"])) == 2 * (3 + 2 + 1 + 3)
