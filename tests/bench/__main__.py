"""Run the bench: ``python -m tests.bench [K ...]``."""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from tests.bench.clients import Figures, connect, talk
from tests.bench.upstreams import UTTERANCE_S

SETTLE_S = 6.0
MEASURE_S = 16.0
SERVER_CORE, OTHER_CORE = 0, 1


@attrs.frozen
class Row:
    """The figures of one number of sessions."""

    sessions: int
    turn_ms: tuple[float, float, float]
    silence_ms: tuple[float, float, float]
    cpu_ms: float
    """CPU of the server per session and second."""
    memory_mib: float
    """Resident memory of the server per session."""
    turns: int
    stale: int
    errors: int
    late: float

    def __str__(self) -> str:
        turn, silence = (" / ".join(f"{value:.1f}" for value in ms) for ms in (self.turn_ms, self.silence_ms))
        return (
            f"| {self.sessions} | {turn} | {silence} | {self.cpu_ms:.2f} | {self.memory_mib:.3f} "
            f"| {self.turns} | {self.stale} | {self.errors} | {self.late:.0%} |"
        )


HEADER = """\
| K | turn overhead p50/p95/p99 ms | barge-in p50/p95/p99 ms | CPU ms per session-s | MiB a session \
| turns | stale | errors | late ticks |
|---|---|---|---|---|---|---|---|---|"""


@contextmanager
def process(core: int, *command: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program on one core, ended with the block."""
    pinned = ["taskset", "-c", str(core), sys.executable, *command]
    with subprocess.Popen(pinned, stdout=subprocess.PIPE, text=True, env={**os.environ, **env}) as child:
        try:
            yield child
        finally:
            child.terminate()


@contextmanager
def server(upstream_port: str) -> Iterator[tuple[int, int]]:
    """Our server against the bench's upstreams; gives its process id and port."""
    upstream = f"http://127.0.0.1:{upstream_port}"
    env = {
        "ELEVENLABS_API_KEY": "bench",
        "ELEVENLABS_BASE_URL": upstream,
        "BACKEND_BASE_URL": upstream,
        "MAX_SESSIONS": "2000",
        "LOG_LEVEL": "error",
        "DRAIN_S": "1",
    }
    with process(SERVER_CORE, "-m", "voice_fsm", "serve", "--port", "0", **env) as child:
        assert child.stdout is not None
        line = next(line for line in child.stdout if "Talk to it" in line)
        yield child.pid, int(line.split("/test")[0].rsplit(":", 1)[1])


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> float:
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return resident * os.sysconf("SC_PAGE_SIZE") / 2**20


def quantiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return (values[0], values[0], values[0]) if values else (float("nan"),) * 3
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return cuts[49], cuts[94], cuts[98]


async def measure(pid: int, port: int, sessions: int) -> Row:
    """Let ``sessions`` clients talk, and count once they have settled."""
    figures = Figures()
    before_mib = memory_mib(pid)
    clients = await connect(port, sessions, figures)
    await talk(clients, SETTLE_S)
    figures.counting = True
    began_s, began_cpu_s = time.monotonic(), cpu_s(pid)
    late = await talk(clients, MEASURE_S)
    took_s, used_s = time.monotonic() - began_s, cpu_s(pid) - began_cpu_s
    figures.counting = False
    row = Row(
        sessions=sessions,
        turn_ms=quantiles(figures.turn_ms),
        silence_ms=quantiles(figures.silence_ms),
        cpu_ms=used_s / took_s / sessions * 1000,
        memory_mib=(memory_mib(pid) - before_mib) / sessions,
        turns=len(figures.turn_ms),
        stale=figures.stale_chunks,
        errors=len(figures.errors) + figures.closed,
        late=late,
    )
    for error in figures.errors[:3]:
        print(error, file=sys.stderr)  # noqa: T201  # a command
    for client in clients:
        client.transport.abort()
    return row


def main() -> None:
    """Print one row for each number of sessions; each has a fresh server."""
    os.sched_setaffinity(0, {OTHER_CORE})
    print(f"{UTTERANCE_S:g} s of speech a turn, 100 ms chunks, {MEASURE_S:g} s measured")  # noqa: T201
    print(HEADER)  # noqa: T201
    for sessions in map(int, sys.argv[1:] or ["1", "10", "50", "100", "200"]):
        with process(OTHER_CORE, "-m", "tests.bench.upstreams") as upstreams:
            assert upstreams.stdout is not None
            with server(upstreams.stdout.readline().strip()) as (pid, port):
                print(asyncio.run(measure(pid, port, sessions)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
