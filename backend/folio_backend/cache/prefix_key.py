"""Prefix keys: what identifies a page in every tier.

A key is SHA-256 over tagged, length-prefixed fields, so that no two different sets of fields share an encoding: the
tenant's secret, the digest of the weights, the digest of everything else that changes bytes, the parent's key and the
page's token ids.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

ROOT_KEY = b""
"""The parent key of a first page."""


class PrefixKeys:
    """Derives the keys of one tenant's pages for one model in one format.

    Args:
        tenant_secret: what keeps tenants apart; never leaves this object.
        weights_digest: digest of the model's weights.
        format_digest: digest of everything else that changes a page's bytes.
    """

    def __init__(self, tenant_secret: bytes, weights_digest: bytes, format_digest: bytes) -> None:
        self._prefix = hashlib.sha256()
        for tag, value in (
            (b"tenant", tenant_secret),
            (b"weights", weights_digest),
            (b"format", format_digest),
        ):
            self._prefix.update(_tagged(tag, value))

    def key(self, parent: bytes, token_ids: Sequence[int]) -> bytes:
        """The key, 32 bytes, of the page holding `token_ids` after the page whose key is `parent`."""
        digest = self._prefix.copy()
        digest.update(_tagged(b"parent", parent))
        digest.update(_tagged(b"tokens", array("q", token_ids).tobytes()))
        return digest.digest()


def digest_of(**fields: object) -> bytes:
    """Digest of named settings; their text forms decide."""
    digest = hashlib.sha256()
    for name in sorted(fields):
        digest.update(_tagged(name.encode(), str(fields[name]).encode()))
    return digest.digest()


def _tagged(tag: bytes, value: bytes) -> bytes:
    return len(tag).to_bytes(4, "little") + tag + len(value).to_bytes(8, "little") + value
