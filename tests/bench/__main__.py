"""Run the bench: ``python -m tests.bench [--layer NAME] [K ...]``."""

import argparse
import asyncio
import json
import math
import os
import statistics
import sys
import time
import urllib.request
from collections.abc import Sequence
from typing import Final

import attrs

from tests.bench.clients import Client, Figures, connect, talk
from tests.bench.layers import LAYERS, OTHER_CORE, Served, process
from tests.bench.load import TURN_S, described

SETTLE_S: Final = TURN_S
"""A turn of every session, so that all that is made once has been."""
MEASURE_S: Final = 2 * TURN_S
SESSIONS: Final = (10, 50, 100, 150, 200, 300, 400)


@attrs.frozen
class Row:
    """The figures of one layer with one number of sessions."""

    layer: str
    sessions: int
    served: int
    """Sessions that were neither refused nor lost."""
    turn_ms: Sequence[float]
    audio_in_ms: Sequence[float]
    silence_ms: Sequence[float]
    cpu_share: float
    """How much of its core the server used."""
    waited_share: float
    """For how much of the time it waited for its core, which others held."""
    memory_mib: float
    """Resident memory, more than with one session."""
    seconds: float
    messages_in: int
    """To the recogniser."""
    errors: int
    """Error messages, and sessions lost or never ready."""
    figures: Figures

    def __str__(self) -> str:
        served, figures = max(self.served, 1), self.figures
        session_s = served * self.seconds
        cells = [
            self.layer,
            str(self.sessions),
            _quantiles(self.turn_ms, 50, 95, 99),
            _quantiles(self.audio_in_ms, 50, 95),
            _quantiles(self.silence_ms, 95),
            f"{self.cpu_share / served * 1000:.2f}",
            f"{self.cpu_share:.0%}",
            f"{self.waited_share:.0%}",
            f"{self.memory_mib / served:.2f}",
            f"{self.messages_in / session_s:.1f} / {figures.messages / session_s:.1f}",
            str(len(self.turn_ms)),
            str(figures.stale_chunks),
            str(figures.refused),
            str(self.errors),
            f"{figures.late_ticks / max(figures.ticks, 1):.0%}",
        ]
        return f"| {' | '.join(cells)} |"


COLUMNS: Final = (
    "layer",
    "sessions",
    "turn overhead p50 / p95 / p99 ms",
    "audio in p50 / p95 ms",
    "silence p95 ms",
    "CPU ms per session-s",
    "core",
    "waited",
    "MiB a session",
    "messages in / out",
    "turns",
    "stale",
    "refused",
    "errors",
    "late",
)


def _quantiles(values: Sequence[float], *percents: int) -> str:
    if len(values) < 2:
        return "-"
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return " / ".join(f"{cuts[percent - 1]:.1f}" for percent in percents)


def _take_audio_in(upstream: str) -> tuple[int, list[float]]:
    with urllib.request.urlopen(f"http://{upstream}/audio-in", timeout=30) as answer:
        figures = json.load(answer)
    return figures["messages"], figures["took_ms"]


async def measure(layer: str, served: Served, upstream: str, sessions: int) -> Row:
    """Let ``sessions`` clients talk, and count once they have settled."""
    figures = Figures()
    clients: list[Client] = []
    async with asyncio.TaskGroup() as tasks:
        talking = tasks.create_task(talk(clients, figures))
        await connect(served.port, 1, clients, figures)
        await asyncio.sleep(1)
        before_mib = served.memory_mib
        await connect(served.port, sessions - 1, clients, figures)
        await asyncio.sleep(SETTLE_S)
        await asyncio.to_thread(_take_audio_in, upstream)
        figures.counting = True
        began_s, began_cpu_s, began_waited_s = time.monotonic(), served.cpu_s, served.waited_s
        await asyncio.sleep(MEASURE_S)
        figures.counting = False
        took_s, used_s = time.monotonic() - began_s, served.cpu_s - began_cpu_s
        waited_s = served.waited_s - began_waited_s
        messages_in, audio_in_ms = await asyncio.to_thread(_take_audio_in, upstream)
        row = Row(
            layer=layer,
            sessions=sessions,
            served=sum(client.ready for client in clients),
            turn_ms=figures.turn_ms,
            audio_in_ms=audio_in_ms,
            silence_ms=figures.silence_ms,
            cpu_share=used_s / took_s,
            waited_share=waited_s / took_s,
            memory_mib=served.memory_mib - before_mib if sessions > 1 else math.nan,
            seconds=took_s,
            messages_in=messages_in,
            errors=len(figures.errors) + figures.closed,
            figures=figures,
        )
        talking.cancel()
    for error in figures.errors[:3]:
        print(error, file=sys.stderr)  # noqa: T201  # a command
    for client in clients:
        client.transport.abort()
    return row


def main() -> None:
    """Print one row for each layer and number of sessions; each has a fresh server."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--layer", choices=LAYERS, action="append", help="all, where none is named")
    parser.add_argument("sessions", type=int, nargs="*", default=SESSIONS)
    asked = parser.parse_args()
    os.sched_setaffinity(0, {OTHER_CORE})
    print(f"{described()}\nMeasured for {MEASURE_S:g} s.\n")  # noqa: T201
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")  # noqa: T201
    for sessions in asked.sessions:
        for layer in asked.layer or LAYERS:
            with process(OTHER_CORE, "-m", "tests.bench.upstreams") as upstreams:
                assert upstreams.stdout is not None
                upstream = f"127.0.0.1:{upstreams.stdout.readline().strip()}"
                with LAYERS[layer](upstream) as served:
                    print(asyncio.run(measure(layer, served, upstream, sessions)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
