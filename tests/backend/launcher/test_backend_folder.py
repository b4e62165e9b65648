"""The folder for a stock Triton stands on its own."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from folio_backend.launcher.main import run

if TYPE_CHECKING:
    from pathlib import Path


def test_exported_folder_needs_nothing_of_this_checkout(tmp_path: Path) -> None:
    assert run([f"--export-backend={tmp_path}"]) == 0
    folder = tmp_path / "folio"
    assert sorted(path.name for path in folder.iterdir()) == ["folio_backend", "folio_kernels", "model.py"]
    assert not [path for path in folder.rglob("*") if path.is_symlink() or path.name == "__pycache__"]
    # -I leaves out this checkout; the stub looks into the backend's folder just so.
    program = f"import sys; sys.path.insert(0, {str(folder)!r}); import folio_backend.errors as e; print(e.__file__)"
    found = subprocess.run([sys.executable, "-IBc", program], check=True, capture_output=True, text=True).stdout
    assert found.startswith(str(folder))


def test_existing_folder_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folio").mkdir()
    assert run([f"--export-backend={tmp_path}"]) == 1
    assert "is there already" in capsys.readouterr().err
    assert not list((tmp_path / "folio").iterdir())
