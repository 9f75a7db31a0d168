"""The command ``voice-fsm``."""

from pkgutil import resolve_name
from typing import Final

import click

COMMANDS: Final = {
    "serve": "voice_fsm.cli.serve:serve",
    "check": "voice_fsm.cli.check:check",
    "demo": "voice_fsm.cli.demo:demo",
    "say": "voice_fsm.cli.say:say_command",
    "transcribe": "voice_fsm.cli.transcribe:transcribe",
    "diagram": "voice_fsm.cli.diagram:diagram",
    "replay": "voice_fsm.cli.replay:replay_command",
    "speech-engine": "voice_fsm.cli.speech_engine:speech_engine",
}
"""Where each is found. It is imported when it is asked for: a drawing does not wait for a web server."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # as above
        target = COMMANDS.get(cmd_name)
        found: click.Command | None = resolve_name(target) if target else None
        return found


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="voice-fsm")
def main() -> None:
    """A voice for any chat backend."""
