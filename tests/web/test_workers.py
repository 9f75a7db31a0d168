"""Server processes: what signals do to one, and to several that share a port."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from tests.fakes.asgi import RawWebSocket, upgrade_request
from tests.fakes.served_process import create_broken, create_obedient
from voice_fsm.web import workers
from voice_fsm.web.serve import ServeConfig, serve_until_signal
from voice_fsm.web.workers import WorkersFail, supervise

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[RawWebSocket]:
    """Open a TCP connection."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        yield RawWebSocket(stream)


@asynccontextmanager
async def websocket(port: int) -> AsyncIterator[RawWebSocket]:
    """Open a WebSocket."""
    async with connection(port) as client:
        await client.stream.send_all(upgrade_request())
        assert (await client.read_head()).startswith(b"HTTP/1.1 101 ")
        yield client


async def pid_of_server(port: int) -> int:
    """Ask whichever process answers who it is."""
    async with connection(port) as client:
        await client.stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        return int((await client.read_to_end()).rpartition(b"\r\n\r\n")[2])


async def pids_of_servers(port: int, count: int) -> set[int]:
    """Ask until so many have answered."""
    pids: set[int] = set()
    with trio.fail_after(20):
        while len(pids) < count:
            pids.add(await pid_of_server(port))
    return pids


@attrs.frozen
class Running:
    """A server in a process of its own."""

    process: trio.Process
    port: int

    async def end(self) -> float:
        """Wait for the end, which has to be a clean one; tells how long it took, in seconds."""
        began_s = trio.current_time()
        with trio.fail_after(20):
            assert await self.process.wait() == 0
        return trio.current_time() - began_s


@asynccontextmanager
async def running(factory: str, **settings: float) -> AsyncIterator[Running]:
    """Run `tests.fakes.served_process`."""
    words = [f"{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "tests.fakes.served_process", factory, *words]
    process = await trio.lowlevel.open_process(
        command, stdout=subprocess.PIPE, cwd=ROOT, start_new_session=True
    )
    assert process.stdout is not None
    async with process.stdout as stdout:
        try:
            with trio.fail_after(60):
                line = await stdout.receive_some()
            yield Running(process, int(line.rpartition(b":")[2]))
        finally:
            process.kill()
            with trio.move_on_after(5, shield=True):
                await process.wait()


def is_running(pid: int) -> bool:
    """Whether the process is there, and more than a corpse."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return not ("\nState:\tZ" in status and "\nThreads:\t1\n" in status)


async def all_ended(pids: set[int]) -> None:
    """Wait until no process is left."""
    with trio.fail_after(20):
        while any(map(is_running, pids)):  # others' children set no event for us
            await trio.sleep(0.02)


async def refused(port: int) -> None:
    """Wait until nobody listens."""
    with trio.fail_after(10), suppress(OSError):
        while True:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.aclose()


@pytest.mark.parametrize("workers", [1, 2])
async def test_ctrl_c_drains(workers: int) -> None:
    """The terminal sends it to all processes in the foreground; only the parent takes notice."""
    async with running("create_obedient", workers=workers, drain_s=60) as server:
        async with websocket(server.port) as client:
            await client.read_text()
            os.killpg(server.process.pid, signal.SIGINT)
            assert await client.read_close() == 1012
        assert await server.end() < 10


@asynccontextmanager
async def supervised(**settings: float) -> AsyncIterator[int]:
    """Be the parent of two workers, until a signal; gives the port."""
    config = ServeConfig(port=0, workers=2, **settings)  # type: ignore[arg-type]  # numbers, by contract
    async with trio.open_nursery() as nursery:
        urls: list[str] = await nursery.start(supervise, create_obedient, config)
        try:
            yield int(urls[0].rpartition(":")[2])
        finally:
            nursery.cancel_scope.deadline = trio.current_time() + 20


async def test_workers_share_the_port_and_are_replaced() -> None:
    """Both get clients; in the place of one that is killed comes another, and the rest goes on."""
    async with supervised(drain_s=30) as port:
        pids = await pids_of_servers(port, 2)
        assert os.getpid() not in pids
        async with websocket(port) as client:
            survivor = int(await client.read_text())
            (victim,) = pids - {survivor}
            os.kill(victim, signal.SIGKILL)
            await all_ended({victim})
            assert await pid_of_server(port) == survivor, "a client went to nobody"
            replaced = await pids_of_servers(port, 2)
            assert survivor in replaced
            assert victim not in replaced
            # What a service manager does. The workers must not take it for two orders.
            for pid in (*replaced, os.getpid()):
                os.kill(pid, signal.SIGTERM)
            assert await client.read_close() == 1012
        began_s = trio.current_time()
    assert trio.current_time() - began_s < 10
    await all_ended(replaced)


async def test_a_second_signal_ends_workers_at_once() -> None:
    """The parent passes both orders on."""
    async with supervised(drain_s=60, shutdown_s=60, close_timeout_s=60) as port:
        pids = await pids_of_servers(port, 2)
        async with websocket(port) as client:
            await client.read_text()
            os.kill(os.getpid(), signal.SIGINT)
            await refused(port)
            # Its session has closed, but this client does not leave.
            os.kill(os.getpid(), signal.SIGINT)
            await all_ended(pids)


async def test_workers_do_not_outlive_their_parent() -> None:
    """When it is killed, they drain and end."""
    async with running("create_obedient", workers=2, drain_s=30) as server:
        pids = await pids_of_servers(server.port, 2)
        async with websocket(server.port) as client:
            await client.read_text()
            server.process.kill()
            assert await client.read_close() == 1012
        await all_ended(pids)


async def test_a_worker_that_does_not_obey_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that hangs has its deadlines and a little more."""
    monkeypatch.setattr(workers, "_KILL_AFTER_S", 0.2)
    async with supervised(drain_s=0.1, shutdown_s=0.1) as port:
        pids = await pids_of_servers(port, 2)
        os.kill(min(pids), signal.SIGSTOP)
        began_s = trio.current_time()
        os.kill(os.getpid(), signal.SIGTERM)
    assert 0.3 < trio.current_time() - began_s < 4.5
    assert not any(map(is_running, pids))


async def test_workers_that_cannot_start_end_everything(caplog: pytest.LogCaptureFixture) -> None:
    """After some attempts, each told in the log with the code the worker ended with."""
    config = ServeConfig(port=0, workers=1)
    with pytest.raises(ExceptionGroup) as caught:
        await supervise(create_broken, config, first_delay_s=0.01, max_failures=2)
    assert caught.group_contains(WorkersFail, match="2 times in a row, with code 3")
    assert "a worker ended with code 3; the next starts in 0.0 s" in caplog.text


async def test_a_signal_ends_the_wait_for_the_next_attempt(caplog: pytest.LogCaptureFixture) -> None:
    """A parent whose worker has just failed stops as readily as any other."""
    config = ServeConfig(port=0, workers=1)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(supervise, create_broken, config, first_delay_s=1000))
            while "the next starts in 1000.0 s" not in caplog.text:
                await trio.sleep(0.02)
            os.kill(os.getpid(), signal.SIGTERM)


def test_the_number_of_workers_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """One needs no parent."""
    started: list[object] = []
    monkeypatch.setattr(trio, "run", lambda main, *_: started.append(main))
    for count in (1, 2):
        workers.run(create_obedient, ServeConfig(workers=count))
    assert started == [serve_until_signal, supervise]
