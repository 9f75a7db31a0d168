"""The command ``voice-fsm``."""

import errno
import ipaddress
import json
import math
import os
import secrets
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar, get_args

import attrs
import click
import trio
from hypercorn.utils import LifespanFailureError
from starlette.applications import Starlette

from voice_fsm.checkup import check_upstreams
from voice_fsm.client.demo import DemoResult, run_demo
from voice_fsm.client.say import make_order, say
from voice_fsm.client.transcribe import TranscribeResult, transcribe_file
from voice_fsm.config import Settings, load_settings, retirement_warnings, spelling_warnings
from voice_fsm.diagram import DiagramFormat, render
from voice_fsm.errors import VoiceError
from voice_fsm.observe import configure_logging
from voice_fsm.recording.reading import BadRecording, read_recording
from voice_fsm.recording.replay import replay
from voice_fsm.recording.timeline import make_timeline
from voice_fsm.recording.timeline_html import render_html
from voice_fsm.recording.timeline_text import render_text
from voice_fsm.runtime.agents import load_agents
from voice_fsm.upstream.elevenlabs_agents import AgentsApi
from voice_fsm.upstream.http import open_client
from voice_fsm.web.app import create_app
from voice_fsm.web.garbage import spare_the_collector
from voice_fsm.web.serve import serve_until_signal
from voice_fsm.web.serve_config import ServeConfig
from voice_fsm.web.workers import supervise

T = TypeVar("T")

DOTENV: Final = Path(".env")
_EXPECTED: Final = (VoiceError, LifespanFailureError, OSError)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="voice-fsm")
def main() -> None:
    """A voice for any chat backend."""


@main.command()
@click.option("--host", help="Address to listen on (HOST).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 for a free one (PORT).")
@click.option("--workers", type=click.IntRange(1), help="Processes (WORKERS).")
def serve(host: str | None, port: int | None, workers: int | None) -> None:
    """Serve until Ctrl-C or SIGTERM; settings come from the environment and .env."""
    settings = _settings(HOST=host, PORT=port, WORKERS=workers)
    server = settings.server
    for warning in _warnings(settings):
        click.echo(f"warning: {warning}", err=True)
    if not settings.access.service_api_keys and not _is_loopback(server.host):
        click.echo(
            f"warning: whoever reaches {server.host or 'this machine'} can use this server; "
            "SERVICE_API_KEYS asks for a key.",
            err=True,
        )
    with _in_sentences(address=f"{server.host}:{server.port}"):
        trio.run(_serve, settings)


