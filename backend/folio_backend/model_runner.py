"""Runs a Hugging Face decoder whose attention reads and writes the page pool.

The model is any that transformers loads and `model_check` accepts. A step travels through the model's forward as a
keyword argument to our attention function, so nothing here is global but that function's registration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel

from folio_backend.step import StepInput
from folio_kernels.operations import ALL_LAYERS, Operations
from folio_kernels.pool import AttentionBatch

ATTENTION_NAME = "folio"
"""The name under which transformers knows our attention."""

STEP_ARGUMENT = "folio_step"
"""The keyword argument in which a step travels."""

IGNORED_ARGUMENTS = frozenset({"position_ids", "position_embeddings", "use_cache", "cache_position", "is_causal"})
"""What models pass along that paged attention has in its own form, or has no use for."""


@dataclass(frozen=True)
class AttentionStep:
    """What our attention function needs of a step."""

    operations: Operations
    input: StepInput


@torch.compiler.disable  # type: ignore[untyped-decorator] # pages are chosen in Python, by step
def folio_attention(  # noqa: PLR0917 - transformers calls it so
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **arguments: Any,
) -> tuple[torch.Tensor, None]:
    """Attention over the page pool, in transformers' form.

    Args:
        module: the attention layer; its `layer_idx` is its layer in the pool.
        query: `[1, heads, tokens, head_dim]`, after RoPE.
        key: `[1, kv_heads, tokens, head_dim]`, after RoPE.
        value: as the key.
        attention_mask: None; a model that builds one needs something that pages do not offer.
        scaling: what scores are multiplied by.
        dropout: 0.
        arguments: the step, and nothing else that would change the result.

    Returns:
        `[1, tokens, heads, head_dim]`, and no weights.

    Raises:
        ValueError: the model asks for something that would be ignored silently; the text names it.
    """
    step: AttentionStep | None = arguments.pop(STEP_ARGUMENT, None)
    if step is None:
        raise ValueError(f"attention layer {module.layer_idx} is not given the arguments of the model's forward")
    _refuse_unknown(module, {**arguments, "attention_mask": attention_mask, "dropout": dropout})
    layer, batch = int(module.layer_idx), step.input.attention  # type: ignore[arg-type]
    operations = step.operations
    operations.append(layer, key[0].transpose(0, 1), value[0].transpose(0, 1), batch.slots)
    if len(batch.seal_raw):
        operations.seal(slice(layer, layer + 1), batch.seal_raw, batch.seal_sealed)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return operations.attend(layer, query[0].transpose(0, 1), batch, scale).unsqueeze(0), None


def _refuse_unknown(module: nn.Module, arguments: Mapping[str, Any]) -> None:
    """Refuses arguments that would change the result if they were heeded."""
    given = (name for name, value in arguments.items() if isinstance(value, torch.Tensor) or value)
    unknown = sorted(name for name in given if name not in IGNORED_ARGUMENTS)
    if unknown:
        raise ValueError(f"attention layer {module.layer_idx} is called with {', '.join(unknown)}")


class ModelRunner:
    """A model over one pool.

    Args:
        model: a causal LM, in evaluation mode; its attention implementation is set to ours.
        operations: the operations on the pool that holds its keys and values.
    """

    def __init__(self, model: PreTrainedModel, operations: Operations) -> None:
        AttentionInterface.register(ATTENTION_NAME, folio_attention)
        model.set_attn_implementation(ATTENTION_NAME)
        self.model = model
        self.operations = operations

    def warm_up(self) -> None:
        """Runs a step of several tokens and one of a single token, the two kinds that a compiler tells apart.

        What it writes into the pool means nothing: call it before the pool serves anybody.
        """
        for num_tokens in (3, 1):
            self.run(_warm_up_step(num_tokens))

    @property
    def vocabulary_size(self) -> int:
        """Entries of a row of logits."""
        return int(self.model.config.get_text_config().vocab_size)

    @torch.inference_mode()
    def run(self, step: StepInput) -> torch.Tensor:
        """Computes one step.

        Returns:
            Logits float32 `[rows, vocabulary]` of the tokens asked for.
        """
        device = self.model.device
        output = self.model(
            input_ids=step.token_ids.unsqueeze(0).to(device),
            position_ids=step.positions.unsqueeze(0).to(device),
            logits_to_keep=step.logits_rows.to(device),
            use_cache=False,
            **{STEP_ARGUMENT: AttentionStep(self.operations, step)},
        )
        if len(step.seal_after_raw):
            self.operations.seal(ALL_LAYERS, step.seal_after_raw, step.seal_after_sealed)
        logits: torch.Tensor = output.logits[0].float()
        return logits


def _warm_up_step(num_tokens: int) -> StepInput:
    """One sequence of so many tokens, in the pool's first raw page."""
    positions, nothing = torch.arange(num_tokens), torch.empty(0, dtype=torch.int64)
    no_pages = torch.empty((1, 0), dtype=torch.int32)
    return StepInput(
        token_ids=torch.zeros(num_tokens, dtype=torch.int64),
        positions=positions,
        attention=AttentionBatch(
            query_starts=torch.tensor([0, num_tokens], dtype=torch.int32),
            lengths=torch.tensor([num_tokens], dtype=torch.int32),
            page_tables=no_pages,
            page_kinds=no_pages,
            open_pages=torch.zeros((1, 1), dtype=torch.int32),
            slots=positions,
            seal_raw=nothing,
            seal_sealed=nothing,
        ),
        logits_rows=torch.tensor([num_tokens - 1]),
        seal_after_raw=nothing,
        seal_after_sealed=nothing,
    )
