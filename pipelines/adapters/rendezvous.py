"""Where the workers of one machine meet: a store of PyTorch that listens on the loopback address alone.

PyTorch's own stores listen on every network interface and know no password. They take a socket that listens already.
"""

import os
import socket
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import parse_qs, urlparse

import torch.distributed

LOOPBACK = "127.0.0.1"
SCHEME = "loopback"
_listening: list[socket.socket] = []  # in the process of rank 0, until its store takes it


def listen() -> str:
    """In rank 0's process: listen on a free port; returns the address at which all ranks meet."""
    waiting = socket.create_server((LOOPBACK, 0), backlog=1024)
    _listening[:] = [waiting]
    return f"{SCHEME}://{LOOPBACK}:{waiting.getsockname()[1]}"


def register() -> None:
    """In each rank's process, once: make the address of `listen` known to PyTorch."""
    torch.distributed.register_rendezvous_handler(SCHEME, _meet)


def _meet(
    url: str, timeout: timedelta = timedelta(minutes=5), **_: object
) -> Iterator[tuple[torch.distributed.Store, int, int]]:
    """PyTorch's protocol of a meeting: yields the store, the rank and the number of ranks."""
    address = urlparse(url)
    assert address.port
    rank, ranks = (int(parse_qs(address.query)[name][0]) for name in ("rank", "world_size"))
    os.environ |= {"MASTER_ADDR": LOOPBACK, "MASTER_PORT": str(address.port)}  # as with PyTorch's env://
    descriptor = _listening.pop().detach() if rank == 0 else None
    yield (
        torch.distributed.TCPStore(
            LOOPBACK, address.port, ranks, rank == 0, timeout, master_listen_fd=descriptor, wait_for_workers=False
        ),
        rank,
        ranks,
    )
