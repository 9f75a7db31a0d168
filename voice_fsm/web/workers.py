"""Several processes on one port, and a parent that keeps them running.

The parent holds the port without listening. Each worker binds to it as well and listens (SO_REUSEPORT): the
kernel spreads clients evenly over the workers, and none to one that is away. Of a socket that all inherit,
the worker that wakes first would take most.

A worker's standard input is a socket to its parent, on which it gets its job, then one byte for each order;
when it closes, the parent has died, and the worker drains. Signals could not carry the orders: a service
manager sends SIGTERM to the parent and the workers alike. So SIGTERM asks a worker to drain, however often it
comes, and its parent starts another.
"""

import logging
import pickle
import sys
from collections.abc import AsyncIterable
from contextlib import ExitStack, suppress
from functools import partial
from typing import Final

import attrs
import trio
from trio import socket

from voice_fsm.web.listeners import bind, urls
from voice_fsm.web.serve import STOP_SIGNALS, AppFactory, ServeConfig, serve_until_signal

JOB_LENGTH_BYTES: Final = 8
READY: Final = b"+"
STOP: Final = b"-"
STOP_AT_ONCE: Final = b"!"

_SETTLED_S: Final = 60.0
"""A worker that has lived so long did not end for the reason its predecessor ended for."""
_KILL_AFTER_S: Final = 5.0
"""What workers get on top of the deadlines they were told."""

_log: Final = logging.getLogger("hypercorn.error")


class WorkersFail(Exception):  # noqa: N818  # a sentence, not a kind of error
    """A worker ended again and again soon after its start."""


def run(create_app: AppFactory, config: ServeConfig) -> None:
    """Serve until SIGINT or SIGTERM, with as many processes as asked for.

    With more than one, ``create_app`` has to be picklable and is called in each process. What it needs there,
    such as logging, it has to set up itself.

    Raises:
        OSError: the address cannot be had.
        ExceptionGroup: the app's lifespan failed, or the workers do (`WorkersFail`).
    """
    trio.run(serve_until_signal if config.workers == 1 else supervise, create_app, config)


async def supervise(
    create_app: AppFactory,
    config: ServeConfig,
    *,
    first_delay_s: float = 0.5,
    max_failures: int = 6,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keep ``config.workers`` processes running until SIGINT or SIGTERM.

    Args:
        create_app: See `run`.
        config: As for a single process.
        first_delay_s: How long a failed worker's place stays empty; doubles while it goes on failing.
        max_failures: After so many in a row everything ends.
        task_status: Told the URLs, once all workers are ready.

    Raises:
        OSError: the address cannot be had.
        ExceptionGroup: with `WorkersFail`.
    """
    with ExitStack() as port_held, trio.open_signal_receiver(*STOP_SIGNALS) as signals:
        sockets = await bind(config, shared=True)
        for sock in sockets:
            port_held.callback(sock.close)
        job = pickle.dumps((create_app, attrs.evolve(config, port=sockets[0].getsockname()[1])))
        orders = _Orders(config)
        workers = [_Worker(job, orders, first_delay_s, max_failures) for _ in range(config.workers)]
        async with trio.open_nursery() as background:
            background.start_soon(orders.pass_on, signals, background.cancel_scope)
            background.start_soon(_announce, workers, urls(sockets), task_status)
            async with trio.open_nursery() as places:
                for worker in workers:
                    places.start_soon(worker.keep_running)
            background.cancel_scope.cancel(reason="all workers have ended")


class _Orders:
    """To drain, then to stop at once."""

    def __init__(self, config: ServeConfig) -> None:
        self._drain_s = config.drain_s + config.shutdown_s
        self.stop = trio.Event()
        self.stop_at_once = trio.Event()

    async def pass_on(self, signals: AsyncIterable[int], everything: trio.CancelScope) -> None:
        """Turn signals into orders; ``everything`` ends when an order was not obeyed in time."""
        async for _ in signals:
            if self.stop.is_set():
                self.stop_at_once.set()
                patience_s = _KILL_AFTER_S
            else:
                self.stop.set()
                patience_s = self._drain_s + _KILL_AFTER_S
            everything.deadline = trio.current_time() + patience_s


class _Worker:
    """The place of one worker process."""

    def __init__(self, job: bytes, orders: _Orders, first_delay_s: float, max_failures: int) -> None:
        self._job = job
        self._orders = orders
        self._first_delay_s = first_delay_s
        self._max_failures = max_failures
        self.ready = trio.Event()

    async def keep_running(self) -> None:
        """Run the process, and another when it ends, until told to stop.

        Raises:
            WorkersFail: it is of no use.
        """
        failures = 0
        while not self._orders.stop.is_set():
            born_s = trio.current_time()
            code = await self._run()
            if self._orders.stop.is_set():
                return
            failures = 1 if trio.current_time() - born_s > _SETTLED_S else failures + 1
            if failures == self._max_failures:
                raise WorkersFail(f"a worker ended {failures} times in a row, with code {code}")
            delay_s = self._first_delay_s * 2 ** (failures - 1)
            _log.error("a worker ended with code %d; the next starts in %.1f s", code, delay_s)
            with trio.move_on_after(delay_s):
                await self._orders.stop.wait()

    async def _run(self) -> int:
        """Run one process to its end; give its exit code, or minus the signal it died of."""
        ours, theirs = socket.socketpair()
        async with trio.SocketStream(ours) as link, trio.open_nursery() as nursery:
            with theirs:
                command = [sys.executable, "-m", "voice_fsm.web.worker"]
                start = partial(
                    trio.run_process,
                    command,
                    stdin=theirs.fileno(),
                    check=False,
                    deliver_cancel=_kill,
                    start_new_session=True,  # or Ctrl-C on the terminal would reach it past its parent
                )
                process: trio.Process = await nursery.start(start)
            nursery.start_soon(self._instruct, link)
            nursery.start_soon(self._hear, link)
            code = await process.wait()
            nursery.cancel_scope.cancel(reason="the worker has ended")
        return code

    async def _instruct(self, link: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):  # it has died, as its exit code will tell
            await link.send_all(len(self._job).to_bytes(JOB_LENGTH_BYTES, "big") + self._job)
            await self._orders.stop.wait()
            await link.send_all(STOP)
            await self._orders.stop_at_once.wait()
            await link.send_all(STOP_AT_ONCE)

    async def _hear(self, link: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            if await link.receive_some() == READY:
                self.ready.set()


async def _kill(process: trio.Process) -> None:
    process.kill()


async def _announce(workers: list[_Worker], addresses: list[str], status: trio.TaskStatus[list[str]]) -> None:
    for worker in workers:
        await worker.ready.wait()
    _log.info("%d workers serve %s", len(workers), ", ".join(addresses))
    status.started(addresses)
