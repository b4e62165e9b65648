"""Runs a model over whole windows under a page rule: hidden states first, then what their logits say.

Logits of 4,096 tokens would take gigabytes, so they live a few hundred rows at a time, of every codec side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import kl_div, log_softmax, nll_loss
from transformers import AttentionInterface, PreTrainedModel

from .page_rule import PageRule, page_rule_attention

ATTENTION_NAME = "folio_page_rule"
RULE_ARGUMENT = "folio_rule"
LOGITS_ROWS = 512
"""Rows whose logits are held at once: 100 MB with a vocabulary of 49,152."""


@dataclass(frozen=True)
class WindowScores:
    """How one window fares with one codec, averaged over the tokens predicted in it.

    Attributes:
        loss_change: cross-entropy in nats less that over the uncompressed cache.
        kl: divergence in nats of the next token's distribution from the uncompressed cache's.
        top1_agreement: share of tokens whose most likely successor is the same.
    """

    loss_change: float
    kl: float
    top1_agreement: float


def page_rule_layer(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _attention_mask: torch.Tensor | None,
    scaling: float,
    **arguments: Any,
) -> tuple[torch.Tensor, None]:
    """`page_rule_attention` in transformers' form: `[1, heads, tokens, head_dim]` in, tokens before heads out."""
    rule: PageRule = arguments[RULE_ARGUMENT]
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    output = page_rule_attention(query[0].transpose(0, 1), key[0], value[0], rule, scaling, layer=layer)
    return output.unsqueeze(0), None


class TeacherForcing:
    """A model whose attention follows a page rule.

    Args:
        model: a causal LM in evaluation mode, float32, whose logits are its last hidden states times a matrix.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        AttentionInterface.register(ATTENTION_NAME, page_rule_layer)
        model.set_attn_implementation(ATTENTION_NAME)
        self._model = model
        self._head: nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]

    @torch.inference_mode()
    def hidden_states(self, token_ids: torch.Tensor, rule: PageRule) -> torch.Tensor:
        """The last hidden states `[tokens, hidden]` of the tokens `[tokens]`."""
        output = self._model.base_model(input_ids=token_ids.unsqueeze(0), use_cache=False, **{RULE_ARGUMENT: rule})
        states: torch.Tensor = output.last_hidden_state[0]
        return states

    @torch.inference_mode()
    def scores(
        self, token_ids: torch.Tensor, uncompressed: torch.Tensor, by_codec: Mapping[str, torch.Tensor]
    ) -> dict[str, WindowScores]:
        """Compares each codec's hidden states `[tokens, hidden]` with the uncompressed cache's, token by token."""
        sums = {name: torch.zeros(3, dtype=torch.float64) for name in by_codec}
        num_predicted = len(token_ids) - 1
        for start in range(0, num_predicted, LOGITS_ROWS):
            rows = slice(start, min(start + LOGITS_ROWS, num_predicted))
            targets = token_ids[rows.start + 1 : rows.stop + 1]
            expected = self._log_probabilities(uncompressed[rows])
            for name, states in by_codec.items():
                sums[name] += _row_sums(self._log_probabilities(states[rows]), expected, targets)
        return {name: WindowScores(*(total / num_predicted).tolist()) for name, total in sums.items()}

    def _log_probabilities(self, states: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._head(states)
        return log_softmax(logits, -1)


def _row_sums(found: torch.Tensor, expected: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Change of loss, divergence and agreements, summed over rows: float64 `[3]`."""
    loss = nll_loss(found, targets, reduction="none").double() - nll_loss(expected, targets, reduction="none").double()
    divergence = kl_div(found, expected, reduction="none", log_target=True).sum(-1)
    agrees = found.argmax(-1) == expected.argmax(-1)
    return torch.stack([part.double().sum() for part in (loss, divergence, agrees)])
