"""A prefix key is as long as a digest, the same for the same fields, and another for any other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from folio_backend.cache.prefix_key import ROOT_KEY, PrefixKeys, digest_of

FIELDS = st.tuples(
    st.binary(max_size=3),
    st.binary(max_size=3),
    st.binary(max_size=3),
    st.binary(max_size=3),
    st.lists(st.integers(0, 3), max_size=3),
)
Fields = tuple[bytes, bytes, bytes, bytes, list[int]]


def key_of(fields: Fields) -> bytes:
    tenant, weights, page_format, parent, token_ids = fields
    return PrefixKeys(tenant, weights, page_format).key(parent, token_ids)


@given(one=FIELDS, other=FIELDS)
def test_keys_are_equal_exactly_when_all_fields_are(one: Fields, other: Fields) -> None:
    assert (key_of(one) == key_of(other)) == (one == other)
    assert len(key_of(one)) == 32


def test_neighbouring_fields_do_not_run_into_each_other() -> None:
    assert key_of((b"ab", b"c", b"", b"", [1])) != key_of((b"a", b"bc", b"", b"", [1]))
    assert key_of((b"", b"", b"", b"tokens", [])) != key_of((b"", b"", b"", b"", []))


def test_a_key_hangs_on_every_page_before_it() -> None:
    keys = PrefixKeys(b"tenant", b"weights", b"format")
    assert keys.key(keys.key(ROOT_KEY, [1]), [2]) != keys.key(keys.key(ROOT_KEY, [3]), [2])
    assert keys.key(keys.key(ROOT_KEY, [1]), [2]) == keys.key(keys.key(ROOT_KEY, [1]), [2])


def test_token_ids_of_any_size_have_a_key() -> None:
    keys = PrefixKeys(b"", b"", b"")
    assert keys.key(ROOT_KEY, [2**40]) != keys.key(ROOT_KEY, [0])


def test_settings_have_one_digest_whatever_their_order() -> None:
    assert digest_of(codec="int8", page_size=64) == digest_of(page_size=64, codec="int8")
    assert digest_of(codec="int8", page_size=64) != digest_of(codec="int4", page_size=64)
    assert digest_of(a="1", b="23") != digest_of(a="12", b="3")
