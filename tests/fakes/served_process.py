"""A server in processes of its own: ``python -m tests.fakes.served_process FACTORY [SETTING=NUMBER ...]``."""

import os
import sys
from functools import partial

import trio
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.fakes.asgi import accept, respond, with_lifespan
from voice_fsm.web.serve import AppFactory, ServeConfig, serve_until_signal
from voice_fsm.web.workers import supervise


def create_obedient(draining: trio.Event) -> ASGIApp:
    """Tell the process id to a client, and close soon after it is time to drain."""

    async def websocket(_: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await send({"type": "websocket.send", "text": str(os.getpid())})
        await draining.wait()
        await trio.sleep(0.1)
        await send({"type": "websocket.close", "code": 1012})

    return with_lifespan(websocket, _tell_pid)


def create_broken(_: trio.Event) -> ASGIApp:
    """Do not even start."""
    sys.exit(3)


async def _tell_pid(_: Scope, _receive: Receive, send: Send) -> None:
    await respond(send, str(os.getpid()).encode())


async def _main(create_app: AppFactory, config: ServeConfig) -> None:
    async with trio.open_nursery() as nursery:
        serve = serve_until_signal if config.workers == 1 else partial(supervise, first_delay_s=0.05)
        urls: list[str] = await nursery.start(serve, create_app, config)
        print(urls[0], flush=True)  # noqa: T201  # what the test waits for


if __name__ == "__main__":
    settings = {name: float(value) for name, _, value in (word.partition("=") for word in sys.argv[2:])}
    workers = int(settings.pop("workers", 1))
    # Imported by its name, as a worker has to find the factory there.
    from tests.fakes import served_process

    factory = getattr(served_process, sys.argv[1])
    config = ServeConfig(port=0, workers=workers, **settings)  # type: ignore[arg-type]  # numbers, by contract
    trio.run(_main, factory, config)
