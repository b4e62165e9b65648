"""A sequence's or a session's list of pages.

Knows which pages serve which tokens; not how pages are found, taken or freed (`kv_cache`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from folio_backend.cache.page import Page
from folio_backend.cache.prefix_key import ROOT_KEY, PrefixKeys
from folio_kernels.layout import PAGE_SIZE


@dataclass(eq=False)
class PageTable:
    """The pages behind a history of tokens.

    A running table holds its pages. A parked one, an idle session's, keeps the keys of its full pages and holds at
    most the open page, which may be taken from it.

    Attributes:
        prefix_keys: what derives the keys of its owner's pages; None where tokens have no ids: nothing is shared.
        is_running: running or parked.
        pages: the stored pages of the first tokens, one per `PAGE_SIZE` of them, all held; none while parked.
        open_page: the raw page of the tokens behind those, held; None when there are none.
        num_open_tokens: how many of the open page's tokens are computed.
        keys: prefix keys of the full pages: while running as far as tokens are known, while parked as far as they
            were computed.
        filling: raw pages of a running step, one for each page that the step touches; the first may be `open_page`.
        sealing: the sealed pages that the step's full pages become, by page index.
    """

    prefix_keys: PrefixKeys | None
    is_running: bool = False
    pages: list[Page] = field(default_factory=list)
    open_page: Page | None = None
    num_open_tokens: int = 0
    keys: list[bytes] = field(default_factory=list)
    filling: list[Page] = field(default_factory=list)
    sealing: dict[int, Page] = field(default_factory=dict)

    @property
    def num_computed_tokens(self) -> int:
        """Tokens whose keys and values the table's pages hold."""
        return len(self.pages) * PAGE_SIZE + self.num_open_tokens

    def extend_keys(self, token_ids: Sequence[int], num_tokens: int) -> None:
        """Derives the keys of the full pages among the first `num_tokens` tokens."""
        if self.prefix_keys is None:
            return
        for index in range(len(self.keys), num_tokens // PAGE_SIZE):
            parent = self.keys[index - 1] if index else ROOT_KEY
            self.keys.append(self.prefix_keys.key(parent, token_ids[index * PAGE_SIZE : (index + 1) * PAGE_SIZE]))

    def held_pages(self) -> list[Page]:
        """Every page that the table holds, each once."""
        held = list(self.pages)
        if self.open_page is not None:
            held.append(self.open_page)
        held.extend(page for page in self.filling if page is not self.open_page)
        held.extend(self.sealing.values())
        return held
