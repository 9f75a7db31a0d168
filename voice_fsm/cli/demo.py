"""``voice-fsm demo``."""

import json
import sys
from functools import partial
from pathlib import Path

import attrs
import click
import trio
from hypercorn.utils import LifespanFailureError

from voice_fsm.cli.sentences import in_sentences
from voice_fsm.cli.settings import read_settings
from voice_fsm.client.demo import DemoResult, run_demo
from voice_fsm.observe import configure_logging


@click.command()
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
    with in_sentences(LifespanFailureError):
        result: DemoResult = trio.run(
            partial(run_demo, read_settings(), url=url, wav=wav, out=out, say=watch),
            # Hypercorn logs what ends an app's task, and goes on; Ctrl-C must not end there.
            restrict_keyboard_interrupt_to_checkpoints=True,
        )
    if as_json:
        click.echo(json.dumps(attrs.asdict(result), indent=2))
    else:
        click.echo(result.summary())
    sys.exit(0 if result.ok else 1)
