"""The file that says what users do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio_loadtests.errors import RunError
from folio_loadtests.participant import is_sampled
from folio_loadtests.workload import DEFAULT_FILE, Workload, read_workload

if TYPE_CHECKING:
    from pathlib import Path


def test_the_default_workload_has_every_kind_of_user() -> None:
    workload = read_workload(DEFAULT_FILE)
    assert set(workload.users) == {"chat", "one_shot", "document", "attention", "probe"}
    assert Workload.model_validate(workload.model_dump()) == workload


@pytest.mark.parametrize(
    ("wrong", "right", "named"),
    [
        ("weight = -1", "weight = 5", r"users\.chat\.weight"),
        ("weight = 5\nwait = 1", "weight = 5", r"users\.chat\.wait"),
        ("share = 1.5", "share = 0.2", r"checks\.share"),
        ("num_heads = 8", "num_heads = 9", "attention"),
        ("[users.bot]", "[users.chat]", r"users\.bot"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, wrong: str, right: str, named: str) -> None:
    content = DEFAULT_FILE.read_text()
    assert right in content
    file = tmp_path / "workload.toml"
    file.write_text(content.replace(right, wrong, 1))
    with pytest.raises(RunError, match=named):
        read_workload(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"none\.toml"):
        read_workload(tmp_path / "none.toml")


@given(share=st.floats(0.01, 1), num_chats=st.integers(1, 500))
def test_a_sample_of_chats_is_even_and_takes_the_first(share: float, num_chats: int) -> None:
    chosen = [is_sampled(number, share) for number in range(num_chats)]
    assert chosen[0]
    assert abs(sum(chosen) - share * num_chats) <= 1


def test_no_share_is_no_sample() -> None:
    assert not any(is_sampled(number, 0.0) for number in range(100))
