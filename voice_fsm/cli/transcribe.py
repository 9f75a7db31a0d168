"""``voice-fsm transcribe``."""

import json
from functools import partial
from pathlib import Path

import attrs
import click
import trio

from voice_fsm.cli.sentences import in_sentences
from voice_fsm.cli.settings import read_settings
from voice_fsm.client.transcribe import TranscribeResult, transcribe_file
from voice_fsm.observe import configure_logging


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--language", help="Language of the recording, such as en.")
@click.option("--json", "as_json", is_flag=True, help="Print the words with their times, as JSON.")
def transcribe(file: Path, language: str | None, *, as_json: bool) -> None:
    """Print what a recording says; no server is needed.

    FILE is WAV, MP3, Ogg, FLAC, WebM or MP4. The recogniser is that of the settings.
    """
    configure_logging("warning", "console")
    with in_sentences():
        result: TranscribeResult = trio.run(
            partial(transcribe_file, read_settings(), file.read_bytes(), language=language)
        )
    click.echo(json.dumps(attrs.asdict(result), indent=2) if as_json else result.text)
