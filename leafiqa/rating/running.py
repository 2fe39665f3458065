"""Run a rating session: the address, the server, and an orderly end."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from leafiqa.errors import InputError
from leafiqa.rating.serving import RatingServer
from leafiqa.rating.session import Session

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    session: Session,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    started: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve a session until it is finished from the page, or interrupted.

    Args:
        session: what is asked.
        host: the address to listen at. Another than the loopback lets other machines of the network in, whoever has
            the page's address; it travels unencrypted.
        port: 0 takes a free one.
        started: called with the page's address, which holds the session's token.

    Raises:
        InputError: the address cannot be used.
    """
    import uvicorn

    hosts = None if host in _LOOPBACK else {host, socket.gethostname(), *_own_addresses()}
    finished = threading.Event()
    server = RatingServer(session, hosts=hosts, on_finish=finished.set)
    try:
        bound = _listening(host, port)
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot serve at {host}, port {port}: {error}; name another --port or --host") from error
    config = uvicorn.Config(
        server.app,
        log_level="error",
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=3,
    )
    running = uvicorn.Server(config)

    def end() -> None:
        finished.wait()
        running.should_exit = True

    threading.Thread(target=end, name="leafiqa-finish", daemon=True).start()
    named = _towards_others() or "127.0.0.1" if host in ("0.0.0.0", "::") else host
    shown = f"[{named}]" if ":" in named else named
    session.looking.start()
    started(f"http://{shown}:{bound.getsockname()[1]}/{server.token}/")
    try:
        with contextlib.suppress(KeyboardInterrupt):
            running.run(sockets=[bound])
    finally:
        finished.set()
        session.looking.stop()
        bound.close()


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    The protocol is named: only then asyncio sends small packets at once, without which every answer waits 40 ms.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(128)
    except BaseException:
        made.close()
        raise
    return made


def _towards_others() -> str:
    """Return this machine's address in its network, empty if it has none; nothing is sent to find out."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # an address for documentation, which nobody has
        return str(probe.getsockname()[0])
    return ""


def _own_addresses() -> set[str]:
    """Return addresses of this machine that others may call it by."""
    found = {address} if (address := _towards_others()) else set()
    with contextlib.suppress(OSError):
        found.update(str(entry[4][0]) for entry in socket.getaddrinfo(socket.gethostname(), None))
    return found
