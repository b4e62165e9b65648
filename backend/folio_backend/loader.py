"""Builds an engine from settings: model, pool, warm-up, and everything between.

Knows the order in which things must come up and what refuses to load. Does not know the server.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from folio_backend.admission import Admission, AdmissionLimits
from folio_backend.cache.eviction import STRATEGIES
from folio_backend.cache.kv_cache import KVCache
from folio_backend.cache.page_store import PageCount, PageStore
from folio_backend.cache.prefix_key import PrefixKeys
from folio_backend.engine import Engine
from folio_backend.engine_parts import EngineParts
from folio_backend.errors import ConfigurationError
from folio_backend.model_check import check_by_trial, check_configuration, max_positions
from folio_backend.model_compilation import compile_layers
from folio_backend.model_runner import ModelRunner
from folio_backend.page_format import PageFormat, page_format
from folio_backend.pool_size import num_pages_within
from folio_backend.scheduler import Scheduler
from folio_backend.sessions import SessionRegistry
from folio_backend.text_tokenizer import TextTokenizer
from folio_backend.weights import resolve_model, weights_digest
from folio_kernels.mixed_pool import AnyPool, pool_of
from folio_kernels.operations import operations_for

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from folio_backend.config import Settings

Progress = Callable[[str], None]

DEFAULT_MODEL_TOKENS = 8192
"""The longest history of a model that states no limit of its own."""


def load_engine(settings: Settings, device: Literal["cpu", "cuda"], progress: Progress) -> Engine:
    """Loads a model and everything that serves it; the engine's thread is not started yet.

    Args:
        settings: what to serve and how.
        device: where.
        progress: told in a sentence what is being done, since some of it takes a minute.

    Raises:
        ConfigurationError: a setting, or the model itself, cannot be served.
    """
    assert settings.model is not None
    cache_dir = None if settings.weights_cache_dir is None else Path(settings.weights_cache_dir)
    folder = resolve_model(settings.model, cache_dir, progress)
    model = _load_model(folder, settings, device, progress)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    pages = page_format(model, tokenizer, settings, progress)
    pool = _allocate(pages, settings, device)
    operations = operations_for(pool, compiled=settings.compile)
    names = ", ".join(sorted({codec.name for codec in pages.layout.codecs}))
    progress(f"compiling attention for codec {names}" if settings.compile else "compilation is off")
    operations.warm_up(int(model.config.get_text_config().num_attention_heads))
    runner = ModelRunner(model, operations)
    if settings.compile:
        compile_layers(model, runner.warm_up, progress)
    num_pages = PageCount(pool.num_raw_pages, pool.num_sealed_pages)
    store = PageStore(num_pages, STRATEGIES[settings.strategy](), settings.gc_threshold)
    cache = KVCache(store, settings.sink_pages)
    prefix_keys = _prefix_keys(weights_digest(folder), pages.digest(model, settings.sink_pages), settings)
    return Engine(_parts(runner, cache, settings, TextTokenizer(tokenizer, _eos_ids(model)), prefix_keys))


def _load_model(
    folder: Path, settings: Settings, device: Literal["cpu", "cuda"], progress: Progress
) -> PreTrainedModel:
    # What the configuration tells is refused before the weights are read.
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    check_configuration(config)
    _max_model_tokens(config, settings)
    progress(f"loading {folder.name}")
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", local_files_only=True, use_safetensors=True
    )
    stored = str(model.dtype).removeprefix("torch.")
    dtype = getattr(torch, settings.resolved_dtype(device, stored))  # type: ignore[arg-type]
    model.to(device=device, dtype=dtype).eval()  # type: ignore[call-arg]
    progress("comparing paged attention with the model's own")
    check_by_trial(model)
    return model


def _allocate(pages: PageFormat, settings: Settings, device: Literal["cpu", "cuda"]) -> AnyPool:
    limit_bytes = settings.memory_limit_bytes(device)
    if limit_bytes is None:
        limit_bytes = int(0.8 * torch.cuda.mem_get_info()[0])
    count = num_pages_within(
        pages.layout,
        limit_bytes,
        max_running=settings.max_running_requests,
        max_step_tokens=settings.max_step_tokens,
        max_tokens=settings.max_tokens,
    )
    return pool_of(pages.layout, count.raw, count.sealed, device, pages.key_guide)


def _prefix_keys(weights: bytes, pages: bytes, settings: Settings) -> Callable[[str], PrefixKeys]:
    """Tenant to what derives its pages' keys, from the digests of the weights and of how pages are written."""
    secret = b"" if settings.tenant_secret is None else settings.tenant_secret.get_secret_value().encode()
    return lambda tenant: PrefixKeys(secret + b"\0" + tenant.encode(), weights, pages)


def _parts(
    runner: ModelRunner,
    cache: KVCache,
    settings: Settings,
    tokenizer: TextTokenizer,
    prefix_keys: Callable[[str], PrefixKeys],
) -> EngineParts:
    config = runner.model.config
    limits = AdmissionLimits(
        max_model_tokens=_max_model_tokens(config, settings),
        max_queued=settings.max_queued_requests,
        max_running=settings.max_running_requests,
    )
    sessions = SessionRegistry(cache, settings.max_sessions)
    return EngineParts(
        runner=runner,
        cache=cache,
        scheduler=Scheduler(cache, settings.max_running_requests, settings.max_step_tokens),
        sessions=sessions,
        admission=Admission(cache, sessions, tokenizer, prefix_keys, limits),
        tokenizer=tokenizer,
        max_model_tokens=limits.max_model_tokens,
        vocabulary_size=int(config.get_text_config().vocab_size),
    )


def _max_model_tokens(config: PreTrainedConfig, settings: Settings) -> int:
    own = max_positions(config)
    chosen = settings.max_model_length
    if own is not None and chosen is not None and chosen > own:
        raise ConfigurationError(f"max_model_length is {chosen}; allowed: at most the model's own {own}.")
    return int(chosen or own or DEFAULT_MODEL_TOKENS)


def _eos_ids(model: PreTrainedModel) -> tuple[int, ...]:
    given: int | list[int] | None = getattr(model.generation_config, "eos_token_id", None)
    if given is None:
        return ()
    return tuple(given) if isinstance(given, list) else (int(given),)
