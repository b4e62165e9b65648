"""`folio`: a Folio server from the command line.

Knows arguments and exit codes; `cli_commands` and `cli_chat` know what each command does. argparse, because its parent
parsers let every command take the options of all (`folio stats --json`), and rich for tables and colour.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from folio_client.cli_chat import chat
from folio_client.cli_commands import generate, health, sessions, stats, warm_up
from folio_client.cli_output import Output
from folio_client.client import DEFAULT_MODEL, Client
from folio_client.connection import DEFAULT_URL, ConnectionOptions, TlsOptions
from folio_client.errors import (
    ConnectionFailed,
    DeadlineExceeded,
    FolioError,
    InvalidArgument,
    NotFound,
    Unavailable,
)

EXIT_CODES: tuple[tuple[type[FolioError], int], ...] = (
    (InvalidArgument, 2),
    (ConnectionFailed, 3),
    (Unavailable, 4),
    (DeadlineExceeded, 5),
    (NotFound, 6),
    (FolioError, 1),
)
INTERRUPTED = 130
_EPILOG = """\
exit codes:
  0  done
  1  the server failed, or somebody cancelled the request
  2  wrong usage, or a request that the server does not accept
  3  the server cannot be reached
  4  the server is overloaded or shutting down: try again later
  5  not done in time
  6  no such model or session
  7  the model is not healthy (health)
  130  interrupted

environment: FOLIO_URL, FOLIO_API_KEY, FOLIO_BEARER_TOKEN, KV_CACHE_ADMIN_TOKEN; NO_COLOR=1 turns colour off."""


def main() -> NoReturn:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Carries out a command line; returns the exit code."""
    given = _parser().parse_args(arguments)
    output = Output(is_json=given.json)
    try:
        with _client(given) as client:
            return int(given.command(client, given, output))
    except FolioError as error:
        output.error(error)
        return next(code for kind, code in EXIT_CODES if isinstance(error, kind))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever reads has had enough; what is still to be flushed goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _client(given: argparse.Namespace) -> Client:
    # Secrets come from the environment: arguments are there for every user of the machine to see.
    connection: ConnectionOptions = {"tls": TlsOptions(given.ca_file, given.certificate_file, given.key_file)}
    if api_key := os.environ.get("FOLIO_API_KEY"):
        connection["api_key"] = api_key
    if bearer_token := os.environ.get("FOLIO_BEARER_TOKEN"):
        connection["bearer_token"] = bearer_token
    admin_token = os.environ.get("KV_CACHE_ADMIN_TOKEN") or None
    return Client(given.url, model=given.model, timeout_s=given.timeout, admin_token=admin_token, **connection)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="folio",
        description="Talks to a Folio server.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    shared, sampling = _shared_options(), _sampling_options()

    def add(name: str, command: object, summary: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            parents=[shared, *parents],
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(command=command)
        return added

    _add_chat_options(add("chat", chat, "hold a conversation that the server remembers", sampling))
    generating = add("generate", generate, "continue a text", sampling)
    generating.add_argument("prompt", help="the text; - reads it from standard input")
    add("sessions", sessions, "list the sessions that the server holds")
    _add_watch_options(add("stats", stats, "show requests, pages and memory"))
    checking = add("health", health, "say whether the model works")
    checking.add_argument("--wait", metavar="SECONDS", type=_positive, help="wait this long for it to be ready")
    warming = add("warm-up", warm_up, "send short generations until latencies settle")
    warming.add_argument("--requests", metavar="N", type=_count, default=100, help="the most to send (default: 100)")
    warming.add_argument("--concurrency", metavar="N", type=_count, default=1, help="at a time (default: 1)")
    return parser


def _add_chat_options(chatting: argparse.ArgumentParser) -> None:
    chatting.add_argument("--system", metavar="TEXT", help="what the model is told before the conversation")
    chatting.add_argument("--session", metavar="NAME", help="the session's name (default: a new one)")
    chatting.add_argument(
        "--transcript", metavar="FILE", type=Path, help="continue what this JSON file holds, and keep it up to date"
    )
    chatting.add_argument("--keep", action="store_true", help="leave the session on the server")


def _add_watch_options(watching: argparse.ArgumentParser) -> None:
    watching.add_argument("--watch", action="store_true", help="again and again, until Ctrl-C")
    watching.add_argument("--interval", metavar="SECONDS", type=_positive, default=1.0, help="between two looks")
    watching.add_argument("--count", metavar="N", type=_count, help="how many looks (default: until Ctrl-C)")


def _shared_options() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    url = os.environ.get("FOLIO_URL") or DEFAULT_URL
    shared.add_argument("--url", default=url, help=f"grpc://, grpcs://, http:// or https:// (default: {url})")
    shared.add_argument("--model", default=DEFAULT_MODEL, help=f"a generate model (default: {DEFAULT_MODEL})")
    shared.add_argument("--timeout", metavar="SECONDS", type=_positive, default=120.0, help="of each request")
    shared.add_argument("--json", action="store_true", help="print JSON, one document a line")
    shared.add_argument("--ca-file", metavar="FILE", help="who signs the server's certificate, PEM")
    shared.add_argument("--certificate-file", metavar="FILE", help="this client's certificate, PEM")
    shared.add_argument("--key-file", metavar="FILE", help="that certificate's key, PEM")
    return shared


def _sampling_options() -> argparse.ArgumentParser:
    sampling = argparse.ArgumentParser(add_help=False)
    sampling.add_argument("--max-tokens", metavar="N", type=int, help="most tokens of an answer")
    sampling.add_argument("--temperature", metavar="T", type=float, help="0 takes the likeliest token")
    sampling.add_argument("--top-p", metavar="P", type=float)
    sampling.add_argument("--top-k", metavar="K", type=int)
    sampling.add_argument("--seed", metavar="N", type=int)
    sampling.add_argument("--stop", metavar="TEXT", action="append", help="ends the answer; may be given again")
    sampling.add_argument("--ignore-eos", action="store_true", default=None, help="go on to --max-tokens")
    return sampling


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("1 or more is needed")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("a positive number is needed")
    return value


if __name__ == "__main__":
    main()
