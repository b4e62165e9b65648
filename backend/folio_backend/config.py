"""The settings of one model: read once, checked whole, never changed.

Knows every setting, its bounds, its default, where it may come from (a parameter in config.pbtxt, or an
environment variable, which wins) and which task it belongs to. Does not know what a setting does, and looks
at nothing but what it is given: no environment of its own, no files, no devices.
"""

from collections.abc import Mapping
from typing import Final, Literal

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from folio_backend.config_errors import (
    describe_invalid_values,
    refuse_foreign,
    refuse_missing,
    refuse_not_available,
    refuse_unknown,
)
from folio_backend.errors import ConfigurationError

TaskName = Literal["generate", "attention"]
DeviceName = Literal["auto", "cpu", "cuda"]
DtypeName = Literal["float32", "float16", "bfloat16"]
DtypeChoice = Literal["auto", "float32", "float16", "bfloat16"]
CodecName = Literal["none", "int8", "k8v4", "int4", "k4v2", "auto"]
StrategyName = Literal["lru"]
LogFormat = Literal["text", "json"]

AUTO_CODEC: Final = "auto"
ENVIRONMENT_PREFIX: Final = "KV_CACHE_"
# Every setting is KV_CACHE_<SETTING> in the environment, but for these two, ...
ENVIRONMENT_NAMES: Final[Mapping[str, str]] = {
    "redis_url": "REDIS_URL",
    "weights_cache_dir": "FOLIO_CACHE_DIR",
}
# ... and those that say what a model is: two models of one server share an environment.
MODEL_SETTINGS: Final = frozenset({"task", "model", "device", "dtype", "num_heads", "num_kv_heads", "head_dim"})

ATTENTION_SETTINGS: Final = frozenset({"num_heads", "num_kv_heads", "head_dim", "max_history_tokens"})
GENERATE_SETTINGS: Final = frozenset(
    {
        "model",
        "max_running_requests",
        "max_queued_requests",
        "max_step_tokens",
        "max_model_length",
        "max_choices",
        "default_deadline_ms",
        "vllm_metrics",
        "weights_cache_dir",
    }
)
REQUIRED_SETTINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "generate": ("model",),
    "attention": ("num_heads", "num_kv_heads", "head_dim"),
}
# Parameters that the server and its Python backend read themselves.
SERVER_PARAMETERS: Final = frozenset(
    {"EXECUTION_ENV_PATH", "FORCE_CPU_ONLY_INPUT_TENSORS", "TRITON_BATCH_STRATEGY_PATH"}
)
DEFAULT_CPU_MEMORY_MB: Final = 512