@main.command()
@click.option("--url", help="WebSocket of a running server, such as ws://127.0.0.1:8000/v1/voice/ws.")
@click.option("--wav", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="What to say.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Where to write the reply (WAV)."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end instead of a story.")
def demo(url: str | None, wav: Path | None, out: Path | None, *, as_json: bool) -> None:
    """Speak a question to a server in real time, and show what comes back.

    Without --url a server of its own is started in this process. Exits with 0 if a transcript, a reply
    and audio came.
    """
    configure_logging("warning", "console")
    watch = (lambda _: None) if as_json else click.echo
    with _in_sentences():
        result: DemoResult = trio.run(partial(run_demo, _settings(), url=url, wav=wav, out=out, say=watch))
    if as_json:
        click.echo(json.dumps(attrs.asdict(result), indent=2))
    else:
        click.echo(result.summary())
    sys.exit(0 if result.ok else 1)


@main.command("say")
@click.argument("text")
@click.option("--voice", help="Voice, by the provider's name for it.")
@click.option("--provider", help="Who speaks (TTS_PROVIDER).")
@click.option("--model", help="Model that speaks.")
@click.option("--format", "format_name", help="Such as pcm_24000 or mp3_44100_128; PCM if left out.")
@click.option("--speed", type=click.FloatRange(0.25, 4), help="1.0 is the voice's own pace.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="File to write, or - for the audio alone on standard output. Left out: reply.wav, reply.mp3, ...",
)
@click.option("--no-cache", is_flag=True, help="Synthesize it anew, and keep nothing.")
def say_command(
    text: str,
    *,
    voice: str | None,
    provider: str | None,
    model: str | None,
    format_name: str | None,
    speed: float | None,
    out: Path | None,
    no_cache: bool,
) -> None:
    """Speak TEXT into a file; - reads it from standard input. No server is needed."""
    configure_logging("warning", "console")
    settings = _settings(TTS_PROVIDER=provider)
    with _in_sentences():
        order = make_order(
            sys.stdin.read() if text == "-" else text,
            default_hz=settings.synthesis.sample_rate_hz,
            format_name=format_name,
            voice=voice,
            model=model,
            speed=speed,
            out=out,
            cache=not no_cache,
        )
        click.echo(trio.run(say, settings, order), err=True)


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--language", help="Language of the recording, such as en.")
@click.option("--json", "as_json", is_flag=True, help="Print the words with their times, as JSON.")
def transcribe(file: Path, language: str | None, *, as_json: bool) -> None:
    """Print what a recording says; no server is needed.

    FILE is WAV, MP3, Ogg, FLAC, WebM or MP4. The recogniser is that of the settings.
    """
    configure_logging("warning", "console")
    with _in_sentences():
        result: TranscribeResult = trio.run(
            partial(transcribe_file, _settings(), file.read_bytes(), language=language)
        )
    click.echo(json.dumps(attrs.asdict(result), indent=2) if as_json else result.text)


@main.command()
def check() -> None:
    """Show the settings in force, and try each upstream for real."""
    configure_logging("error", "console")
    settings = _settings()
    for warning in _warnings(settings):
        click.echo(f"warning: {warning}")
    for variable, value in settings.masked().items():
        click.echo(f"{variable}={value}")
    findings = trio.run(check_upstreams, settings)
    for finding in findings:
        click.echo(f"{'ok  ' if finding.ok else 'FAIL'} {finding.name}: {finding.text}")
    sys.exit(0 if all(finding.ok for finding in findings) else 1)


@main.command()
@click.option("--format", "diagram_format", type=click.Choice(get_args(DiagramFormat)), default="mermaid")
def diagram(diagram_format: DiagramFormat) -> None:
    """Draw the session machine, from its code."""
    with _in_sentences():
        click.echo(render(diagram_format), nl=False)


@main.command("replay")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--timeline", type=click.Choice(["text", "none"]), default="text", help="Whether to tell what happened."
)
@click.option(
    "--html", type=click.Path(dir_okay=False, path_type=Path), help="Where to draw it, as a page of its own."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the verdict as one JSON object, and no timeline."
)
def replay_command(file: Path, timeline: str, html: Path | None, *, as_json: bool) -> None:
    """Step the machine through a recorded session, and prove that the same effects come out.

    Exits with 0 if they do, 1 if not, or if steps are missing, and 2 if FILE is no recording.
    """
    with _in_sentences():
        try:
            recording = read_recording(file.read_bytes())
        except BadRecording as error:
            raise click.UsageError(f"{file}: {error}.") from None
        proof = replay(recording)
        drawn = make_timeline(recording)
        if html is not None:
            html.write_text(render_html(drawn), encoding="utf-8")
    if as_json:
        click.echo(
            json.dumps({"holds": proof.holds, **attrs.asdict(proof), "notes": recording.notes}, indent=2)
        )
    else:
        if timeline == "text":
            click.echo(render_text(drawn))
        click.echo(proof.summary())
    sys.exit(0 if proof.holds else 1)


@main.group("speech-engine")
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
    chosen = _settings().elevenlabs

    async def run() -> T:
        async with open_client() as client:
            return await call(AgentsApi(client, base_url=chosen.base_url, api_key=chosen.api_key or ""))

    if not chosen.api_key:
        raise click.ClickException("ELEVENLABS_API_KEY is needed for this")
    with _in_sentences():
        return trio.run(run)


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


def _settings(**flags: object) -> Settings:
    """Settings, with what flags say in the place of their variables."""
    given = {name: str(value) for name, value in flags.items() if value is not None}
    with _in_sentences():
        return load_settings({**os.environ, **given}, _dotenv())


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


def _warnings(settings: Settings) -> tuple[str, ...]:
    return spelling_warnings(os.environ, _dotenv()) + retirement_warnings(settings)


def _dotenv() -> Path | None:
    return DOTENV if DOTENV.is_file() else None


def _ws(address: str) -> str:
    return address.replace("http", "ws", 1)


@contextmanager
def _in_sentences(*, address: str = "") -> Iterator[None]:
    """Tell what went wrong in a sentence, if it is no fault of ours; ``address`` is the one to listen on."""
    try:
        yield
    except _EXPECTED as error:
        raise click.ClickException(_sentence(error, address)) from None
    except BaseExceptionGroup as group:  # of a run that is over
        if group.subgroup(KeyboardInterrupt):
            raise click.Abort from None
        expected, faults = group.split(_EXPECTED)
        if expected is None or faults is not None:
            raise
        raise click.ClickException(_sentence(expected, address)) from None


def _sentence(error: BaseException, address: str) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if address and isinstance(error, OSError):
        return f"cannot {f'listen on {address}' if _is_about_an_address(error) else 'start'}: {error}"
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, VoiceError):
        cause = cause.__context__  # an app that failed to start wraps what was wrong
    return str(cause or error)


def _is_about_an_address(error: OSError) -> bool:
    numbers = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)
    return isinstance(error, socket.gaierror) or error.errno in numbers
