"""Compiles a model's layers, so that a step costs its matrices and little besides.

Uncompiled, a small model on a CPU spends half of a step between its matrices. All layers share what is compiled for
the first. Knows layers by their number alone, no architecture by name; attention itself is one operator to it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException
from transformers import PreTrainedModel


def compile_layers(model: PreTrainedModel, warm_up: Callable[[], None], progress: Callable[[str], None]) -> None:
    """Compiles the model's layers and runs the warm-up; a model that cannot be compiled runs as it is, which is said.

    Args:
        model: a causal LM whose attention is an operator.
        warm_up: runs every shape there is.
        progress: told in a sentence what it costs where compilation fails.
    """
    layers = _layers_of(model)
    for layer in layers:
        _store_columns(layer)
        layer.compile(dynamic=True)
    try:
        warm_up()
    except TorchDynamoException as error:
        for layer in layers:
            layer._compiled_call_impl = None  # noqa: SLF001 - what `compile` sets, and nothing else unsets
        torch._dynamo.reset()  # noqa: SLF001 - public by its documentation
        progress(f"the model's layers cannot be compiled ({type(error).__name__}) and run up to twice as slowly")
        warm_up()


def _store_columns(layer: nn.Module) -> None:
    """Stores matrices by column: for 8 to 64 rows at once a CPU's library multiplies a tenth to a fifth faster so."""
    for module in layer.modules():
        if isinstance(module, nn.Linear) and module.weight.device.type == "cpu":
            module.weight.data = module.weight.data.t().contiguous().t()


def _layers_of(model: PreTrainedModel) -> list[nn.Module]:
    """The decoder's layers; none where the model keeps them in another way than a list of them all."""
    num_layers = int(model.config.get_text_config().num_hidden_layers)
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == num_layers]
    return list(lists[0]) if len(lists) == 1 else []