class Settings(BaseSettings):
    """What one model serves and how; `load` is the way to get one.

    Fields are named as the parameters in config.pbtxt. An MB is 1,048,576 bytes. A direct call takes keyword
    arguments alone and raises pydantic's ValidationError for a value out of bounds.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True
    )

    task: TaskName
    """What is served: text from a language model, or attention itself as tensors."""
    model: str | None = Field(default=None, min_length=1)
    """The language model: a Hugging Face folder of safetensors, or a GGUF file."""
    device: DeviceName = "auto"
    """Where the model and the cache live; auto takes CUDA where there is a GPU."""
    dtype: DtypeChoice = "auto"
    """The model's dtype; auto is float32 on a CPU, elsewhere what the weights are stored in."""

    cache_dtype: DtypeChoice = "auto"
    """The dtype of raw pages; see `resolved_cache_dtype`."""
    codec: CodecName = "int8"
    """How sealed pages are compressed; auto measures the language model and chooses layer by layer, int4 or wider."""
    page_size: int = Field(default=64, ge=64, le=64)
    """Tokens in a page."""
    sink_pages: int = Field(default=1, ge=0, le=4)
    """First pages of every sequence that stay raw."""
    max_tokens: int | None = Field(default=None, ge=64)
    """Tokens that the cache holds at most, besides the limit in bytes."""
    max_memory_mb: int | None = Field(default=None, ge=1)
    """Memory of the cache; see `memory_limit_bytes`."""
    strategy: StrategyName = "lru"
    """Which cached pages are evicted first."""
    gc_threshold: float = Field(default=1, ge=0, le=1)
    """Share of the pages above which cached and idle ones are evicted as soon as a request ends, ahead of need; at 1
    only what is needed goes."""
    max_sessions: int = Field(default=10_000, ge=1)
    """Sessions kept at most."""

    enable_persistence: bool = False
    """Keep sessions on disk (not in this version)."""
    persistence_path: str | None = Field(default=None, min_length=1)
    """Folder of what is kept on disk."""
    enable_prefetch: bool = False
    """Load pages before they are asked for (not in this version)."""
    prefetch_size: int | None = Field(default=None, ge=1)
    """Pages loaded ahead."""
    redis_url: SecretStr | None = Field(default=None, min_length=1)
    """The remote tier (not in this version); secret, since it may hold a password."""

    max_running_requests: int = Field(default=16, ge=1, le=1_024)
    """Requests that run together at most."""
    max_queued_requests: int = Field(default=128, ge=1)
    """Requests that wait at most; more are refused."""
    max_step_tokens: int = Field(default=512, ge=1, le=8_192)
    """Prompt tokens computed in one step at most."""
    max_model_length: int | None = Field(default=None, ge=1)
    """Tokens of one sequence at most; the model's own limit where it is not given."""
    max_choices: int = Field(default=8, ge=1, le=128)
    """Largest `n` of a request."""
    default_deadline_ms: int | None = Field(default=None, ge=1)
    """Deadline of requests that name none, in milliseconds."""

    num_heads: int | None = Field(default=None, ge=1, le=1_024)
    """Query heads of an attention model."""
    num_kv_heads: int | None = Field(default=None, ge=1, le=1_024)
    """Key and value heads of an attention model; divides `num_heads`."""
    head_dim: int | None = Field(default=None, ge=1, le=1_024)
    """Elements of one head of an attention model."""
    max_history_tokens: int = Field(default=8_192, ge=1)
    """Tokens of one session of an attention model at most."""

    compile: bool = True
    """Compile the CPU path before the model is ready."""
    num_threads: int | None = Field(default=None, ge=1, le=1_024)
    """CPU threads of the model's computations; torch's own choice where it is not given."""
    weights_cache_dir: str | None = Field(default=None, min_length=1)
    """Folder of weights converted once."""
    tenant_secret: SecretStr | None = Field(default=None, min_length=1)
    """Goes into every prefix key."""
    admin_token: SecretStr | None = Field(default=None, min_length=1)
    """What admin operations must present."""
    vllm_metrics: bool = False
    """Publish the metrics under vLLM's names as well."""
    metrics_interval_s: float = Field(default=0.5, ge=0.05, le=60)
    """Seconds between two writes of the metrics."""
    log_format: LogFormat = "text"
    """text: a few lines for people. json: an object a line, one for each request that is over, never its content."""
    trace_url: SecretStr | None = Field(default=None, min_length=1)
    """Receiver of spans by OTLP over HTTP, for requests that the server traces; secret, since it may hold a token."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Takes values from arguments alone: `load` decides what else is read."""
        return (init_settings,)

    @classmethod
    def load(cls, parameters: Mapping[str, str], environment: Mapping[str, str]) -> "Settings":
        """Reads the settings of one model.

        Args:
            parameters: the parameters of config.pbtxt, name to string value.
            environment: the process's environment. An empty variable counts as not set. One that belongs to
                the other task is passed over: two models of one server share an environment.

        Raises:
            ConfigurationError: a name is unknown, or a value is missing, out of bounds, or asks for what this
                version does not have. The text names the setting, its value (unless secret) and what is
                allowed.
        """
        variables = {name: text for name, text in environment.items() if text}
        _check_names(parameters, variables)
        given = {name: text for name, text in parameters.items() if name not in SERVER_PARAMETERS}
        overrides = _read_environment(variables, passed_over=_settings_of_other_task(given.get("task")))
        origins = {name: f"parameter {name}" for name in given}
        origins |= {name: f"environment variable {environment_name(name)}" for name in overrides}
        values = given | overrides
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            text = describe_invalid_values(error, values, origins, cls.model_fields)
        raise ConfigurationError(text)  # outside of the handler: pydantic's error may hold a secret

    @model_validator(mode="after")
    def _check_together(self) -> "Settings":
        refuse_not_available(self._switched_on())
        foreign = self.model_fields_set & _settings_of_other_task(self.task)
        refuse_foreign(self.task, sorted(foreign))
        required = REQUIRED_SETTINGS[self.task]
        refuse_missing(self.task, tuple(name for name in required if getattr(self, name) is None))
        self._check_heads()
        self._check_codec()
        return self

    def _switched_on(self) -> tuple[str, ...]:
        switches = {
            "enable_persistence": self.enable_persistence,
            "enable_prefetch": self.enable_prefetch,
            "redis_url": self.redis_url is not None,
        }
        return tuple(name for name, is_on in switches.items() if is_on)

    def _check_heads(self) -> None:
        if self.num_heads is None or self.num_kv_heads is None or self.num_heads % self.num_kv_heads == 0:
            return
        raise ConfigurationError(
            f"num_kv_heads is {self.num_kv_heads} and num_heads is {self.num_heads}; "
            "allowed: a num_kv_heads that divides num_heads."
        )

    def _check_codec(self) -> None:
        if self.task == "attention" and self.codec == AUTO_CODEC:
            raise ConfigurationError(
                "codec is auto, which measures a language model, and task attention has none; "
                "allowed: none, int8, k8v4, int4, k4v2."
            )

    def resolved_dtype(self, device: Literal["cpu", "cuda"], stored: DtypeName) -> DtypeName:
        """The model's dtype on `device`, given the dtype that its weights are stored in."""
        if self.dtype != "auto":
            return self.dtype
        return "float32" if device == "cpu" else stored

    def resolved_cache_dtype(self, model_dtype: DtypeName) -> DtypeName:
        """The dtype of raw pages; auto is the model's, but float16 for a float32 model with a lossy codec."""
        if self.cache_dtype != "auto":
            return self.cache_dtype
        return "float16" if self.codec != "none" and model_dtype == "float32" else model_dtype

    def memory_limit_bytes(self, device: Literal["cpu", "cuda"]) -> int | None:
        """Bytes that the cache may take; None on CUDA without a setting, where free memory decides."""
        if self.max_memory_mb is not None:
            return self.max_memory_mb * 2**20
        return DEFAULT_CPU_MEMORY_MB * 2**20 if device == "cpu" else None

    def describe(self) -> dict[str, str | int | float | bool | None]:
        """Every setting of this task by name, secrets only as "set" or None."""
        other = _settings_of_other_task(self.task)
        values = {name: getattr(self, name) for name in type(self).model_fields if name not in other}
        return {name: "set" if isinstance(value, SecretStr) else value for name, value in values.items()}


