"""What a person sees of the server's log."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from folio_backend.launcher.progress import LogReader, failure

if TYPE_CHECKING:
    from pathlib import Path

MESSAGE = 'I1121 09:56:31.231757 7235 model.py:12] "[folio] {}"\n'


def test_messages_come_once_and_whole(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("+-----+\nnoise\n" + MESSAGE.format("loading") + MESSAGE.format("compiling")[:40])
    reader = LogReader(log)
    assert reader.messages() == ["loading"]
    with log.open("a") as file:
        file.write(MESSAGE.format("compiling")[40:])
    assert reader.messages() == ["compiling"]
    assert reader.messages() == []


def test_messages_are_read_from_json_as_well(tmp_path: Path) -> None:
    log = tmp_path / "log"
    load, other = ({"time": "now", "event": event, "message": f"a {event}"} for event in ("load", "request"))
    lines = [json.dumps(load), json.dumps(other), '{"time": no JSON', "{}", f"half a line{json.dumps(load)}"]
    log.write_text("".join(f"{line}\n" for line in lines))
    assert LogReader(log).messages() == ["a load", "a load"]


def test_failure_names_every_model_and_its_reason(tmp_path: Path) -> None:
    log = tmp_path / "log"
    line = (
        "E1121 09:00:00.000 1 model_lifecycle.cc:642] \"failed to load '{}' version 1: Internal: {}\\n\\nAt:\\n x\"\n"
    )
    log.write_text(line.format("a", "no weights") + "noise\n" + line.format("b", "no codec"))
    assert failure(log) == "a: Internal: no weights\nb: Internal: no codec"


def test_failure_without_a_model_is_the_end_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("first\n" * 100 + "+---+\n| table |\n\nsocket failed\n")
    lines = failure(log).splitlines()
    assert lines[-1] == "socket failed"
    assert len(lines) < 50
    assert not [line for line in lines if line.startswith(("|", "+"))]
