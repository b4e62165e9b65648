"""The commands of `folio` that end by themselves, each of them a function that returns its exit code."""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict

from rich.live import Live

from folio_client.cli_output import Output, result_members, usage_line
from folio_client.cli_tables import sessions_table, stats_table
from folio_client.client import Client
from folio_client.options import GenerateOptions
from folio_client.types import Health, Stats

UNHEALTHY = 7


def sampling_options(given: argparse.Namespace) -> GenerateOptions:
    """The sampling options that were given."""
    names = ("max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "ignore_eos")
    options: GenerateOptions = {}
    for name in names:
        value = getattr(given, name)
        if value is not None:
            options[name] = value  # type: ignore[literal-required]
    return options


def generate(client: Client, given: argparse.Namespace, output: Output) -> int:
    """Continues a text, showing it as it comes."""
    prompt = sys.stdin.read() if given.prompt == "-" else given.prompt
    with client.stream(prompt, **sampling_options(given)) as stream:
        for delta in stream:
            if not output.is_json:
                output.piece(delta.text)
    if output.is_json:
        output.document(result_members(stream.result))
    else:
        output.piece("\n")
        output.note(usage_line(stream.result))
    return 0


def sessions(client: Client, given: argparse.Namespace, output: Output) -> int:
    """Lists sessions."""
    del given
    found = client.admin.sessions()
    output.show([asdict(info) for info in found], sessions_table(found))
    return 0


def stats(client: Client, given: argparse.Namespace, output: Output) -> int:
    """Shows counts once, or watches them; Ctrl-C is how watching ends."""
    if not given.watch:
        found = client.admin.stats()
        output.show(found.document, stats_table(found))
        return 0
    with suppress(KeyboardInterrupt):
        _watch(client, given, output)
    return 0


def health(client: Client, given: argparse.Namespace, output: Output) -> int:
    """Says whether the model works."""
    if given.wait is not None:
        client.wait_ready(given.wait)
    found = client.admin.health()
    output.show(asdict(found), _health_line(found))
    return 0 if found.is_healthy else UNHEALTHY


def warm_up(client: Client, given: argparse.Namespace, output: Output) -> int:
    """Warms the server up."""
    result = client.warm_up(given.requests, max_concurrency=given.concurrency)
    milliseconds = [1000 * latency_s for latency_s in result.latencies_s]
    members = {
        "num_requests": result.num_requests,
        "is_settled": result.is_settled,
        "first_ms": milliseconds[0],
        "last_ms": milliseconds[-1],
    }
    settled = "settled" if result.is_settled else "not settled"
    line = (
        f"{result.num_requests} requests, first {milliseconds[0]:,.0f} ms, last {milliseconds[-1]:,.0f} ms, {settled}"
    )
    output.show(members, line)
    return 0


def _watch(client: Client, given: argparse.Namespace, output: Output) -> None:
    if output.is_json or not output.console.is_terminal:
        for found in _looks(client, given):
            output.show(found.document, stats_table(found))
        return
    with Live(console=output.console, auto_refresh=False) as live:
        for found in _looks(client, given):
            live.update(stats_table(found), refresh=True)


def _looks(client: Client, given: argparse.Namespace) -> Iterator[Stats]:
    for look in itertools.count() if given.count is None else range(given.count):
        if look:
            time.sleep(given.interval)
        yield client.admin.stats()


def _health_line(found: Health) -> str:
    if found.is_healthy:
        return "[green]healthy[/]"
    return f"[bold red]not healthy[/]: {found.integrity_error or 'no sign of life'}"
