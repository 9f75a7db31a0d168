"""The sockets that clients connect to."""

import socket as stdlib_socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
import trio
from trio import socket

from voice_fsm.web.listeners import bind, listen, urls
from voice_fsm.web.serve_config import ServeConfig


@contextmanager
def closed_at_end(sockets: list[socket.SocketType]) -> Iterator[list[socket.SocketType]]:
    try:
        yield sockets
    finally:
        for sock in sockets:
            sock.close()


async def test_accepted_sockets_inherit_what_was_set_on_the_listener() -> None:
    """TCP_USER_TIMEOUT and the send buffer; and TCP_NODELAY is on."""
    config = ServeConfig(port=0, tcp_user_timeout_s=1.25, send_buffer_bytes=50_000)
    with closed_at_end(await bind(config)) as sockets:
        (listener,) = listen(sockets, config)
        async with await trio.open_tcp_stream("127.0.0.1", sockets[0].getsockname()[1]):
            stream = await listener.accept()
            with closing(stream.socket):
                options = [
                    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
                    (socket.SOL_SOCKET, socket.SO_SNDBUF),
                    (socket.IPPROTO_TCP, socket.TCP_NODELAY),
                ]
                assert [stream.socket.getsockopt(*option) for option in options] == [1250, 100_000, 1]


async def test_a_system_without_tcp_user_timeout_is_served_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere than on Linux the option is left out."""
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT")
    config = ServeConfig(port=0)
    with closed_at_end(await bind(config)) as sockets:
        listen(sockets, config)
        option = sockets[0].getsockopt(socket.IPPROTO_TCP, stdlib_socket.TCP_USER_TIMEOUT)
        assert option == 0


@pytest.mark.parametrize(("host", "url"), [("127.0.0.1", "http://127.0.0.1:{}"), ("::1", "http://[::1]:{}")])
async def test_both_families_are_served(host: str, url: str) -> None:
    """The URL names the port that was found."""
    config = ServeConfig(host=host, port=0)
    with closed_at_end(await bind(config)) as sockets:
        listen(sockets, config)
        port = sockets[0].getsockname()[1]
        assert urls(sockets) == [url.format(port)]
        async with await trio.open_tcp_stream(host, port):
            pass


async def test_no_host_means_every_interface_on_one_port() -> None:
    """IPv4 and IPv6 get the same free port."""
    config = ServeConfig(host="", port=0)
    with closed_at_end(await bind(config)) as sockets:
        names = [sock.getsockname() for sock in sockets]
        assert {name[0] for name in names} == {"0.0.0.0", "::"}
        assert len({name[1] for name in names}) == 1


async def test_a_port_that_is_taken_is_told() -> None:
    """Unless both share it."""
    config = ServeConfig(port=0)
    with closed_at_end(await bind(config, shared=True)) as sockets:
        listen(sockets, config)
        taken = ServeConfig(port=sockets[0].getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            await bind(taken)
        with closed_at_end(await bind(taken, shared=True)) as too:
            assert too[0].getsockname() == sockets[0].getsockname()


async def test_an_address_of_another_machine_is_told() -> None:
    """The error names the host."""
    with pytest.raises(OSError, match=r"192\.0\.2\.1"):
        await bind(ServeConfig(host="192.0.2.1", port=0))


async def test_a_system_that_cannot_share_ports_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several workers are refused, not left to fight over the port."""
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    with pytest.raises(OSError, match="SO_REUSEPORT"):
        await bind(ServeConfig(port=0), shared=True)
