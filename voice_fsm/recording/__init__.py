"""What a session went through, as JSON lines: written, read, proved by stepping the same machine, drawn.

Pure. The runtime writes the file (`voice_fsm.runtime.recorder`), the command ``voice-fsm replay`` reads it.
"""
