"""The sockets that clients connect to."""

import errno
from collections.abc import Sequence
from contextlib import ExitStack
from socket import AddressFamily
from typing import Any, Final

import trio
from trio import socket

from voice_fsm.web.serve_config import ServeConfig

_NOT_SPOKEN_HERE: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


async def bind(config: ServeConfig, *, shared: bool = False) -> list[socket.SocketType]:
    """Bind to every address the host stands for, without listening yet.

    Port 0 takes one free port for all of them. When ``shared``, other processes may bind to the same port
    (SO_REUSEPORT); the kernel spreads new connections over those that listen.

    Raises:
        OSError: no such host here, the port is taken, or the system does not share ports.
    """
    found = await socket.getaddrinfo(
        config.host or None, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    bound: list[socket.SocketType] = []
    with ExitStack() as unless_all_are_bound:
        for family, _, _, _, address in found:
            port = bound[0].getsockname()[1] if bound else config.port
            sock = await _bind(family, (address[0], port, *address[2:]), shared=shared)
            if sock is not None:
                unless_all_are_bound.callback(sock.close)
                bound.append(sock)
        if not bound:
            raise OSError(errno.EADDRNOTAVAIL, f"this machine has no address {config.host!r}")
        unless_all_are_bound.pop_all()
    return bound


def listen(sockets: Sequence[socket.SocketType], config: ServeConfig) -> list[trio.SocketListener]:
    """Begin to listen. Accepted sockets inherit the options set here; trio adds TCP_NODELAY."""
    for sock in sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, config.send_buffer_bytes)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            timeout_ms = round(config.tcp_user_timeout_s * 1000)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)
        sock.listen(config.backlog)
    return [trio.SocketListener(sock) for sock in sockets]


def urls(sockets: Sequence[socket.SocketType]) -> list[str]:
    """Say where the sockets are reached, such as ``http://[::1]:8000``."""
    names = [sock.getsockname() for sock in sockets]
    return [f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}" for host, port, *_ in names]


async def _bind(family: AddressFamily, address: tuple[Any, ...], *, shared: bool) -> socket.SocketType | None:
    """Bind one socket; None when this machine does not have the address, or its family."""
    with ExitStack() as unless_bound:
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
            unless_bound.callback(sock.close)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                _share_port(sock)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            await sock.bind(address)
        except OSError as error:
            if error.errno in _NOT_SPOKEN_HERE:
                return None
            raise
        unless_bound.pop_all()
        return sock


def _share_port(sock: socket.SocketType) -> None:
    if not hasattr(socket, "SO_REUSEPORT"):
        raise OSError(errno.ENOPROTOOPT, "several workers need SO_REUSEPORT, which this system lacks")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
