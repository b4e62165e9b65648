"""`folio-demo`: a conversation of two turns with a real server, and a table of what its cache did.

Starts a server unless it is given one, streams both answers into the terminal, asks the server for its counts and
stops what it started. Knows nothing of the backend.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from folio_client.client import Client
from folio_client.errors import FolioError
from folio_client.options import GenerateOptions
from folio_client.types import Message, Stats, Usage

MODEL = "smollm2"
PORTS = ("HTTP_PORT", "GRPC_PORT", "METRICS_PORT")
# Greedy, so that everybody sees the same conversation.
SAMPLING: GenerateOptions = {"temperature": 0, "max_tokens": 80}
STORY = (
    "The lighthouse at Skarvan stood empty for eleven years before Ines Aldarin rented it. She was a clock maker "
    "from the mainland, and she wanted a place where nobody would ask her what time it was. The rent was low, "
    "because the stairs had 212 steps and the roof let in the rain. In the first winter she mended the roof with "
    "copper from an old still. In the second she took the lamp apart, cleaned every lens with vinegar, and found a "
    "small brass wheel that did not belong to it. The wheel had nineteen teeth. No clock she knew had a wheel with "
    "nineteen teeth. She asked the ferryman, who was called Tobias and who had known the keeper before her. He said "
    "that the keeper had built a machine that counted the ships that came home, and another one for those that did "
    "not, and that he had thrown the second machine into the sea. Ines put the wheel on the window sill. In spring "
    "she began to build."
)
QUESTIONS = (
    f"Read this story.\n\n{STORY}\n\nTell me in two sentences what it is about.",
    "Who was Tobias?",
)


class DemoError(Exception):
    """The demonstration cannot go on; the text says why."""


def main() -> None:
    """The console script: exit status 0 after the table, 1 where the server failed, 130 after Ctrl-C."""
    try:
        run(sys.argv[1:])
    except (DemoError, FolioError) as error:
        sys.exit(f"The demonstration ended early: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def run(arguments: Sequence[str]) -> None:
    """Holds the conversation and prints the table.

    Raises:
        DemoError: the server does not start.
        FolioError: it refuses or fails.
    """
    parser = argparse.ArgumentParser(prog="folio-demo", description="A conversation, and what the cache did.")
    parser.add_argument("--url", metavar="URL", help="a running server, grpc:// or http:// (default: start one)")
    parser.add_argument("--model", default=MODEL, help=f"a generate model (default: {MODEL})")
    given = parser.parse_args(arguments)
    with (
        contextlib.nullcontext(given.url) if given.url else started_server(given.model) as url,
        Client(url if "://" in url else f"grpc://{url}", model=given.model) as client,
    ):
        turns, stats = hold_conversation(client)
        print(table(turns, stats))


def hold_conversation(client: Client) -> tuple[list[Usage], Stats]:
    """Asks the questions in one session, showing both sides; returns what each took, and what the cache held then."""
    messages: list[Message] = []
    turns = []
    with client.session() as session:
        for question in QUESTIONS:
            messages.append({"role": "user", "content": question})
            print(f"\n> {question}\n")
            stream = session.stream(messages, **SAMPLING)
            for delta in stream:
                print(delta.text, end="", flush=True)
            messages.append({"role": "assistant", "content": stream.result.text})
            turns.append(stream.result.usage)
            print()
        return turns, client.admin.stats()


@contextlib.contextmanager
def started_server(model: str) -> Iterator[str]:
    """A server of our own with one model; yields its gRPC URL.

    It listens on loopback, on the ports that the environment names, else on free ones. It ends with the block, and
    also when this process is killed, because its standard input then ends.

    Raises:
        DemoError: it does not start; it has said why.
    """
    ports = {name: os.environ.get(name) or "0" for name in PORTS}
    process = subprocess.Popen(
        [server_command(), "--stop-with-stdin", "--model-control-mode=explicit", f"--load-model={model}"],
        env={**os.environ, **ports},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Ctrl-C then reaches this process alone, which lets the server end in its own time.
        start_new_session=True,
    )
    assert process.stdout is not None, "it is started with pipes"
    try:
        urls = dict(line.decode().split() for line in (process.stdout.readline() for _ in range(3)) if line)
        if len(urls) < 3:
            raise DemoError("the server did not start.")
        yield urls["gRPC"]
    finally:
        stop(process)
        process.stdout.close()


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the server and waits until nothing of it is left; Ctrl-C meanwhile hurries it."""
    assert process.stdin is not None, "it is started with pipes"
    process.stdin.close()
    try:
        process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise


def server_command() -> str:
    """The `folio-server` that is installed beside this Python, else the one on the path.

    Raises:
        DemoError: there is none.
    """
    beside = Path(sys.executable).with_name("folio-server")
    found = str(beside) if beside.exists() else shutil.which("folio-server")
    if found is None:
        raise DemoError("folio-server is not installed here: `pip install folio[backend]`, or name one with --url.")
    return found


def table(turns: Sequence[Usage], stats: Stats) -> str:
    """What the conversation took, a column for each turn, and what the cache holds."""
    rows = {
        "prompt tokens": [f"{turn.num_prompt_tokens}" for turn in turns],
        "of them reused": [f"{turn.num_cached_tokens}" for turn in turns],
        "time to first token": [f"{(turn.first_token_s or 0) * 1000:,.0f} ms" for turn in turns],
        "tokens generated": [f"{turn.num_generated_tokens}" for turn in turns],
        "tokens per second": [f"{turn.tokens_per_s or 0:.1f}" for turn in turns],
    }
    heads = "".join(f"{f'turn {number}':>12}" for number, _ in enumerate(turns, 1))
    lines = [f"\n{'':24}{heads}"]
    lines += [f"{name:24}{''.join(f'{cell:>12}' for cell in cells)}" for name, cells in rows.items()]
    return "\n".join([*lines, "", *cache_lines(stats)])


def cache_lines(stats: Stats) -> list[str]:
    """Bytes per cached token against fp16, and the pages in use."""
    stored, fp16 = stats.bytes_per_token, stats.bytes_per_token_fp16
    pages = {kind: f"{counts.in_use} of {counts.total} {kind}" for kind, counts in stats.pages.items()}
    return [
        f"{'bytes per cached token':24}{stored:>12,.0f}   fp16 {fp16:,.0f}, so {stored / fp16:.0%}",
        f"{'pages in use':24}{pages['raw']:>12}, {pages['sealed']}",
    ]


if __name__ == "__main__":
    main()
