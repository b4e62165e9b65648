"""Each fact about the machine is judged by itself, and a refusal says what to do."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from folio_backend.launcher import checks
from folio_backend.launcher.checks import Verdict
from folio_backend.launcher.locate import PYTHON_VERSION, locate_server


def test_this_machine_can_run_the_server() -> None:
    findings = checks.check_machine(locate_server({}), "127.0.0.1", {})
    assert [finding.sentence for finding in findings if finding.verdict is Verdict.REFUSAL] == []


@pytest.mark.parametrize(
    ("version", "verdict"), [("1.26.4", Verdict.OK), ("2.0.0", Verdict.REFUSAL), ("10.1", Verdict.REFUSAL)]
)
def test_numpy_2_is_refused(version: str, verdict: Verdict) -> None:
    finding = checks.check_numpy(version)
    assert finding.verdict is verdict
    assert version in finding.sentence
    assert ("pip install" in finding.sentence) == (verdict is Verdict.REFUSAL)


def test_stub_of_another_python_is_refused(tmp_path: Path) -> None:
    stub = tmp_path / "stub"
    stub.write_bytes(b"\x7fELF...libpython3.8.so.1.0\0...")
    finding = checks.check_stub(stub)
    assert finding.verdict is Verdict.REFUSAL
    assert "Python 3.8" in finding.sentence
    stub.write_bytes(f"\x7fELF...libpython{PYTHON_VERSION}.so.1.0\0...".encode())
    assert checks.check_stub(stub).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("free_mib", "verdict"), [(4096, Verdict.OK), (64, Verdict.COST), (8, Verdict.REFUSAL), (0, Verdict.REFUSAL)]
)
def test_small_shared_memory_costs_or_refuses(monkeypatch: pytest.MonkeyPatch, free_mib: int, verdict: Verdict) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free_mib << 20))
    finding = checks.check_shared_memory(Path("/dev/shm"))  # noqa: S108 - the kernel's own
    assert finding.verdict is verdict
    assert ("--shm-size" in finding.sentence) == (verdict is not Verdict.OK)


def test_missing_compiler_costs_speed_and_no_more(tmp_path: Path) -> None:
    finding = checks.check_compiler({"CXX": str(tmp_path / "absent")})
    assert finding.verdict is Verdict.COST
    assert "uncompiled" in finding.sentence
    assert "apt-get install" in finding.sentence


@pytest.mark.parametrize(
    ("address", "token", "verdict"),
    [
        ("127.0.0.1", "", Verdict.OK),
        ("127.8.9.1", "", Verdict.OK),
        ("::1", "", Verdict.OK),
        ("0.0.0.0", "", Verdict.REFUSAL),  # noqa: S104 - judged, not bound
        ("::", "", Verdict.REFUSAL),
        ("192.0.2.7", "", Verdict.REFUSAL),
        ("0.0.0.0", "secret", Verdict.OK),  # noqa: S104 - judged, not bound
    ],
)
def test_other_machines_are_let_in_with_a_token_alone(address: str, token: str, verdict: Verdict) -> None:
    finding = checks.check_exposure(address, {"KV_CACHE_ADMIN_TOKEN": token})
    assert finding.verdict is verdict
    assert ("KV_CACHE_ADMIN_TOKEN" in finding.sentence) == (verdict is Verdict.REFUSAL)


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        ([], ["mode=opentelemetry", "level=timestamps"]),
        (["--trace-config", "mode=opentelemetry"], ["level=timestamps"]),
        (["--trace-config=mode=opentelemetry", "--trace-config", "level=TIMESTAMPS"], []),
    ],
)
def test_spans_without_the_server_s_are_said_to_be_none(arguments: list[str], missing: list[str]) -> None:
    assert checks.check_tracing(arguments, {}).verdict is Verdict.OK
    finding = checks.check_tracing(arguments, {"KV_CACHE_TRACE_URL": "http://localhost:4318/v1/traces"})
    assert finding.verdict is (Verdict.COST if missing else Verdict.OK)
    named = {setting for setting in ("mode=opentelemetry", "level=timestamps") if setting in finding.sentence}
    assert named == set(missing)
