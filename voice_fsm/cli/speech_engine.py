"""``voice-fsm speech-engine``."""

import json
from collections.abc import Awaitable, Callable
from typing import Any, BinaryIO, TypeVar

import click
import trio

from voice_fsm.cli.sentences import in_sentences
from voice_fsm.cli.settings import read_settings
from voice_fsm.upstream.elevenlabs_agents import AgentsApi
from voice_fsm.upstream.http import open_client

T = TypeVar("T")


@click.group("speech-engine")
def speech_engine() -> None:
    """Manage the speech engines of an ElevenLabs account: what makes ElevenLabs call this server."""


_engine_settings = click.option(
    "--settings",
    "settings_file",
    type=click.File("rb"),
    help="JSON with any settings of ElevenLabs' API; the other options win.",
)


@speech_engine.command("create")
@click.option("--ws-url", required=True, help="Where ElevenLabs finds /v1/speech-engine/ws, as wss://...")
@click.option("--name", default="voice-fsm", show_default=True)
@click.option("--voice", help="Id of the voice.")
@_engine_settings
def create_engine(ws_url: str, name: str, voice: str | None, settings_file: BinaryIO | None) -> None:
    """Create an engine that calls --ws-url, and print its id."""
    body = _engine_body(settings_file, ws_url=ws_url, name=name, voice=voice)
    engine = _call_agents_api(lambda api: api.create_engine(body))
    click.echo(engine.get("speech_engine_id"))


@speech_engine.command("list")
def list_engines() -> None:
    """Print id and name of each engine."""
    for engine in _call_agents_api(lambda api: api.engines()):
        click.echo(f"{engine.get('speech_engine_id')}\t{engine.get('name')}")


@speech_engine.command("update")
@click.argument("engine_id")
@click.option("--ws-url", help="Where ElevenLabs finds /v1/speech-engine/ws, as wss://...")
@click.option("--name")
@click.option("--voice", help="Id of the voice.")
@_engine_settings
def update_engine(
    engine_id: str, ws_url: str | None, name: str | None, voice: str | None, settings_file: BinaryIO | None
) -> None:
    """Change what is given of an engine."""
    body = _engine_body(settings_file, ws_url=ws_url, name=name, voice=voice)
    if not body:
        raise click.UsageError("Say what is to be changed.")
    _call_agents_api(lambda api: api.update_engine(engine_id, body))


@speech_engine.command("delete")
@click.argument("engine_id")
@click.confirmation_option(prompt="Delete this engine?")
def delete_engine(engine_id: str) -> None:
    """Delete an engine."""
    _call_agents_api(lambda api: api.delete_engine(engine_id))


def _engine_body(
    settings_file: BinaryIO | None, *, ws_url: str | None, name: str | None, voice: str | None
) -> dict[str, Any]:
    try:
        body = json.load(settings_file) if settings_file is not None else {}
    except ValueError as error:
        raise click.BadParameter(f"is not JSON: {error}", param_hint="--settings") from None
    if not isinstance(body, dict):
        raise click.BadParameter("is not a JSON object", param_hint="--settings")
    if name is not None:
        body["name"] = name
    if ws_url is not None:
        body["speech_engine"] = {**body.get("speech_engine", {}), "ws_url": ws_url}
    if voice is not None:
        body["tts"] = {**body.get("tts", {}), "voice_id": voice}
    return body


def _call_agents_api(call: Callable[[AgentsApi], Awaitable[T]]) -> T:
    chosen = read_settings().elevenlabs

    async def run() -> T:
        async with open_client() as client:
            return await call(AgentsApi(client, base_url=chosen.base_url, api_key=chosen.api_key or ""))

    if not chosen.api_key:
        raise click.ClickException("ELEVENLABS_API_KEY is needed for this")
    with in_sentences():
        return trio.run(run)
