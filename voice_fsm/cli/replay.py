"""``voice-fsm replay``."""

import json
import sys
from pathlib import Path

import attrs
import click

from voice_fsm.cli.sentences import in_sentences
from voice_fsm.recording.reading import BadRecording, read_recording
from voice_fsm.recording.replay import replay
from voice_fsm.recording.timeline import make_timeline
from voice_fsm.recording.timeline_html import render_html
from voice_fsm.recording.timeline_text import render_text


@click.command("replay")
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
    with in_sentences():
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
