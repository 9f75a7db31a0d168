"""The other side of ``/v1/voice/ws``: what ``voice-fsm demo`` and the benchmark speak."""
