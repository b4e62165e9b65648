"""Whether a model survives being served from pages: refusals by configuration, then a trial by numbers.

Knows what flattened rows and paged attention cannot express. Does not know any architecture by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from folio_backend.cache.eviction import LeastRecentlyUsed
from folio_backend.cache.kv_cache import KVCache
from folio_backend.cache.page_store import PageCount, PageStore
from folio_backend.cache.page_table import PageTable
from folio_backend.errors import ConfigurationError
from folio_backend.model_runner import ModelRunner
from folio_backend.step import StepSequence, build_step
from folio_kernels.codecs import CODECS
from folio_kernels.layout import HEAD_DIMS, PageLayout
from folio_kernels.operations import operations_for
from folio_kernels.pool import AttentionBatch, PagePool

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

BATCH_DEPENDENT_ROPE = frozenset({"dynamic", "longrope"})
"""RoPE variants whose frequencies depend on the longest position of the whole batch."""

TRIAL_LENGTHS = (101, 70)
"""Tokens of the trial's two sequences: neither a multiple of the other's pages, both reaching a second page."""

TRIAL_CUT = 37
"""Tokens of each sequence's first chunk."""

TRIAL_TOLERANCE = {torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 3e-1}
"""Largest difference between logits, relative to their spread: what summing in another order may cost."""


def check_configuration(config: PreTrainedConfig) -> None:
    """Refuses by name what pages cannot serve.

    Raises:
        ConfigurationError: hybrids and sliding windows, RoPE that looks at the whole batch, unequal keys and values, or
            a head size without kernels.
    """
    text = config.get_text_config()
    kinds = sorted({str(kind) for kind in getattr(text, "layer_types", None) or ()} - {"full_attention"})
    if kinds:
        raise ConfigurationError(f"The model has layers of kind {', '.join(kinds)}; allowed: full_attention alone.")
    if getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True):
        raise ConfigurationError(f"The model has a sliding window of {text.sliding_window}; allowed: none.")
    for rope_type in _rope_types(text):
        if rope_type in BATCH_DEPENDENT_ROPE:
            raise ConfigurationError(
                f"The model's RoPE is of type {rope_type}, which depends on the whole batch's positions; "
                f"allowed: any but {', '.join(sorted(BATCH_DEPENDENT_ROPE))}."
            )
    value_dim = getattr(text, "v_head_dim", None)
    if value_dim is not None and value_dim != head_dim(config):
        raise ConfigurationError(f"The model's keys and values differ in size ({head_dim(config)}, {value_dim}).")
    if head_dim(config) not in HEAD_DIMS:
        raise ConfigurationError(f"The model's head_dim is {head_dim(config)}; allowed: {HEAD_DIMS}.")


def _rope_types(config: PreTrainedConfig) -> list[str]:
    parameters: dict[str, Any] = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    of_layer_types = [value for value in parameters.values() if isinstance(value, dict)]
    return [str(each.get("rope_type", each.get("type", "default"))) for each in of_layer_types or [parameters]]


def head_dim(config: PreTrainedConfig) -> int:
    """Elements of one head."""
    text = config.get_text_config()
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def max_positions(config: PreTrainedConfig) -> int | None:
    """The longest history that the model knows positions of; None if it does not say."""
    longest: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return longest


def num_kv_heads(config: PreTrainedConfig) -> int:
    """Heads of keys and values."""
    text = config.get_text_config()
    return int(getattr(text, "num_key_value_heads", None) or text.num_attention_heads)


@torch.inference_mode()
def check_by_trial(model: PreTrainedModel) -> None:
    """Runs two ragged sequences in one row, cut into two chunks, uncompressed, against the model's own forward.

    Leaves the model's attention set to ours.

    Raises:
        ConfigurationError: a layer does not call our attention, calls it with arguments that it does not know, or the
            logits differ.
    """
    vocabulary_size = int(model.config.get_text_config().vocab_size)
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(vocabulary_size, (length,), generator=generator) for length in TRIAL_LENGTHS]
    own = [model(prompt[None].to(model.device), use_cache=False).logits[0, -1].float().cpu() for prompt in prompts]
    operations = _RecordingOperations(_trial_pool(model))
    try:
        paged = _run_paged(ModelRunner(model, operations), [prompt.tolist() for prompt in prompts])
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ConfigurationError(f"The model cannot run on pages: {error}") from error
    num_layers = int(model.config.get_text_config().num_hidden_layers)
    if operations.layers != set(range(num_layers)):
        missing = sorted(set(range(num_layers)) - operations.layers)
        raise ConfigurationError(f"The model's layers {missing} do not call the attention they are given.")
    for length, expected, got in zip(TRIAL_LENGTHS, own, paged, strict=True):
        difference = float((expected - got.cpu()).abs().max() / (expected.max() - expected.min()))
        if not difference <= TRIAL_TOLERANCE[model.dtype]:
            raise ConfigurationError(
                f"On {length} tokens the model's logits from pages differ from its own by {difference:.2g} of their "
                f"spread; allowed: {TRIAL_TOLERANCE[model.dtype]}. Its tokens seem to mix outside of attention."
            )


def _trial_pool(model: PreTrainedModel) -> PagePool:
    config = model.config
    layout = PageLayout(
        num_layers=int(config.get_text_config().num_hidden_layers),
        num_kv_heads=num_kv_heads(config),
        head_dim=head_dim(config),
        codec=CODECS["none"],
        raw_dtype=model.dtype,
    )
    return PagePool(layout, num_raw_pages=8, num_sealed_pages=4, device=model.device)


def _run_paged(runner: ModelRunner, prompts: list[list[int]]) -> torch.Tensor:
    """The last logits of each prompt, computed in two steps of one row each."""
    cache = KVCache(PageStore(PageCount(8, 4), LeastRecentlyUsed()), sink_pages=0)
    tables = [PageTable(prefix_keys=None) for _ in prompts]
    logits = torch.empty(0)
    for start, ends in ((0, [TRIAL_CUT] * len(prompts)), (TRIAL_CUT, [len(prompt) for prompt in prompts])):
        sequences = []
        for table, prompt, end in zip(tables, prompts, ends, strict=True):
            cache.extend(table, end - start)
            sequences.append(StepSequence(table, prompt[start:end], wants_logits=True))
        logits = runner.run(build_step(sequences))
        for table, end in zip(tables, ends, strict=True):
            cache.commit(table, (), end - start)
    return logits


class _RecordingOperations:
    """The pool's own operations, uncompiled, remembering which layers used them."""

    def __init__(self, pool: PagePool) -> None:
        self.pool = pool
        self.layers: set[int] = set()
        self._operations = operations_for(pool, compiled=False)

    def append(self, layer: int, key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor) -> None:
        self.layers.add(layer)
        if key.shape != value.shape:
            raise ValueError(f"layer {layer} has keys {tuple(key.shape)} and values {tuple(value.shape)}")
        self._operations.append(layer, key, value, slots)

    def seal(self, layers: slice, raw_pages: torch.Tensor, sealed_pages: torch.Tensor) -> None:
        self._operations.seal(layers, raw_pages, sealed_pages)

    def attend(self, layer: int, query: torch.Tensor, batch: AttentionBatch, scale: float) -> torch.Tensor:
        return self._operations.attend(layer, query, batch, scale)

    def warm_up(self, num_heads: int) -> None:
        self._operations.warm_up(num_heads)
