"""Exports in the formats of perf_analyzer 2.48 and of later ones, made by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from folio_sweep.errors import LevelFailed
from folio_sweep.profile_export import integer, read_export

if TYPE_CHECKING:
    from pathlib import Path


def export(path: Path, *requests: dict[str, Any]) -> Path:
    experiment = {"experiment": {"mode": "concurrency", "value": 1}, "requests": requests, "window_boundaries": []}
    # As perf_analyzer writes it: raw bytes stand in the text unescaped.
    path.write_bytes(json.dumps({"experiments": [experiment]}, ensure_ascii=False).encode("latin-1"))
    return path


def request(sent_ns: int, *outputs: dict[str, Any], **inputs: Any) -> dict[str, Any]:
    times = [sent_ns + 1000 * number for number, _ in enumerate(outputs, 1)]
    return {
        "timestamp": sent_ns,
        "request_inputs": inputs,
        "response_timestamps": times,
        "response_outputs": list(outputs),
    }


def test_numbers_are_read_as_json_and_as_raw_bytes(tmp_path: Path) -> None:
    old = {"text_output": "a", "num_output_tokens": "\x02\x00\x00\x00", "num_input_tokens": "\xd2\x04\x00\x00"}
    new = {"text_output": "a", "num_output_tokens": 2, "num_input_tokens": 1234}
    for name, output in (("old", old), ("new", new)):
        (read,) = read_export(export(tmp_path / name, request(5, output)))
        assert [(response.num_tokens, response.num_prompt_tokens) for response in read.responses] == [(2, 1234)]


def test_an_empty_final_response_is_no_token(tmp_path: Path) -> None:
    empty = {"text_output": "", "num_output_tokens": "", "num_cached_tokens": ""}
    path = export(tmp_path / "export", request(5, {"text_output": "a", "num_output_tokens": 1}, empty))
    assert [response.num_tokens for response in read_export(path)[0].responses] == [1, 0]


def test_a_token_without_text_is_a_token_where_it_is_counted(tmp_path: Path) -> None:
    path = export(tmp_path / "export", request(5, {"text_output": "", "num_output_tokens": 1}))
    assert read_export(path)[0].responses[0].num_tokens == 1


def test_without_counts_every_text_is_a_token(tmp_path: Path) -> None:
    path = export(tmp_path / "export", request(5, {"text_output": "a"}, {"text_output": "b"}, {"text_output": ""}))
    assert [response.num_tokens for response in read_export(path)[0].responses] == [1, 1, 0]


def test_a_step_is_one_answer_and_says_its_length(tmp_path: Path) -> None:
    output = {"output": "\x00\xff", "length": "\x09\x00\x00\x00", "result": ""}
    (read,) = read_export(export(tmp_path / "export", request(5, output, session_id="s", position=8)))
    assert (read.session_id, read.position) == ("s", 8)
    assert [(response.num_tokens, response.length) for response in read.responses] == [(1, 9)]


def test_requests_come_in_the_order_in_which_they_were_sent(tmp_path: Path) -> None:
    path = export(tmp_path / "export", request(9, {"text_output": "a"}), request(5, {"text_output": "a"}))
    assert [read.sent_ns for read in read_export(path)] == [5, 9]


@pytest.mark.parametrize("content", [b"", b"{}", b'{"experiments": []}', b"[1]", b'{"experiments": [{}]}'])
def test_anything_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "export.json"
    path.write_bytes(content)
    with pytest.raises(LevelFailed, match="no profile export"):
        read_export(path)


def test_a_missing_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LevelFailed, match="no profile export"):
        read_export(tmp_path / "export.json")


def test_a_number_in_another_form_is_refused() -> None:
    with pytest.raises(ValueError, match="neither"):
        integer("12")
