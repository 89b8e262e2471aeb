"""Where the workers meet: a store of PyTorch that listens on one address alone.

PyTorch's own stores listen on every network interface and know no password. They take a socket that listens already.
"""

import os
import socket
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed

LOOPBACK = "127.0.0.1"
PATIENCE = timedelta(minutes=30)  # for the others, at the start and in each operation: one may still fetch its data


def join_group(
    backend: str, rank: int, ranks: int, host: str, publish: Callable[[str], object], address: Callable[[], str]
) -> None:
    """Join the process group of all workers, and set the variables by which DeepSpeed knows it.

    Args:
        backend: "gloo" or "nccl".
        rank: of this process.
        ranks: number of workers.
        host: address of this machine at which the others reach it; rank 0 listens there on a free port.
        publish: makes the address of rank 0 known to the others; called by rank 0 only.
        address: waits for that address and returns it.
    """
    descriptor = None
    if rank == 0:
        waiting = socket.create_server((host, 0), backlog=1024)
        publish(f"{host}:{waiting.getsockname()[1]}")
        descriptor = waiting.detach()
    meeting, _, port = address().rpartition(":")
    store = torch.distributed.TCPStore(
        meeting, int(port), ranks, rank == 0, PATIENCE, master_listen_fd=descriptor, wait_for_workers=False
    )
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": meeting, "MASTER_PORT": port}
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=PATIENCE)
