"""``voice-fsm serve``."""

import ipaddress
import math
import secrets
from functools import partial

import attrs
import click
import trio
from hypercorn.utils import LifespanFailureError
from starlette.applications import Starlette

from voice_fsm.cli.sentences import in_sentences
from voice_fsm.cli.settings import read_settings, warnings
from voice_fsm.config import Settings
from voice_fsm.observe import configure_logging
from voice_fsm.runtime.agents import load_agents
from voice_fsm.web.app import create_app
from voice_fsm.web.garbage import spare_the_collector
from voice_fsm.web.serve import serve_until_signal
from voice_fsm.web.serve_config import ServeConfig
from voice_fsm.web.workers import supervise


@click.command()
@click.option("--host", help="Address to listen on (HOST).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 for a free one (PORT).")
@click.option("--workers", type=click.IntRange(1), help="Processes (WORKERS).")
def serve(host: str | None, port: int | None, workers: int | None) -> None:
    """Serve until Ctrl-C or SIGTERM; settings come from the environment and .env."""
    settings = read_settings(HOST=host, PORT=port, WORKERS=workers)
    server = settings.server
    for warning in warnings(settings):
        click.echo(f"warning: {warning}", err=True)
    if not settings.access.service_api_keys and not _is_loopback(server.host):
        click.echo(
            f"warning: whoever reaches {server.host or 'this machine'} can use this server; "
            "SERVICE_API_KEYS asks for a key.",
            err=True,
        )
    with in_sentences(LifespanFailureError, address=f"{server.host}:{server.port}"):
        trio.run(_serve, settings)


def _make_app(settings: Settings, draining: trio.Event) -> Starlette:
    """Make the app in whichever process it is to run."""
    configure_logging(settings.server.log_level, settings.server.log_format)
    return create_app(settings, draining)


async def _serve(settings: Settings) -> None:
    load_agents(settings)  # what is wrong in the file is told before there is any process to tell it
    server = settings.server
    config = ServeConfig(
        host=server.host,
        port=server.port,
        workers=server.workers,
        drain_s=settings.limits.drain_s,
        tcp_user_timeout_s=settings.limits.tcp_user_timeout_s,
        ws_max_message_bytes=settings.limits.max_message_bytes,
        # Who uploads a recording is silent until it has been understood.
        read_timeout_s=math.ceil(settings.uploads.max_recording_s) + 60,
    )
    create = partial(_make_app, _with_token_secret(settings))
    async with trio.open_nursery() as nursery:
        run = serve_until_signal if config.workers == 1 else supervise
        addresses: list[str] = await nursery.start(run, create, config)
        spare_the_collector()
        chosen = settings.providers
        click.echo(f"Speech to text: {chosen.stt}   chat: {chosen.chat}   text to speech: {chosen.tts}")
        for address in addresses:
            click.echo(f"Talk to it at {address}/test   (WebSocket: {_ws(address)}/v1/voice/ws)")


def _with_token_secret(settings: Settings) -> Settings:
    """Settings for all workers, so that each knows the tokens of the others."""
    if settings.access.token_secret:
        return settings
    return attrs.evolve(settings, access=attrs.evolve(settings.access, token_secret=secrets.token_hex()))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _ws(address: str) -> str:
    return address.replace("http", "ws", 1)