def environment_name(setting: str) -> str:
    """The environment variable of a setting that may come from there."""
    return ENVIRONMENT_NAMES.get(setting, ENVIRONMENT_PREFIX + setting.upper())


def environment_settings() -> dict[str, str]:
    """Environment variable to setting, for all that may come from there."""
    return {environment_name(name): name for name in Settings.model_fields if name not in MODEL_SETTINGS}


def _settings_of_other_task(task: str | None) -> frozenset[str]:
    return {"generate": ATTENTION_SETTINGS, "attention": GENERATE_SETTINGS}.get(task or "", frozenset())


def _check_names(parameters: Mapping[str, str], variables: Mapping[str, str]) -> None:
    known = environment_settings()
    refuse_unknown("parameter", set(parameters) - SERVER_PARAMETERS, Settings.model_fields)
    ours = {name for name in variables if name.startswith(ENVIRONMENT_PREFIX)}
    refuse_unknown("environment variable", ours, known)


def _read_environment(variables: Mapping[str, str], passed_over: frozenset[str]) -> dict[str, str]:
    known = {name: setting for name, setting in environment_settings().items() if setting not in passed_over}
    source = EnvSettingsSource(Settings, env_prefix=ENVIRONMENT_PREFIX, case_sensitive=False)
    source.env_vars = {
        f"{ENVIRONMENT_PREFIX}{known[name]}".lower(): text for name, text in variables.items() if name in known
    }
    return source()
