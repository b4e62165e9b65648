"""What config.pbtxt and the environment may say, and what is said when they may not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from folio_backend.config import MODEL_SETTINGS, DtypeName, Settings, environment_name, environment_settings
from folio_backend.errors import ConfigurationError

GENERATE = {"task": "generate", "model": "weights"}
ATTENTION = {"task": "attention", "num_heads": "8", "num_kv_heads": "2", "head_dim": "64"}
HIDDEN = "open-sesame"


def test_a_few_parameters_are_enough() -> None:
    settings = Settings.load(GENERATE, {})
    assert (settings.task, settings.model, settings.codec, settings.page_size) == (
        "generate",
        "weights",
        "int8",
        64,
    )
    assert settings.compile
    assert settings.admin_token is None


def test_strings_become_values() -> None:
    text = {
        "max_tokens": "4096",
        "gc_threshold": "0.5",
        "compile": "false",
        "vllm_metrics": "1",
        "codec": "k8v4",
    }
    settings = Settings.load(GENERATE | text, {})
    assert (settings.max_tokens, settings.gc_threshold, settings.compile) == (4096, 0.5, False)
    assert (settings.vllm_metrics, settings.codec) == (True, "k8v4")


def test_the_environment_wins() -> None:
    settings = Settings.load(GENERATE | {"codec": "int8", "max_tokens": "64"}, {"KV_CACHE_CODEC": "int4"})
    assert (settings.codec, settings.max_tokens) == ("int4", 64)


@pytest.mark.parametrize(
    ("variable", "text", "setting", "value"),
    [
        ("KV_CACHE_MAX_TOKENS", "8192", "max_tokens", 8192),
        ("KV_CACHE_STRATEGY", "lru", "strategy", "lru"),
        ("KV_CACHE_CODEC", "none", "codec", "none"),
        ("KV_CACHE_MAX_MEMORY_MB", "64", "max_memory_mb", 64),
        ("KV_CACHE_GC_THRESHOLD", "1", "gc_threshold", 1.0),
        ("KV_CACHE_ENABLE_PERSISTENCE", "false", "enable_persistence", False),
        ("KV_CACHE_PERSISTENCE_PATH", "/data", "persistence_path", "/data"),
        ("KV_CACHE_ENABLE_PREFETCH", "0", "enable_prefetch", False),
        ("KV_CACHE_PREFETCH_SIZE", "4", "prefetch_size", 4),
        ("KV_CACHE_MAX_RUNNING_REQUESTS", "3", "max_running_requests", 3),
        ("KV_CACHE_LOG_FORMAT", "json", "log_format", "json"),
        ("FOLIO_CACHE_DIR", "/weights", "weights_cache_dir", "/weights"),
    ],
)
def test_documented_environment_variables(variable: str, text: str, setting: str, value: object) -> None:
    assert getattr(Settings.load(GENERATE, {variable: text}), setting) == value


def test_every_setting_but_the_model_s_own_comes_from_the_environment() -> None:
    assert set(environment_settings().values()) == set(Settings.model_fields) - MODEL_SETTINGS


def test_an_empty_variable_counts_as_not_set() -> None:
    settings = Settings.load(GENERATE, {"KV_CACHE_ADMIN_TOKEN": "", "KV_CACHE_MAX_TOKENS": "", "REDIS_URL": ""})
    assert settings.admin_token is None
    assert settings.max_tokens is None


def test_variables_of_others_are_left_alone() -> None:
    assert Settings.load(GENERATE, {"PATH": "/bin", "model": "x", "codec": "int4", "TASK": "y"}).codec == "int8"


@pytest.mark.parametrize(
    ("parameters", "environment", "words"),
    [
        ({"page_sise": "64"}, {}, ["parameter", "'page_sise'", "page_size"]),
        ({"KV_CACHE_CODEC": "int8"}, {}, ["parameter", "'KV_CACHE_CODEC'", "unknown"]),
        ({"zzzzzz": "1"}, {}, ["'zzzzzz'", "known are", "max_tokens"]),
        ({}, {"KV_CACHE_CODECS": "int8"}, ["environment variable", "'KV_CACHE_CODECS'", "KV_CACHE_CODEC?"]),
        ({}, {"KV_CACHE_MODEL": "x"}, ["environment variable", "'KV_CACHE_MODEL'", "unknown"]),
    ],
)
def test_unknown_names_stop_the_load(parameters: dict[str, str], environment: dict[str, str], words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        Settings.load(GENERATE | parameters, environment)
    assert all(word in str(refusal.value) for word in words), str(refusal.value)


def test_codecs_are_measured_where_there_is_a_model() -> None:
    assert Settings.load(GENERATE, {"KV_CACHE_CODEC": "auto"}).codec == "auto"
    with pytest.raises(
        ConfigurationError, match=r"codec is auto, .* task attention .*allowed: none, int8, k8v4, int4, k4v2"
    ):
        Settings.load(ATTENTION, {"KV_CACHE_CODEC": "auto"})


@pytest.mark.parametrize(
    ("parameters", "environment", "words"),
    [
        ({"task": "embed"}, {}, ["parameter task", "'embed'", "one of generate, attention"]),
        ({"codec": "int9"}, {}, ["parameter codec", "'int9'", "one of none, int8, k8v4, int4, k4v2, auto"]),
        (
            {"codec": "int8"},
            {"KV_CACHE_CODEC": "x"},
            ["environment variable KV_CACHE_CODEC", "'x'", "one of"],
        ),
        ({"page_size": "32"}, {}, ["parameter page_size", "'32'", "allowed: 64."]),
        ({"sink_pages": "5"}, {}, ["parameter sink_pages", "'5'", "a whole number from 0 to 4"]),
        ({"max_step_tokens": "8193"}, {}, ["max_step_tokens", "'8193'", "a whole number from 1 to 8192"]),
        ({"max_tokens": "many"}, {}, ["max_tokens", "'many'", "a whole number, at least 64"]),
        ({"gc_threshold": "nan"}, {}, ["gc_threshold", "'nan'", "a number from 0 to 1"]),
        ({"compile": "maybe"}, {}, ["compile", "'maybe'", "true or false"]),
        ({"model": ""}, {}, ["model", "''", "a text that is not empty"]),
        ({"codec": "int9", "page_size": "1"}, {}, ["codec", "'int9'", "page_size", "'1'"]),
    ],
)
def test_a_refused_value_is_shown_with_what_is_allowed(
    parameters: dict[str, str], environment: dict[str, str], words: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        Settings.load(GENERATE | parameters, environment)
    assert all(word in str(refusal.value) for word in words), str(refusal.value)


def test_a_long_value_is_cut() -> None:
    with pytest.raises(ConfigurationError) as refusal:
        Settings.load(GENERATE | {"codec": "x" * 10_000}, {})
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize(
    ("parameters", "environment"),
    [
        ({"enable_persistence": "true"}, {}),
        ({}, {"KV_CACHE_ENABLE_PREFETCH": "1"}),
        ({}, {"REDIS_URL": f"redis://:{HIDDEN}@cache:6379"}),
    ],
)
def test_what_this_version_lacks_is_refused(parameters: dict[str, str], environment: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="This version of Folio does not have") as refusal:
        Settings.load(GENERATE | parameters, environment)
    assert HIDDEN not in str(refusal.value)


@pytest.mark.parametrize("missing", ["task", "model"])
def test_what_a_model_needs_is_asked_for(missing: str) -> None:
    with pytest.raises(ConfigurationError, match=missing):
        Settings.load({name: text for name, text in GENERATE.items() if name != missing}, {})


@pytest.mark.parametrize("missing", ["num_heads", "num_kv_heads", "head_dim"])
def test_an_attention_model_needs_its_shape(missing: str) -> None:
    with pytest.raises(ConfigurationError, match=f"needs {missing} in"):
        Settings.load({name: text for name, text in ATTENTION.items() if name != missing}, {})


def test_query_heads_are_a_multiple_of_kv_heads() -> None:
    with pytest.raises(ConfigurationError, match="num_kv_heads is 3 and num_heads is 8"):
        Settings.load(ATTENTION | {"num_kv_heads": "3"}, {})


@pytest.mark.parametrize(
    ("parameters", "foreign"),
    [(GENERATE | {"head_dim": "64"}, "head_dim"), (ATTENTION | {"max_choices": "2"}, "max_choices")],
)
def test_parameters_of_the_other_task_are_refused(parameters: dict[str, str], foreign: str) -> None:
    with pytest.raises(ConfigurationError, match=f"has no {foreign};"):
        Settings.load(parameters, {})


def test_two_models_share_an_environment() -> None:
    environment = {
        "KV_CACHE_MAX_STEP_TOKENS": "64",
        "KV_CACHE_MAX_HISTORY_TOKENS": "128",
        "KV_CACHE_CODEC": "int4",
    }
    generate, attention = Settings.load(GENERATE, environment), Settings.load(ATTENTION, environment)
    assert (generate.max_step_tokens, generate.codec) == (64, "int4")
    assert (attention.max_history_tokens, attention.codec) == (128, "int4")


def test_parameters_of_the_server_are_passed_over() -> None:
    assert Settings.load(GENERATE | {"EXECUTION_ENV_PATH": "/env.tar.gz"}, {}).model == "weights"


def test_secrets_stay_secret() -> None:
    settings = Settings.load(GENERATE | {"tenant_secret": HIDDEN}, {"KV_CACHE_ADMIN_TOKEN": HIDDEN})
    assert settings.admin_token is not None
    assert settings.admin_token.get_secret_value() == HIDDEN
    assert HIDDEN not in f"{settings} {settings!r} {settings.describe()}"
    assert (settings.describe()["admin_token"], settings.describe()["redis_url"]) == ("set", None)


def test_a_refused_secret_is_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="parameter admin_token is secret and invalid") as refusal:
        Settings.load(GENERATE | {"admin_token": ""}, {})
    assert refusal.value.__context__ is None


def test_the_description_holds_the_settings_of_the_task() -> None:
    description = Settings.load(ATTENTION, {}).describe()
    assert description["head_dim"] == 64
    assert "max_choices" not in description
    assert all(value is None or isinstance(value, str | int | float) for value in description.values())


def test_settings_do_not_change() -> None:
    settings = Settings.load(GENERATE, {})
    with pytest.raises(ValidationError):
        settings.codec = "int4"


def test_a_direct_call_ignores_the_process_s_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODEC", "int4")
    monkeypatch.setenv("KV_CACHE_CODEC", "int4")
    assert Settings(task="generate", model="weights").codec == "int8"


@pytest.mark.parametrize(
    ("parameters", "model_dtype", "cache_dtype"),
    [
        ({"codec": "none"}, "float32", "float32"),
        ({"codec": "none"}, "bfloat16", "bfloat16"),
        ({"codec": "int8"}, "float32", "float16"),
        ({"codec": "int8"}, "bfloat16", "bfloat16"),
        ({"codec": "int8", "cache_dtype": "float32"}, "float16", "float32"),
    ],
)
def test_the_dtype_of_raw_pages(parameters: dict[str, str], model_dtype: DtypeName, cache_dtype: str) -> None:
    assert Settings.load(GENERATE | parameters, {}).resolved_cache_dtype(model_dtype) == cache_dtype


def test_the_dtype_of_the_model() -> None:
    assert Settings.load(GENERATE, {}).resolved_dtype("cpu", "bfloat16") == "float32"
    assert Settings.load(GENERATE, {}).resolved_dtype("cuda", "bfloat16") == "bfloat16"
    assert Settings.load(GENERATE | {"dtype": "float16"}, {}).resolved_dtype("cpu", "bfloat16") == "float16"


def test_the_memory_limit() -> None:
    assert Settings.load(GENERATE, {}).memory_limit_bytes("cpu") == 512 * 1024**2
    assert Settings.load(GENERATE, {}).memory_limit_bytes("cuda") is None
    assert Settings.load(GENERATE, {"KV_CACHE_MAX_MEMORY_MB": "3"}).memory_limit_bytes("cuda") == 3 * 1024**2


@given(st.integers())
def test_a_bounded_number_is_taken_exactly_within_its_bounds(number: int) -> None:
    parameters = GENERATE | {"max_step_tokens": str(number)}
    if 1 <= number <= 8192:
        assert Settings.load(parameters, {}).max_step_tokens == number
    else:
        with pytest.raises(ConfigurationError, match="max_step_tokens"):
            Settings.load(parameters, {})


@given(st.sampled_from(sorted(set(Settings.model_fields))), st.text(min_size=1, max_size=20))
def test_any_text_gives_settings_or_a_sentence_that_names_the_setting(setting: str, text: str) -> None:
    try:
        settings = Settings.load(GENERATE | {setting: text}, {})
    except ConfigurationError as refusal:
        assert setting in str(refusal)  # noqa: PT017 - both outcomes are right
    else:
        assert setting in settings.model_fields_set


@given(st.text().map("KV_CACHE_".__add__).filter(lambda name: name not in environment_settings()))
def test_no_unknown_cache_variable_is_overlooked(variable: str) -> None:
    with pytest.raises(ConfigurationError, match="unknown"):
        Settings.load(GENERATE, {variable: "1"})


def test_environment_names() -> None:
    assert environment_name("redis_url") == "REDIS_URL"
    assert environment_name("codec") == "KV_CACHE_CODEC"
