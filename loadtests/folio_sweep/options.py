"""The sweep's command line, parsed into one value. Does not act on any of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

CODECS = ("none", "int8", "k8v4", "int4", "k4v2")
WORKLOADS = ("new", "resumed")
MODES = ("concurrency", "request_rate")
RATE_SHARES = (0.5, 0.8, 1.1)

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class TaskOptions:
    """How a kind of model is loaded.

    Attributes:
        models: their names; several attention models differ in their batch delay. Empty leaves the task out.
        concurrency: requests at a time, level by level.
        rates: requests a second, level by level; empty for shares of the highest throughput by concurrency.
        num_requests: of a level, at least.
        prompt_length: words of a new session's prompt, or tokens of an attention session's first step.
        history_length: words, or tokens, of a resumed session's history.
    """

    models: tuple[str, ...]
    concurrency: tuple[int, ...]
    rates: tuple[float, ...]
    num_requests: int
    prompt_length: int
    history_length: int


@dataclass(frozen=True)
class Options:
    """What was asked for.

    Attributes:
        host: `host:port` of a running server's gRPC; empty to start one for each codec.
        codecs: the codecs to compare, one server each.
        batch_delays_us: of the attention models that our own servers serve.
        model_repository: where their configurations are copied from.
        out: the folder of the results.
        generate: how the generate model is loaded.
        attention: how the attention models are loaded.
        output_tokens: tokens that a generation asks for.
        workloads: "new" and "resumed" sessions.
        modes: loads by "concurrency" and by "request_rate".
        level_limit_s: when to give a level up.
    """

    host: str
    codecs: tuple[str, ...]
    batch_delays_us: tuple[int, ...]
    model_repository: Path
    out: Path
    generate: TaskOptions
    attention: TaskOptions
    output_tokens: int
    workloads: tuple[str, ...]
    modes: tuple[str, ...]
    level_limit_s: float


def parse_options(arguments: Sequence[str]) -> Options:
    """Reads the command line; argparse ends the process with status 2 where it is wrong."""
    parser = _parser()
    given = parser.parse_args(arguments)
    for task in ("generate", "attention"):
        is_without_rates = getattr(given, f"{task}_models") and not getattr(given, f"{task}_rates")
        if is_without_rates and "concurrency" not in given.modes:
            parser.error(f"--{task}-rates is empty and --modes leaves concurrency out, which rates are taken from")
    return Options(
        host=given.host.removeprefix("grpc://"),
        codecs=given.codecs,
        batch_delays_us=given.batch_delays_us,
        model_repository=given.model_repository,
        out=given.out,
        generate=_task_options(given, "generate"),
        attention=_task_options(given, "attention"),
        output_tokens=given.output_tokens,
        workloads=given.workloads,
        modes=given.modes,
        level_limit_s=given.level_limit_s,
    )


def _task_options(given: argparse.Namespace, task: str) -> TaskOptions:
    names = ("models", "concurrency", "rates", "num_requests", "prompt_length", "history_length")
    return TaskOptions(**{name: getattr(given, f"{task}_{name}") for name in names})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make sweep",
        description="Drives Folio with perf_analyzer, from one load level to the next: figures as CSV and JSON, and "
        "latency-throughput plots with the knee marked. Lists are separated by spaces or commas.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="", help="gRPC address of a running server, host:port; else servers are started")
    add("--codecs", type=_names(CODECS), default="int8 int4", help=f"compared side by side: {', '.join(CODECS)}")
    add("--out", type=Path, default=Path("sweep"), help="folder of the results")
    add("--batch-delays-us", type=_list(int, 0), default="0 500 2000", help="the attention batcher's delays")
    add("--workloads", type=_names(WORKLOADS), default=" ".join(WORKLOADS), help="kinds of sessions")
    add("--modes", type=_names(MODES), default=" ".join(MODES), help="kinds of load")
    add("--output-tokens", type=_at_least(1), default=16, help="tokens that a generation asks for")
    add("--level-limit-s", type=_at_least(1), default=600, help="seconds after which a level has failed")
    add("--model-repository", type=Path, default=_project_repository(), help="configurations of the models")
    _add_task(parser, "generate", "smollm2", "1 2 4 8", (8, 96, 96), unit="words")
    _add_task(parser, "attention", "attention", "1 4 16", (64, 16, 256), unit="tokens")
    return parser


def _add_task(
    parser: argparse.ArgumentParser, task: str, model: str, levels: str, sizes: tuple[int, int, int], *, unit: str
) -> None:
    add = parser.add_argument_group(f"{task} models").add_argument
    num_requests, prompt_length, history_length = sizes
    shares = ", ".join(f"{share:.0%}" for share in RATE_SHARES)
    add(f"--{task}-models", type=_words, default=model, help="their names; empty leaves them out")
    add(f"--{task}-concurrency", type=_list(int, 1), default=levels, help="requests at a time, level by level")
    text = f"requests a second, level by level; empty: {shares} of the highest throughput by concurrency"
    add(f"--{task}-rates", type=_list(float, 0.001), default="", help=text)
    add(f"--{task}-num-requests", type=_at_least(1), default=num_requests, help="of a level, at least")
    add(f"--{task}-prompt-length", type=_at_least(1), default=prompt_length, help=f"{unit} of a new session's prompt")
    add(f"--{task}-history-length", type=_at_least(1), default=history_length, help=f"{unit} of a resumed history")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def _names(allowed: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = _words(text)
        for name in names:
            if name not in allowed:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(allowed)}")
        if not names:
            raise argparse.ArgumentTypeError(f"it is empty: name some of {', '.join(allowed)}")
        return tuple(dict.fromkeys(names))

    return parse


def _list(kind: Callable[[str], Number], least: Number) -> Callable[[str], tuple[Number, ...]]:
    def parse(text: str) -> tuple[Number, ...]:
        try:
            numbers = [kind(word) for word in _words(text)]
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers") from error
        if any(not least <= number < float("inf") for number in numbers):
            raise argparse.ArgumentTypeError(f"{text!r} holds a number below {least}, or infinity")
        return tuple(sorted(set(numbers)))

    return parse


def _at_least(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
        return int(text)

    return parse


def _project_repository() -> Path:
    """The models' configurations: in a checkout, or where an installed wheel put them."""
    checkout = Path(__file__).resolve().parents[2] / "model_repository"
    return checkout if checkout.is_dir() else Path(sys.prefix, "share/folio/model_repository")
