"""The sweep's own model repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from folio_sweep.errors import SweepError
from folio_sweep.server import write_repository

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A repository with three models."""
    configurations = {
        "text": "task: generate",
        "attention": "dynamic_batching { max_queue_delay_microseconds: 500 }",
        "unbatched": "max_batch_size: 0",
    }
    for name, text in configurations.items():
        (tmp_path / "source" / name / "1").mkdir(parents=True)
        (tmp_path / "source" / name / "config.pbtxt").write_text(text)
    return tmp_path / "source"


def test_an_attention_model_is_there_once_for_every_delay(source: Path, tmp_path: Path) -> None:
    names = write_repository(tmp_path / "models", source, ["text"], ["attention"], [0, 2000])
    assert names == ("attention_0us", "attention_2000us")
    texts = {path.parent.name: path.read_text() for path in (tmp_path / "models").glob("*/config.pbtxt")}
    assert texts == {
        "text": "task: generate",
        "attention_0us": "dynamic_batching { max_queue_delay_microseconds: 0 }",
        "attention_2000us": "dynamic_batching { max_queue_delay_microseconds: 2000 }",
    }
    assert "500" in (source / "attention/config.pbtxt").read_text()


def test_a_model_that_is_not_there_is_named(source: Path, tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="holds no model other"):
        write_repository(tmp_path / "models", source, ["other"], [], [])


def test_a_model_without_a_delay_to_vary_is_named(source: Path, tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=r"unbatched_5us.*no max_queue_delay_microseconds"):
        write_repository(tmp_path / "models", source, [], ["unbatched"], [5])
