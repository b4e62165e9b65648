"""The servers that a sweep starts: one for each codec, with attention models of several batch delays.

Knows `folio-server` from outside, as a person who types it does. Does not know what is sent to a server.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from folio_sweep.errors import SweepError

# `folio-server`, as a module: also where nothing is installed and the checkout is on Python's path.
LAUNCHER = (sys.executable, "-m", "folio_backend.launcher.main")
PORTS = ("HTTP_PORT", "GRPC_PORT", "METRICS_PORT")
BATCH_DELAY = re.compile(r"(max_queue_delay_microseconds:\s*)\d+")


def write_repository(
    folder: Path,
    source: Path,
    generate_models: Sequence[str],
    attention_models: Sequence[str],
    delays_us: Sequence[int],
) -> tuple[str, ...]:
    """A model repository: the generate models as they are, each attention model once for every batch delay.

    Args:
        folder: a new folder.
        source: the repository with the models.
        generate_models: names of models to copy.
        attention_models: names of models to copy once for every delay.
        delays_us: how long the server's batcher waits for more steps.

    Returns:
        The attention models' new names.

    Raises:
        SweepError: a model is not in the source, or has no dynamic batching with a delay.
    """
    folder.mkdir()
    for name in generate_models:
        _copy(source / name, folder / name)
    names = []
    for name in attention_models:
        for delay_us in delays_us:
            names.append(f"{name}_{delay_us}us")
            _copy(source / name, folder / names[-1])
            _set_batch_delay(folder / names[-1] / "config.pbtxt", delay_us)
    return tuple(names)


@contextlib.contextmanager
def started_server(repository: Path, codec: str, log: Path) -> Iterator[str]:
    """A server of our own, on loopback, gone with the block; yields the `host:port` of its gRPC.

    It listens on the ports that the environment names, else on free ones. Its standard input ends with this process,
    and it with that, also when this process is killed.

    Raises:
        SweepError: it does not start; it has said why.
    """
    ports = {name: os.environ.get(name) or "0" for name in PORTS}
    process = subprocess.Popen(
        [*LAUNCHER, "--stop-with-stdin", f"--model-repository={repository}", f"--log-file={log}"],
        env={**os.environ, **ports, "KV_CACHE_CODEC": codec},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Ctrl-C then reaches this process alone, which lets the server end in its own time.
        start_new_session=True,
    )
    assert process.stdin is not None, "it is started with pipes"
    assert process.stdout is not None, "it is started with pipes"
    try:
        urls = dict(line.decode().split() for line in (process.stdout.readline() for _ in range(3)) if line)
        if len(urls) < 3:
            raise SweepError(
                f"The server for codec {codec} did not start. It needs folio[backend]; --host names one that runs."
            )
        yield urls["gRPC"].removeprefix("grpc://")
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def _copy(source: Path, target: Path) -> None:
    if not (source / "config.pbtxt").is_file():
        raise SweepError(f"{source.parent} holds no model {source.name}: name another with --model-repository.")
    shutil.copytree(source, target)


def _set_batch_delay(config: Path, delay_us: int) -> None:
    text, num_found = BATCH_DELAY.subn(rf"\g<1>{delay_us}", config.read_text())
    if num_found != 1:
        raise SweepError(
            f"{config.parent.name}'s config.pbtxt sets no max_queue_delay_microseconds that could be varied."
        )
    config.write_text(text)
