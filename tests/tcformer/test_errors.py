"""Texts of other people's files cannot control the terminal."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.driver.progress import TrainingProgress
from pipelines.running.progress import Progress, say
from pipelines.training.events import Note
from tcformer.data.images import BrokenImage
from tcformer.errors import UserError, printable

HOSTILE = "\x1b]0;title\x07\x9b31m\r\x08\x7f\u202egpj.\u2028\ud800\0"


def test_controls_become_visible() -> None:
    said = str(UserError(f"photo {HOSTILE}: wrong"))
    assert said == r"photo \x1b]0;title\x07\x9b31m\r\x08\x7f\u202egpj.\u2028\ud800\x00: wrong"
    broken = BrokenImage(f"image {HOSTILE}", path=HOSTILE)
    assert broken.path == HOSTILE and str(pickle.loads(pickle.dumps(broken))) == str(broken) == printable(str(broken))


@pytest.mark.parametrize(
    "text", ["plain", "a\nb\tc", "für Größe × 2, pixels²", "写真.jpg", "\U0001f468\u200d\U0001f469"]
)
def test_other_texts_stay(text: str) -> None:
    assert str(UserError(text)) == text


@settings(max_examples=100, derandomize=True)
@given(st.text())
def test_any_text_is_printable_once_and_for_all(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert printable(shown) == shown and "\x1b" not in shown


def test_notes_are_printable(capsys: pytest.CaptureFixture[str]) -> None:
    TrainingProgress("finetune").show(Note(HOSTILE))
    with Progress("prepare", total=2) as progress:
        progress.message(HOSTILE)
    assert capsys.readouterr().out.count(r"\x1b]0;title\x07") == 2


def test_what_stages_print_of_files_is_printable(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"{HOSTILE}\nline")
    say(HOSTILE, as_error=True)
    printed = capsys.readouterr()
    assert printed.out == f"{printable(HOSTILE)}\nline\n" and printed.err == f"{printable(HOSTILE)}\n"
