"""Evidence is read from whoever answers, and says who did not: it never raises once a run is over."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from llm2llm_ray.runtime.driver.evidence import scraped


@contextmanager
def says(answer: bytes) -> Iterator[str]:
    """The address of a server that gives each caller these bytes and hangs up."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                caller, _ = server.accept()
            except OSError:
                return
            with caller:
                caller.recv(1000)
                caller.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/metrics"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def test_what_cannot_be_read_is_named_and_costs_nothing_else() -> None:
    not_read: set[str] = set()
    with (
        says(b"HTTP/1.0 200 OK\r\n\r\nray_a 1\nray_b 2\n") as good,
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nray_c 3\n") as cut,
        says(b"HTTP/1.0 500 no\r\n\r\n") as ill,
        says(b"what?\r\n") as other,
        says(b"") as mute,
        socket.create_server(("127.0.0.1", 0)) as closing,
    ):
        nobody = f"http://127.0.0.1:{closing.getsockname()[1]}/metrics"
        closing.close()
        assert scraped([cut, ill, other, mute, nobody, good], not_read) == ["ray_a 1", "ray_b 2"]
    told = {text.partition(": ")[0]: text.partition(": ")[2].partition(":")[0] for text in not_read}
    assert told == {
        cut: "IncompleteRead", ill: "HTTPError", other: "BadStatusLine", mute: "RemoteDisconnected", nobody: "URLError",
    }  # fmt: skip
