"""How the server meets its clients: addresses, limits, patience."""

import attrs
from attrs.validators import ge, gt, in_


@attrs.frozen(kw_only=True)
class ServeConfig:
    """The settings of the serving shell.

    Raises:
        ValueError: a number is out of its range.
    """

    host: str = "127.0.0.1"
    """A name or an address of either family; empty: every interface of the machine."""
    port: int = attrs.field(default=8000, validator=in_(range(1 << 16)))
    """0: one that is free; the callers of `serve` are told which."""
    workers: int = attrs.field(default=1, validator=ge(1))
    """Processes that share the port."""
    backlog: int = attrs.field(default=1024, validator=ge(1))
    """Connections the kernel holds for us until we accept them."""
    tcp_user_timeout_s: float = attrs.field(default=10.0, validator=gt(0))
    """How long what we sent may stay unacknowledged, or the peer's window shut, until we give the peer up."""
    send_buffer_bytes: int = attrs.field(default=1 << 17, validator=gt(0))
    """What the kernel may hold of one connection's unsent data (it doubles this for its own needs). Left to
    itself it would take megabytes from a fast sender, and an interruption would queue behind all of them."""
    keep_alive_s: float = attrs.field(default=5.0, validator=gt(0))
    """How long a connection may take to send a whole request header, and to idle between two requests."""
    read_timeout_s: int = attrs.field(default=60, validator=gt(0))
    """How long a client may be silent in an HTTP exchange, also while it waits for the end of our answer."""
    ws_max_message_bytes: int = attrs.field(default=1 << 20, validator=gt(0))
    ws_ping_interval_s: float = attrs.field(default=20.0, validator=gt(0))
    """Between two pings to a WebSocket client; one that is silent from one ping to the next has gone."""
    close_timeout_s: float = attrs.field(default=2.0, validator=gt(0))
    """How long a client may take to leave once we have said our last word."""
    startup_s: float = attrs.field(default=60.0, validator=gt(0))
    """How long the app's lifespan may take to start."""
    drain_s: float = attrs.field(default=30.0, validator=ge(0))
    """How long conversations may go on after the order to stop."""
    shutdown_s: float = attrs.field(default=10.0, validator=gt(0))
    """How long the app's lifespan may take to end, after the last conversation."""
