"""`folio-server`'s command line, parsed into one value. Does not act on any of it."""

from __future__ import annotations

import argparse
import itertools
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from folio_backend.errors import ConfigurationError
from folio_backend.launcher.ports import Ports
from folio_backend.launcher.project_files import project_folder

DEFAULT_PORTS = Ports(http=8000, grpc=8001, metrics=8002)
# Arguments of the server that would open an address behind `--host`'s back.
GUARDED = ("http-address", "grpc-address", "metrics-address", "allow-sagemaker", "allow-vertex-ai")
# `folio-server` writes these itself, and the clean-up after a run depends on them.
OWNED = ("backend-directory",)
METRICS_OFF = {("--allow-metrics", value) for value in ("false", "0", "off", "no")}


@dataclass(frozen=True)
class Options:
    """What was asked for.

    Attributes:
        model_repositories: folders of models.
        address: the numeric address to bind.
        ports: 0 for any free one.
        exit_timeout_s: how long running requests may take to finish at the end.
        log_file: where the server's log goes; None for the cache folder.
        verbose: the log goes to the terminal instead.
        stop_with_stdin: the end of standard input ends the server.
        export_backend: write the backend's folder there and start nothing.
        server_arguments: what is passed on to tritonserver.
    """

    model_repositories: tuple[Path, ...]
    address: str
    ports: Ports
    exit_timeout_s: int
    log_file: Path | None
    verbose: bool
    stop_with_stdin: bool
    export_backend: Path | None
    server_arguments: tuple[str, ...]

    @property
    def has_metrics(self) -> bool:
        """Whether the server opens its metrics port: it does unless told not to."""
        words = [word for argument in self.server_arguments for word in argument.lower().split("=")]
        return not any(pair in METRICS_OFF for pair in itertools.pairwise(words))


def parse_options(arguments: Sequence[str], environment: Mapping[str, str]) -> Options:
    """Reads the command line; what it leaves out comes from `HTTP_PORT` and its like, then from the defaults.

    Raises:
        ConfigurationError: a port in the environment is no port, the host is unknown, or an argument for
            tritonserver is one that `folio-server` decides.
    """
    given, others = _parser().parse_known_args(arguments)
    _refuse_guarded(others)
    ports = {
        name: _port(name, getattr(given, f"{name}_port"), environment, default)
        for name, default in vars(DEFAULT_PORTS).items()
    }
    return Options(
        model_repositories=tuple(given.model_repository or [project_folder() / "model_repository"]),
        address=_numeric_address(given.host),
        ports=Ports(**ports),
        exit_timeout_s=given.exit_timeout_secs,
        log_file=given.log_file,
        verbose=given.verbose,
        stop_with_stdin=given.stop_with_stdin,
        export_backend=given.export_backend,
        server_arguments=tuple(others),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="folio-server",
        description="Starts a Triton Inference Server with Folio in it. Other arguments go to tritonserver.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model-repository", type=Path, action="append", metavar="DIR", help="models to serve (repeatable)")
    add("--host", default="127.0.0.1", help="address to bind (default: 127.0.0.1)")
    for name, port in vars(DEFAULT_PORTS).items():
        text = f"default: ${name.upper()}_PORT or {port}; 0: any free one"
        add(f"--{name}-port", type=int, metavar="PORT", help=text)
    add("--exit-timeout-secs", type=int, default=30, metavar="S", help="time to drain (default: 30)")
    add("--log-file", type=Path, metavar="FILE", help="the server's log (default: in the cache folder)")
    add("--verbose", action="store_true", help="show the server's log here")
    add("--stop-with-stdin", action="store_true", help="stop when standard input ends")
    add("--export-backend", type=Path, metavar="DIR", help="only write a folio/ folder there")
    return parser


def _refuse_guarded(arguments: Sequence[str]) -> None:
    for argument in arguments:
        name = argument.removeprefix("--").partition("=")[0]
        if name in GUARDED:
            raise ConfigurationError(f"--{name} is not passed on: say with --host which address to open.")
        if name in OWNED:
            raise ConfigurationError(f"--{name} is not passed on: folio-server lays that out itself.")


def _port(name: str, given: int | None, environment: Mapping[str, str], default: int) -> int:
    variable = f"{name.upper()}_PORT"
    text = environment.get(variable, "") if given is None else str(given)
    if not text:
        return default
    if not text.isdecimal() or int(text) > 65_535:
        sentence = f"{variable} or --{name}-port is {text!r}: a port is a number from 0 to 65535."
        raise ConfigurationError(sentence)
    return int(text)


def _numeric_address(host: str) -> str:
    """The server binds numbers only, and a check of what is reachable needs them too."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigurationError(f"--host {host} is unknown here: name an address of this machine.") from error
    return str(found[0][4][0])
