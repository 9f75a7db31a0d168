"""``voice-fsm say``."""

import sys
from pathlib import Path

import click
import trio

from voice_fsm.cli.sentences import in_sentences
from voice_fsm.cli.settings import read_settings
from voice_fsm.client.say import make_order, say
from voice_fsm.observe import configure_logging


@click.command("say")
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
    settings = read_settings(TTS_PROVIDER=provider)
    with in_sentences():
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
