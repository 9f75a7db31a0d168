"""Who may talk to which agent: anybody to a public one, to a private one who shows a signed URL or a key."""

from typing import Final

from starlette.requests import HTTPConnection

from voice_fsm.errors import AccessDenied
from voice_fsm.runtime.agents import Agent
from voice_fsm.web.auth import Gate, TokenMint

SIGNED_URL_S: Final = 900.0
"""How long a signed URL may wait to be opened, as at ElevenLabs; the conversation may last longer."""
SIGNATURE: Final = "conversation_signature"
"""Its name in the query."""


class AgentAccess:
    """Signs URLs, and takes each of them once."""

    def __init__(self, gate: Gate, mint: TokenMint) -> None:
        self._gate = gate
        self._mint = mint

    def is_private(self, agent: Agent) -> bool:
        """What the agent says, or else what the server is."""
        return not self._gate.is_open if agent.private is None else agent.private

    def sign(self, agent: Agent) -> str:
        """Make a signature that lets one client talk to the agent."""
        return self._mint.issue(_use(agent))

    def check(self, connection: HTTPConnection, agent: Agent) -> None:
        """Let a client in.

        Raises:
            AccessDenied: the agent is private, and the client shows neither a signature that holds nor a key.
        """
        if not self.is_private(agent):
            return
        signature = connection.query_params.get(SIGNATURE)
        if signature is not None:
            if not self._mint.redeem(signature, _use(agent)):
                raise AccessDenied("The signed URL is wrong, expired, or has been used already.")
        elif self._gate.is_open:
            raise AccessDenied("This agent is private. Open it by a signed URL.")
        else:
            self._gate.check_key(connection)


def _use(agent: Agent) -> str:
    return f"agent:{agent.id}"
