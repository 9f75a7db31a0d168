"""The conversation that every session of the bench holds, the same for each layer measured."""

from typing import Final

SAMPLE_RATE_HZ: Final = 16000
CHUNK_MS: Final = 100
CHUNK_BYTES: Final = SAMPLE_RATE_HZ * 2 * CHUNK_MS // 1000

TURN_S: Final = 8.0
"""Audio from one commit to the next: some 4 s of the user, the reply, and a breath."""
REPLY: Final = "Here is what I found for you, spoken at a measured pace."
REPLY_CHUNKS: Final = 30
"""The reply's audio, 3 s, which the voice gives all at once."""
BARGE_IN_AFTER_S: Final = 1.0
"""Audio after a commit at which every `BARGE_IN_EVERY`-th reply is interrupted."""
BARGE_IN_EVERY: Final = 4


def described() -> str:
    """Say what one session does."""
    audio_out = REPLY_CHUNKS / TURN_S
    return (
        f"Each session: {1000 / CHUNK_MS:g} chunks of {CHUNK_MS} ms in a second, a turn every {TURN_S:g} s, "
        f"its reply {REPLY_CHUNKS} chunks given at once ({audio_out:.2f} a second on average); "
        f"one turn in {BARGE_IN_EVERY} interrupted after {BARGE_IN_AFTER_S:g} s."
    )
