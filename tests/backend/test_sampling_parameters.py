"""What clients may ask of sampling: vLLM's names and defaults, values as text, bounds, discreet refusals."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio_backend.errors import InvalidArgument
from folio_backend.sampling_parameters import SamplingParameters, parse_sampling_parameters

VOCABULARY_SIZE = 1000
MAX_CHOICES = 4


def parse(**values: object) -> SamplingParameters:
    return parse_sampling_parameters(values, vocabulary_size=VOCABULARY_SIZE, max_choices=MAX_CHOICES)


def refused(**values: object) -> InvalidArgument:
    """The error for these values, checked to name the field that is last among them."""
    with pytest.raises(InvalidArgument) as caught:
        parse(**values)
    assert caught.value.field == list(values)[-1]
    assert str(caught.value.field) in caught.value.sentence
    return caught.value


def numbers(low: float, high: float, *, above_low: bool = False) -> st.SearchStrategy[float]:
    return st.floats(low, high, exclude_min=above_low)


STOPS = st.lists(st.text(min_size=1, max_size=256), max_size=16, unique=True).map(tuple)
VALID = st.fixed_dictionaries(
    {},
    optional={
        "n": st.integers(1, MAX_CHOICES),
        "temperature": numbers(0, 2),
        "top_k": st.integers(0, 2**31 - 1),
        "top_p": numbers(0, 1, above_low=True),
        "min_p": numbers(0, 1),
        "repetition_penalty": numbers(0, 1e6, above_low=True),
        "presence_penalty": numbers(-2, 2),
        "frequency_penalty": numbers(-2, 2),
        "seed": st.integers(-(2**63), 2**63 - 1).filter(lambda seed: seed != -1),
        "stop": STOPS,
        "stop_token_ids": st.lists(st.integers(0, VOCABULARY_SIZE - 1), max_size=128, unique=True).map(tuple),
        "max_tokens": st.integers(100, 2**31 - 1),
        "min_tokens": st.integers(0, 16),
        "ignore_eos": st.booleans(),
        "logprobs": st.integers(0, 20),
        "include_stop_str_in_output": st.booleans(),
        "skip_special_tokens": st.booleans(),
    },
)


def test_nothing_given_is_vllms_defaults() -> None:
    assert parse() == SamplingParameters()
    assert dataclasses.asdict(SamplingParameters()) == {
        "n": 1,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": None,
        "stop": (),
        "stop_token_ids": (),
        "max_tokens": 16,
        "min_tokens": 0,
        "ignore_eos": False,
        "logprobs": None,
        "include_stop_str_in_output": False,
        "skip_special_tokens": True,
    }


@given(values=VALID)
def test_every_valid_value_is_kept(values: dict[str, object]) -> None:
    assert parse(**values) == dataclasses.replace(SamplingParameters(), **values)  # type: ignore[arg-type]


@given(values=VALID)
def test_a_value_as_text_means_the_same(values: dict[str, object]) -> None:
    assert parse(**{name: json.dumps(value) for name, value in values.items()}) == parse(**values)


@given(values=VALID)
def test_null_is_absent(values: dict[str, object]) -> None:
    absent = dict.fromkeys(field.name for field in dataclasses.fields(SamplingParameters))
    assert parse(**{**absent, **values}) == parse(**values)


def test_values_as_vllms_sample_client_sends_them() -> None:
    parameters = parse(temperature="0.1", top_p="0.95", max_tokens="100", early_stopping="False")
    assert parameters == SamplingParameters(temperature=0.1, top_p=0.95, max_tokens=100)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("END", ("END",)),
        ('["a", "b"]', ("a", "b")),
        ("[1]", ("[1]",)),
        ("[", ("[",)),
        ("7", ("7",)),
        ('"', ('"',)),
        (["a", "b", "a"], ("a", "b")),
        ([], ()),
    ],
)
def test_stop_is_one_string_or_a_list(given: object, expected: tuple[str, ...]) -> None:
    assert parse(stop=given).stop == expected


def test_vllms_other_words_for_off() -> None:
    assert parse(seed=-1, top_k=-1) == SamplingParameters()


@pytest.mark.parametrize(("temperature", "is_greedy"), [(0, True), ("9e-6", True), (1e-5, False), (1.0, False)])
def test_a_temperature_near_zero_is_greedy(temperature: object, is_greedy: bool) -> None:
    assert parse(temperature=temperature).is_greedy is is_greedy


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 0),
        ("n", MAX_CHOICES + 1),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("top_k", -2),
        ("top_p", 0),
        ("top_p", "0.0"),
        ("top_p", 1.01),
        ("min_p", -0.01),
        ("min_p", 1.01),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", -1),
        ("presence_penalty", 2.01),
        ("frequency_penalty", -2.01),
        ("seed", 2**63),
        ("seed", -(2**63) - 1),
        ("stop", ""),
        ("stop", "x" * 257),
        ("stop", [""]),
        ("stop", ["a"] * 17),
        ("stop_token_ids", [VOCABULARY_SIZE]),
        ("stop_token_ids", [-1]),
        ("stop_token_ids", [0] * 129),
        ("max_tokens", 0),
        ("max_tokens", 2**31),
        ("min_tokens", -1),
        ("min_tokens", 17),
        ("logprobs", -1),
        ("logprobs", 21),
    ],
)
def test_values_out_of_bounds_are_refused_with_the_bound(name: str, value: object) -> None:
    assert refused(**{name: value}).allowed


@pytest.mark.parametrize("name", ["temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty"])
@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), "nan", "Infinity", "1e999", 10**400, "1_0", "", "0x1", True, [1], {}],
)
def test_what_is_no_finite_number_is_refused(name: str, value: object) -> None:
    refused(**{name: value})


@pytest.mark.parametrize("name", ["n", "top_k", "seed", "max_tokens", "min_tokens", "logprobs", "stop_token_ids"])
@pytest.mark.parametrize("value", [True, 1.5, "1.5", "true", "", "x", "9" * 5000, 10**400, {}, ["1.5"]])
def test_what_is_no_whole_number_is_refused(name: str, value: object) -> None:
    refused(**{name: value})


@pytest.mark.parametrize("name", ["ignore_eos", "include_stop_str_in_output", "skip_special_tokens"])
@pytest.mark.parametrize("value", [0, 1, 1.0, "yes", "", [True]])
def test_what_is_no_boolean_is_refused(name: str, value: object) -> None:
    refused(**{name: value})


@pytest.mark.parametrize("value", [1, True, {"a": 1}, [1], ["a", None], [["a"]]])
def test_what_is_no_stop_string_is_refused(value: object) -> None:
    refused(stop=value)


def test_min_tokens_may_reach_max_tokens_and_no_further() -> None:
    assert parse(max_tokens=20, min_tokens=20).min_tokens == 20
    assert "20" in refused(max_tokens=20, min_tokens=21).sentence


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("best_of", 1),
        ("best_of", "1"),
        ("use_beam_search", "false"),
        ("use_beam_search", "False"),
        ("length_penalty", "1.0"),
        ("length_penalty", 1),
        ("early_stopping", False),
        ("detokenize", True),
        ("spaces_between_special_tokens", "true"),
        ("prompt_logprobs", None),
        ("prompt_logprobs", "null"),
        ("logits_processors", None),
        ("truncate_prompt_tokens", -1),
        ("guided_decoding", None),
        ("bad_words", []),
        ("allowed_token_ids", None),
        ("logit_bias", {}),
        ("lora_name", None),
        ("output_kind", 0),
        ("output_kind", "CUMULATIVE"),
        ("extra_args", None),
    ],
)
def test_vllms_other_parameters_pass_at_their_neutral_value(name: str, value: object) -> None:
    assert parse(**{name: value}) == SamplingParameters()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("best_of", 2),
        ("best_of", True),
        ("use_beam_search", True),
        ("use_beam_search", 0),
        ("length_penalty", 0.5),
        ("length_penalty", True),
        ("early_stopping", "never"),
        ("detokenize", False),
        ("prompt_logprobs", 0),
        ("truncate_prompt_tokens", 5),
        ("guided_decoding", {"json": "{}"}),
        ("bad_words", ["a"]),
        ("allowed_token_ids", []),
        ("logit_bias", {"5": 1}),
        ("lora_name", "adapter"),
        ("output_kind", False),
        ("output_kind", 1),
        ("temprature", 1.0),
        ("_READERS", None),
    ],
)
def test_anything_else_is_refused_by_name(name: str, value: object) -> None:
    refused(**{name: value})


def test_best_of_is_neutral_when_it_is_n() -> None:
    assert parse(n=3, best_of=3).n == 3
    refused(n=3, best_of=1)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(SamplingParameters)])
@given(secret=st.text(alphabet="qwxyz", min_size=12, max_size=30))
def test_no_refusal_shows_what_a_string_holds(name: str, secret: str) -> None:
    for value in ({secret: secret}, [secret * 300, 1.5], f"[{secret}" * 300):
        assert secret not in refused(**{name: value}).text()


def test_an_unknown_name_is_shown_short_and_printable() -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(**{"a\n" * 1000: 1})
    assert len(caught.value.text()) < 300
    assert "\n" not in caught.value.sentence
