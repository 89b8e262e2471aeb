"""Faults on request, for tests of what a training survives."""

import os
import signal
import time

from pipelines.adapters.storage import Store

# "kill:<rank>:<step>" (once in a training), "hang:<rank>:<step>" or "slow:<rank>:<seconds a step>"
VARIABLE = "TCFORMER_FAULT"


def inject_fault(store: Store, rank: int, step: int) -> None:
    """Do what the environment variable asks for in this step."""
    kind, chosen, amount = os.environ.get(VARIABLE, "none:-1:0").split(":")
    if rank != int(chosen):
        return
    if kind == "slow":
        time.sleep(float(amount))
    elif kind == "hang" and step == int(amount):
        os.kill(os.getpid(), signal.SIGSTOP)
    elif kind == "kill" and step == int(amount) and store.read("fault-injected") is None:
        store.write("fault-injected", b"")
        os.kill(os.getpid(), signal.SIGKILL)
