"""What a model's pages look like: each layer's codec, and what keys are encoded by.

Where the settings leave something to the model, it is measured on a text of ours. Knows what follows from settings and
measurements; neither memory nor who reads the pages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from folio_backend.cache.prefix_key import digest_of
from folio_backend.calibration_text import CALIBRATION_TEXT
from folio_backend.codec_choice import measure_codecs
from folio_backend.config import AUTO_CODEC
from folio_backend.model_check import head_dim, max_positions, num_kv_heads
from folio_backend.query_calibration import LONGEST_HISTORY, measure_key_guide
from folio_kernels.codecs import Codec, codec_named
from folio_kernels.key_guide import STAGES
from folio_kernels.layout import PAGE_SIZE
from folio_kernels.mixed_pool import AnyLayout, layout_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from folio_backend.config import Settings


@dataclass(frozen=True)
class PageFormat:
    """The shape of pages and how they are written.

    Attributes:
        layout: the shape.
        key_guide: as `PagePool` has it; None where no layer's keys have so few bits.
    """

    layout: AnyLayout
    key_guide: torch.Tensor | None

    def digest(self, model: PreTrainedModel, sink_pages: int) -> bytes:
        """Digest of everything but weights and tokens that changes a page's bytes.

        What was measured is not in it, but what it was measured on: the same weights measure the same, but for the last
        bits that differ between machines in every key as well.
        """
        text = model.config.get_text_config()
        return digest_of(
            model_dtype=model.dtype,
            cache_dtype=self.layout.raw_dtype,
            codecs=self.layout.codecs,
            page_size=PAGE_SIZE,
            sink_pages=sink_pages,
            key_guide="nearest" if self.key_guide is None else (CALIBRATION_TEXT, LONGEST_HISTORY, STAGES),
            rope=getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None),
            retention="all",
            adapter="none",
        )


def page_format(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Settings, progress: Callable[[str], None]
) -> PageFormat:
    """What the settings say, and where they leave it open, what the model shows.

    Args:
        model: whose attention may be left set to ours.
        tokenizer: the model's.
        settings: codec and dtypes.
        progress: told in a sentence what is measured and what was found.
    """
    model_dtype = str(model.dtype).removeprefix("torch.")
    cache_dtype = getattr(torch, settings.resolved_cache_dtype(model_dtype))  # type: ignore[arg-type]
    is_auto = settings.codec == AUTO_CODEC
    codecs = (codec_named("int4" if is_auto else settings.codec),) * int(
        model.config.get_text_config().num_hidden_layers
    )
    key_guide = None
    if _are_guided(codecs):
        token_ids = tokenizer(CALIBRATION_TEXT).input_ids[: max_positions(model.config)]
        progress("measuring the queries that keys are encoded for")
        key_guide = measure_key_guide(model, token_ids)
        if is_auto:
            progress("measuring what each codec changes in each layer")
            choice = measure_codecs(model, token_ids, settings.sink_pages, cache_dtype, key_guide)
            progress(choice.describe())
            codecs = choice.codecs
    layout = layout_of(codecs, num_kv_heads(model.config), head_dim(model.config), cache_dtype)
    return PageFormat(layout, key_guide if _are_guided(codecs) else None)


def _are_guided(codecs: Sequence[Codec]) -> bool:
    return any(codec.guides_keys for codec in codecs)
