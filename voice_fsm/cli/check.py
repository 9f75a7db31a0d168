"""``voice-fsm check``."""

import sys

import click
import trio

from voice_fsm.checkup import check_upstreams
from voice_fsm.cli.settings import read_settings, warnings
from voice_fsm.observe import configure_logging


@click.command()
def check() -> None:
    """Show the settings in force, and try each upstream for real."""
    configure_logging("error", "console")
    settings = read_settings()
    for warning in warnings(settings):
        click.echo(f"warning: {warning}")
    for variable, value in settings.masked().items():
        click.echo(f"{variable}={value}")
    findings = trio.run(check_upstreams, settings)
    for finding in findings:
        click.echo(f"{'ok  ' if finding.ok else 'FAIL'} {finding.name}: {finding.text}")
    sys.exit(0 if all(finding.ok for finding in findings) else 1)
