"""`folio-server`: from a command line to a running server, and from a signal to its clean end.

Reads as locate, check, lay out, start, wait, drain. Speaks on standard error; standard output gets the three
URLs, one a line, when the server is ready, so that a program can wait for them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from folio_backend.errors import ConfigurationError
from folio_backend.launcher import backend_folder, stop_signals
from folio_backend.launcher.checks import Verdict, check_machine, check_tracing
from folio_backend.launcher.drain import GRACE_S, drain
from folio_backend.launcher.listeners import Listeners
from folio_backend.launcher.locate import TritonServer, locate_server
from folio_backend.launcher.options import Options, parse_options
from folio_backend.launcher.ports import reserved_ports
from folio_backend.launcher.progress import LogReader, failure
from folio_backend.launcher.runtime_folder import remove_abandoned, runtime_folder
from folio_backend.launcher.server_process import ServerProcess, server_command, server_environment
from folio_backend.weights import cache_folder

READY_POLL_S = 0.2
READ_BYTES = 4096


def main() -> None:
    """The console script: exit status 0 after a clean end, 1 after a refusal or a failure."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Does what the command line says and returns the exit status."""
    try:
        options = parse_options(arguments, os.environ)
        if options.export_backend is not None:
            print(backend_folder.export(options.export_backend))
            return 0
        server = locate_server(os.environ)
        _check(server, options)
        with reserved_ports(options.address, options.ports) as ports:
            listeners = Listeners(options.address, ports, options.has_metrics)
            remove_abandoned()
            return _serve(server, options, listeners)
    except ConfigurationError as error:
        _say(str(error))
        return 1


def _check(server: TritonServer, options: Options) -> None:
    """Says what the machine's state costs.

    Raises:
        ConfigurationError: it does not allow a start; the text has every reason.
    """
    refusals = [
        f"{folder} is no folder of models: name one with --model-repository."
        for folder in options.model_repositories
        if not folder.is_dir()
    ]
    findings = check_machine(server, options.address, os.environ)
    for finding in [*findings, check_tracing(options.server_arguments, os.environ)]:
        if finding.verdict is Verdict.COST:
            _say(finding.sentence)
        if finding.verdict is Verdict.REFUSAL:
            refusals.append(finding.sentence)
    if refusals:
        raise ConfigurationError("\n".join(refusals))


def _serve(server: TritonServer, options: Options, listeners: Listeners) -> int:
    """Runs the server to its end and returns the exit status."""
    stop_signals.hold()
    log = None if options.verbose else _log_file(options, listeners)
    with (
        runtime_folder(options.exit_timeout_s + GRACE_S) as runtime,
        log.open("wb") if log else contextlib.nullcontext() as output,
    ):
        backend_folder.lay_out(runtime.path / "backends", server)
        command = server_command(server, options, listeners, runtime)
        process = ServerProcess(command, server_environment(server, os.environ), output, runtime.lock)
        try:
            runtime.watch(process.pid)
            if options.stop_with_stdin:
                threading.Thread(target=_stop_at_end_of_stdin, daemon=True).start()
            return _supervise(process, listeners, options.exit_timeout_s, log)
        finally:
            process.kill()


def _supervise(process: ServerProcess, listeners: Listeners, exit_timeout_s: int, log: Path | None) -> int:
    """Follows the server from its start to the wish to stop it.

    Raises:
        ConfigurationError: it ended by itself; the text says why, as far as its log tells.
    """
    _say("Starting the server" + (f", log in {log}" if log else ""))
    if not _wait_until_ready(process, listeners, log):
        return 0
    for name, url in listeners.urls().items():
        print(f"{name:8} {url}", flush=True)
    while process.exit_code() is None:
        if stop_signals.stop_asked():
            _say(f"Stopping: what runs may finish within {exit_timeout_s} s; once more ends it now")
            return 0 if drain(process, listeners, exit_timeout_s) else 1
    raise ConfigurationError(_ended(process, log))


def _wait_until_ready(process: ServerProcess, listeners: Listeners, log: Path | None) -> bool:
    """Shows the backend's messages until the server is ready; False where the wish to stop came first.

    Raises:
        ConfigurationError: the server ended instead.
    """
    reader = LogReader(log) if log else None
    while process.exit_code() is None:
        ready = listeners.is_ready()
        for message in reader.messages() if reader else ():
            _say(f"  {message}")
        if ready:
            return True
        if stop_signals.stop_asked(READY_POLL_S):
            return False
    raise ConfigurationError(_ended(process, log))


def _stop_at_end_of_stdin() -> None:
    # Not through sys.stdin, whose lock a thread that still reads would hold while Python shuts down.
    while os.read(0, READ_BYTES):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _ended(process: ServerProcess, log: Path | None) -> str:
    reason = f"The server ended by itself (exit status {process.exit_code()})."
    return f"{failure(log)}\n{reason} Its whole log is {log}." if log else reason


def _log_file(options: Options, listeners: Listeners) -> Path:
    name = f"server-{listeners.ports.http}.log"
    log = options.log_file or cache_folder(os.environ) / "logs" / name
    log.parent.mkdir(parents=True, exist_ok=True)
    return log


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
