"""Paged attention as one operator of torch: what a compiler of the model's layers sees and looks no deeper into.

Knows transformers' form of an attention function, and which step is running. Does not know the model.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import AttentionInterface

from folio_backend.step import StepInput
from folio_kernels.operations import Operations

IGNORED_ARGUMENTS = frozenset({"position_ids", "position_embeddings", "use_cache", "cache_position", "is_causal"})
"""What models pass along that paged attention has in its own form, or has no use for."""

SCHEMA = "(Tensor query, Tensor key, Tensor value, Tensor layer, float scale) -> Tensor"

AttentionFunction = Callable[..., tuple[torch.Tensor, None]]


class AttentionOperator:
    """Attention over one pool, registered with torch and transformers under a name of its own.

    Args:
        operations: the operations on the pool.

    Attributes:
        name: what transformers knows it by.
    """

    _numbers: ClassVar[Iterator[int]] = itertools.count()

    def __init__(self, operations: Operations) -> None:
        self.name = f"folio_{next(self._numbers)}"
        self._step: StepInput | None = None
        self._operations = operations
        self._library = torch.library.Library(self.name, "DEF")
        self._library.define(f"attend{SCHEMA}")
        self._library.impl("attend", _weakly(self._attend), "CompositeExplicitAutograd")
        torch.library.register_fake(f"{self.name}::attend", _output_like, lib=self._library)
        operator = getattr(torch.ops, self.name).attend.default
        AttentionInterface.register(self.name, _attention_function(operator))

    @contextmanager
    def running(self, step: StepInput) -> Iterator[None]:
        """While it lasts, the model's attention is that of the step."""
        self._step = step
        try:
            yield
        finally:
            self._step = None

    def _attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layer: torch.Tensor, scale: float
    ) -> torch.Tensor:
        assert self._step is not None
        batch, index, operations = self._step.attention, int(layer), self._operations
        operations.append(index, key[0].transpose(0, 1), value[0].transpose(0, 1), batch.slots)
        if len(batch.seal_raw):
            operations.seal(slice(index, index + 1), batch.seal_raw, batch.seal_sealed)
        return operations.attend(index, query[0].transpose(0, 1), batch, scale).unsqueeze(0).contiguous()


def number_layers(model: nn.Module) -> None:
    """Gives every attention layer its number as a tensor: as an integer it would be compiled in, layer by layer."""
    for module in model.modules():
        if isinstance(getattr(module, "layer_idx", None), int):
            module.folio_layer = torch.tensor(module.layer_idx)


def _weakly(method: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The method without its object: a registration that ends with the object must not keep it alive."""
    reference = weakref.WeakMethod(method)

    def call(*arguments: torch.Tensor | float) -> torch.Tensor:
        living = reference()
        assert living is not None
        return living(*arguments)

    return call


def _output_like(
    query: torch.Tensor,
    key: torch.Tensor,  # noqa: ARG001 - the operator's
    value: torch.Tensor,  # noqa: ARG001
    layer: torch.Tensor,  # noqa: ARG001
    scale: float,  # noqa: ARG001
) -> torch.Tensor:
    batch, heads, tokens, head_dim = query.shape
    return query.new_empty((batch, tokens, heads, head_dim))


def _attention_function(operator: torch._ops.OpOverload) -> AttentionFunction:
    """The operator in transformers' form."""

    def attend(  # noqa: PLR0917 - transformers calls it so
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        **arguments: Any,
    ) -> tuple[torch.Tensor, None]:
        """Attention over the page pool.

        Args:
            module: the attention layer, numbered by `number_layers`.
            query: `[1, heads, tokens, head_dim]`, after RoPE.
            key: `[1, kv_heads, tokens, head_dim]`, after RoPE.
            value: as the key.
            attention_mask: None; a model that builds one needs something that pages do not offer.
            scaling: what scores are multiplied by.
            dropout: 0.
            arguments: nothing that would change the result.

        Returns:
            `[1, tokens, heads, head_dim]`, and no weights.

        Raises:
            ValueError: the model asks for something that would be ignored silently; the text names it.
        """
        _refuse_unknown(module, {**arguments, "attention_mask": attention_mask, "dropout": dropout})
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return operator(query, key, value, module.folio_layer, scale), None

    return attend


def _refuse_unknown(module: nn.Module, arguments: Mapping[str, Any]) -> None:
    """Refuses arguments that would change the result if they were heeded."""
    given = (name for name, value in arguments.items() if isinstance(value, torch.Tensor) or value)
    unknown = sorted(name for name in given if name not in IGNORED_ARGUMENTS)
    if unknown:
        raise ValueError(f"attention layer {module.layer_idx} is called with {', '.join(unknown)}")
