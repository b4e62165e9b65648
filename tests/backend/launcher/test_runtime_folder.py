"""What a killed run left is removed, what a living one uses is not."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from folio_backend.launcher import runtime_folder
from folio_backend.launcher.runtime_folder import remove_abandoned


@pytest.fixture
def ended_pid() -> int:
    """The id of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Stand-ins for the folder of temporary files and for /dev/shm."""
    temporary, memory = tmp_path / "tmp", tmp_path / "shm"
    temporary.mkdir()
    memory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(runtime_folder, "SHARED_MEMORY", memory)
    return temporary, memory


def leave(places: tuple[Path, Path], name: str) -> tuple[Path, Path]:
    """A run's folder and one region of its memory."""
    folder, region = places[0] / name, places[1] / f"{name}_region"
    (folder / "backends").mkdir(parents=True)
    region.touch()
    return folder, region


def test_an_ended_run_is_removed(places: tuple[Path, Path], ended_pid: int) -> None:
    left = leave(places, f"folio_{ended_pid}_abc")
    remove_abandoned()
    assert not [path for path in left if path.exists()]


def test_a_run_whose_server_still_holds_the_lock_is_kept(places: tuple[Path, Path], ended_pid: int) -> None:
    left = leave(places, f"folio_{ended_pid}_abc")
    lock = os.open(left[0], os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    remove_abandoned()
    os.close(lock)
    assert all(path.exists() for path in left)


def test_living_runs_and_other_peoples_files_are_kept(places: tuple[Path, Path], ended_pid: int) -> None:
    living = leave(places, f"folio_{os.getppid()}_abc")
    foreign = leave(places, "folio_notes_abc")
    file = places[0] / f"folio_{ended_pid}_file"
    file.touch()
    remove_abandoned()
    assert all(path.exists() for path in (*living, *foreign, file))
