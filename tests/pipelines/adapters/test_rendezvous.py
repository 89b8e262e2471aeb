"""Workers of one machine meet on the loopback address alone."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection

import psutil
import pytest
import torch
import torch.distributed

from pipelines.adapters.rendezvous import LOOPBACK, join_group


def work(rank: int, link: Connection) -> None:
    join_group("gloo", rank, 2, LOOPBACK, link.send, link.recv)
    total = torch.tensor([rank + 1])
    torch.distributed.all_reduce(total)
    link.send(int(total))
    link.recv()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_meet_and_the_store_is_on_loopback() -> None:
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(2)]
    processes = [context.Process(target=work, args=(rank, pipe[1]), daemon=True) for rank, pipe in enumerate(pipes)]
    for process in processes:
        process.start()
    links = [pipe[0] for pipe in pipes]
    address = links[0].recv()
    for link in links:
        link.send(address)
    assert [link.recv() for link in links] == [3, 3]
    port = int(address.rpartition(":")[2])
    listening = [
        connection.laddr.ip
        for connection in psutil.Process(processes[0].pid).net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    ]
    assert address.startswith("127.0.0.1:") and listening == ["127.0.0.1"]
    for link in links:
        link.send("end")
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
