"""Where the server is looked for, and how an incomplete one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from folio_backend.errors import ConfigurationError
from folio_backend.launcher import locate

FILES = (
    "bin/tritonserver",
    "backends/python/libtriton_python.so",
    f"backends/python/{locate.STUB_NAME}",
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A server laid out as NVIDIA's containers have it."""
    for name in FILES:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "lib").mkdir()
    return tmp_path


def test_named_server_comes_first(home: Path) -> None:
    server = locate.locate_server({"TRITONSERVER_HOME": str(home)})
    assert server.binary == home / "bin/tritonserver"
    assert server.stub == home / "backends/python" / locate.STUB_NAME
    assert server.library_folders[0] == home / "lib"


def test_installed_server_comes_before_the_wheel(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "pytriton" in str(locate.locate_server({}).binary)
    monkeypatch.setattr(locate, "INSTALLED_HOME", home)
    assert locate.locate_server({}).binary == home / "bin/tritonserver"


def test_wheel_has_a_stub_for_this_python() -> None:
    server = locate.locate_server({})
    assert locate.stub_python_version(server.stub) == locate.PYTHON_VERSION


@pytest.mark.parametrize("missing", FILES)
def test_incomplete_server_is_refused_by_the_missing_file(home: Path, missing: str) -> None:
    (home / missing).unlink()
    with pytest.raises(ConfigurationError, match=rf"{Path(missing).name}.*TRITONSERVER_HOME"):
        locate.server_in(home)
