"""The command line: where each value comes from, and what is refused by name."""

from __future__ import annotations

import pytest

from folio_backend.errors import ConfigurationError
from folio_backend.launcher.options import parse_options
from folio_backend.launcher.ports import Ports


def test_defaults_are_loopback_and_the_usual_ports() -> None:
    options = parse_options([], {})
    assert options.address == "127.0.0.1"
    assert options.ports == Ports(8000, 8001, 8002)
    assert [folder.name for folder in options.model_repositories] == ["model_repository"]


def test_arguments_win_over_the_environment() -> None:
    environment = {"HTTP_PORT": "9000", "GRPC_PORT": "9001", "METRICS_PORT": ""}
    options = parse_options(["--http-port", "0"], environment)
    assert options.ports == Ports(0, 9001, 8002)


def test_unknown_arguments_are_passed_on_whole() -> None:
    given = ["--model-control-mode=explicit", "--load-model", "smollm2", "--log-verbose=1"]
    assert parse_options([*given, "--host", "localhost"], {}).server_arguments == tuple(given)


@pytest.mark.parametrize(
    ("arguments", "has_metrics"),
    [
        ([], True),
        (["--allow-metrics=true"], True),
        (["--allow-metrics=false"], False),
        (["--allow-metrics", "False"], False),
        (["--allow-gpu-metrics=false"], True),
    ],
)
def test_a_server_without_metrics_is_known_by_its_arguments(arguments: list[str], *, has_metrics: bool) -> None:
    assert parse_options(arguments, {}).has_metrics == has_metrics


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        ([], {"HTTP_PORT": "eighty"}, "HTTP_PORT"),
        (["--metrics-port", "65536"], {}, "--metrics-port"),
        (["--grpc-port", "-1"], {}, "--grpc-port"),
        (["--host", "no.such.host.invalid"], {}, "--host"),
        (["--http-address=0.0.0.0"], {}, "--http-address"),
        (["--grpc-address", "192.0.2.7"], {}, "--grpc-address"),
        (["--allow-sagemaker=true"], {}, "--allow-sagemaker"),
        (["--backend-directory=elsewhere"], {}, "--backend-directory"),
    ],
)
def test_refused_by_name(arguments: list[str], environment: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        parse_options(arguments, environment)
