"""A page as the cache sees it: an id in one of the two pools, who holds it, and its place among the prefixes.

Knows nothing of the bytes inside.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from folio_backend.cache.page_table import PageTable


class PageKind(enum.Enum):
    """Which pool a page lies in."""

    RAW = "raw"
    SEALED = "sealed"


class PageState(enum.Enum):
    """What a page is doing; the states' counts sum to the pool."""

    FREE = "free"
    CACHED = "cached"
    HELD = "held"
    LOADING = "loading"


@dataclass(eq=False)
class Page:
    """One page of one pool.

    Attributes:
        kind: the pool it lies in.
        page_id: its index there.
        num_holders: page tables that hold it.
        key: its prefix key while the index points at it.
        parent, children: its neighbours in the index: the page of the tokens before, and those of the tokens after.
        idle_table: the table of an idle session whose open page this is; such a page may be taken.
        last_used: the tick of its last use.
    """

    kind: PageKind
    page_id: int
    num_holders: int = 0
    key: bytes | None = None
    parent: Page | None = None
    children: set[Page] = field(default_factory=set)
    idle_table: PageTable | None = None
    last_used: int = 0

    @property
    def is_evictable(self) -> bool:
        """Whether it may be taken now: an idle session's open page, or cached with nothing cached behind it."""
        if self.idle_table is not None:
            return True
        return self.num_holders == 0 and self.key is not None and not self.children

    @property
    def state(self) -> PageState:
        """Free, cached or held, by what refers to it."""
        if self.num_holders:
            return PageState.HELD
        return PageState.FREE if self.key is None else PageState.CACHED
