"""What an engine is made of.

A value that the loader fills in; decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from folio_backend.admission import Admission
from folio_backend.cache.kv_cache import KVCache
from folio_backend.model_runner import ModelRunner
from folio_backend.scheduler import Scheduler
from folio_backend.sessions import SessionRegistry
from folio_backend.text_tokenizer import TextTokenizer


@dataclass(frozen=True)
class EngineParts:
    """What an engine is made of."""

    runner: ModelRunner
    cache: KVCache
    scheduler: Scheduler
    sessions: SessionRegistry
    admission: Admission
    tokenizer: TextTokenizer
    max_model_tokens: int
    vocabulary_size: int
