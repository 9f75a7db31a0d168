"""What logging must not tell."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from voice_fsm.observe import configure_logging


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_tracebacks_show_no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else is installed: a local variable may be a key."""
    chosen: list[Any] = []

    def make(**options: Any) -> structlog.typing.Processor:
        chosen.append(options.get("exception_formatter"))
        return lambda _logger, _name, event: str(event)

    monkeypatch.setattr(structlog.dev, "ConsoleRenderer", make)
    configure_logging("info", "console")
    assert chosen == [structlog.dev.plain_traceback]


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_traceback_is_told_without_the_values_in_it(
    capsys: pytest.CaptureFixture[str], log_format: Any
) -> None:
    """The operator sees where it happened, and not with what."""
    configure_logging("info", log_format)
    api_key = "s3cr3t"
    try:
        api_key.index("?")
    except ValueError:
        structlog.get_logger().exception("session_failed", state="thinking")
    told = capsys.readouterr().err
    assert "session_failed" in told
    assert "test_observe.py" in told
    assert "s3cr3t" not in told
