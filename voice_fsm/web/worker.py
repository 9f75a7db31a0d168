"""The process of one worker; `workers` starts it and tells it what to do."""

import os
import pickle
import signal
import socket
from collections.abc import AsyncIterable
from contextlib import suppress
from functools import partial
from typing import cast

import trio

from voice_fsm.web.garbage import spare_the_collector
from voice_fsm.web.serve import AppFactory, ServeConfig, Stopping, serve
from voice_fsm.web.workers import JOB_LENGTH_BYTES, READY, STOP_AT_ONCE


def main() -> None:
    """Do the job that the parent sends on standard input."""
    with socket.socket(fileno=os.dup(0)) as link:
        create_app, config = _receive_job(link)
        trio.run(_serve, create_app, config, link)


def _receive_job(link: socket.socket) -> tuple[AppFactory, ServeConfig]:
    length = int.from_bytes(link.recv(JOB_LENGTH_BYTES, socket.MSG_WAITALL), "big")
    job = pickle.loads(link.recv(length, socket.MSG_WAITALL))  # noqa: S301  # our own parent wrote it
    return cast(tuple[AppFactory, ServeConfig], job)


async def _serve(create_app: AppFactory, config: ServeConfig, link: socket.socket) -> None:
    draining = trio.Event()
    app = create_app(draining)
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with (
            trio.SocketStream(trio.socket.from_stdlib_socket(link)) as parent,
            trio.open_nursery() as nursery,
        ):
            stopping = Stopping(nursery.cancel_scope)
            nursery.start_soon(_obey_parent, parent, stopping)
            nursery.start_soon(_obey_signals, signals, stopping)
            async with trio.open_nursery() as server:
                start = partial(
                    serve,
                    app,
                    config,
                    shutdown_trigger=stopping.asked.wait,
                    draining=draining,
                    shared=True,
                )
                await server.start(start)
                spare_the_collector()
                await parent.send_all(READY)
            nursery.cancel_scope.cancel(reason="the server has ended")


async def _obey_parent(parent: trio.SocketStream, stopping: Stopping) -> None:
    with suppress(trio.BrokenResourceError):
        async for orders in parent:
            if STOP_AT_ONCE in orders:
                stopping.at_once()
            stopping.drain()
    stopping.drain()  # there is no parent any more


async def _obey_signals(signals: AsyncIterable[int], stopping: Stopping) -> None:
    async for _ in signals:
        stopping.drain()


if __name__ == "__main__":
    main()
