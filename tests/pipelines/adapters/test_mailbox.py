"""The mailbox's process stays small: it imports neither PyTorch nor the network."""

from __future__ import annotations

import subprocess
import sys

from pipelines.adapters.mailbox import Mailbox
from pipelines.training.events import CheckpointSaved, Note
from tests.imports import ROOT


def test_events_are_taken_once_and_in_order() -> None:
    mailbox = Mailbox()
    for event in (Note("first"), CheckpointSaved(2)):
        mailbox.send(event)
    assert mailbox.take() == [Note("first"), CheckpointSaved(2)]
    assert mailbox.take() == []


def test_it_imports_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "pydantic", "ray"}
    code = f"import sys, pipelines.adapters.mailbox; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
