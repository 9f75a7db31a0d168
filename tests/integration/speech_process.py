"""A server of speech in a process of its own, as an operator starts it, with the embedded engines."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]


@contextmanager
def speech_server(directory: Path, **settings: str) -> Iterator[str]:
    """Its base URL; whatever it stores goes into ``directory``."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ELEVENLABS_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "voice_fsm", "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        cwd=directory,
        env={
            **inherited,
            "LOG_LEVEL": "warning",
            "CACHE_DIR": str(directory / "cache"),
            "PYTHONPATH": str(ROOT),
            **settings,
        },
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if "/test " in line:
                yield line.split(" at ")[1].split("/test ")[0]
                break
        else:
            raise AssertionError("the server did not start")
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()
