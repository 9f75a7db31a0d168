"""``voice-fsm diagram``."""

from typing import get_args

import click

from voice_fsm.cli.sentences import in_sentences
from voice_fsm.diagram import DiagramFormat, render


@click.command()
@click.option("--format", "diagram_format", type=click.Choice(get_args(DiagramFormat)), default="mermaid")
def diagram(diagram_format: DiagramFormat) -> None:
    """Draw the session machine, from its code."""
    with in_sentences():
        click.echo(render(diagram_format), nl=False)
