"""The programs that are measured, each on a core of its own, with the bench's upstreams to speak to."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

import attrs

SERVER_CORE: Final = 0
OTHER_CORE: Final = 1


@attrs.frozen
class Served:
    """A layer at work."""

    pid: int
    port: int

    @property
    def cpu_s(self) -> float:
        """The processor time it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def waited_s(self) -> float:
        """The time for which it could have worked, had others not held its core."""
        _, waited_ns, _ = Path(f"/proc/{self.pid}/schedstat").read_text().split()
        return int(waited_ns) / 1e9

    @property
    def memory_mib(self) -> float:
        """The memory it has resident."""
        resident = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return resident * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def process(core: int, *command: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program on one core, ended with the block."""
    pinned = ["taskset", "-c", str(core), sys.executable, *command]
    with subprocess.Popen(pinned, stdout=subprocess.PIPE, text=True, env={**os.environ, **env}) as child:
        try:
            yield child
        finally:
            child.kill()


@contextmanager
def serve_ours(upstream: str) -> Iterator[Served]:
    """This project's server."""
    env = {
        "ELEVENLABS_API_KEY": "bench",
        "ELEVENLABS_BASE_URL": f"http://{upstream}",
        "BACKEND_BASE_URL": f"http://{upstream}",
        "MAX_SESSIONS": "2000",
        "LOG_LEVEL": "error",
    }
    with process(SERVER_CORE, "-m", "voice_fsm", "serve", "--port", "0", **env) as child:
        assert child.stdout is not None
        line = next(line for line in child.stdout if "Talk to it" in line)
        yield Served(child.pid, int(line.split("/test")[0].rsplit(":", 1)[1]))


@contextmanager
def serve_plain(upstream: str) -> Iterator[Served]:
    """The layer of `tests.bench.plain`."""
    with process(SERVER_CORE, "-m", "tests.bench.plain", UPSTREAM=upstream) as child:
        assert child.stdout is not None
        yield Served(child.pid, int(child.stdout.readline()))


LAYERS: Final[dict[str, Callable[[str], AbstractContextManager[Served]]]] = {
    "voice_fsm": serve_ours,
    "plain": serve_plain,
}
