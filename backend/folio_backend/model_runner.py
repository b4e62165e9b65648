"""Runs a Hugging Face decoder whose attention reads and writes the page pool.

The model is any that transformers loads and `model_check` accepts.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from folio_backend.attention_operator import AttentionOperator, number_layers
from folio_backend.step import StepInput
from folio_kernels.operations import ALL_LAYERS, Operations
from folio_kernels.pool import warm_up_batch


class ModelRunner:
    """A model over one pool.

    Args:
        model: a causal LM, in evaluation mode; its attention implementation is set to ours.
        operations: the operations on the pool that holds its keys and values.
    """

    def __init__(self, model: PreTrainedModel, operations: Operations) -> None:
        self._attention = AttentionOperator(operations)
        number_layers(model)
        model.set_attn_implementation(self._attention.name)
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
        with self._attention.running(step):
            output = self.model(
                input_ids=step.token_ids.unsqueeze(0).to(device),
                position_ids=step.positions.unsqueeze(0).to(device),
                logits_to_keep=step.logits_rows.to(device),
                use_cache=False,
            )
        if len(step.seal_after_raw):
            self.operations.seal(ALL_LAYERS, step.seal_after_raw, step.seal_after_sealed)
        logits: torch.Tensor = output.logits[0].float()
        return logits


def _warm_up_step(num_tokens: int) -> StepInput:
    """One sequence of so many tokens, in the pool's first raw page."""
    nothing = torch.empty(0, dtype=torch.int64)
    return StepInput(
        token_ids=torch.zeros(num_tokens, dtype=torch.int64),
        positions=torch.arange(num_tokens),
        attention=warm_up_batch(num_tokens),
        logits_rows=torch.tensor([num_tokens - 1]),
        seal_after_raw=nothing,
        seal_after_sealed=nothing,
    )
