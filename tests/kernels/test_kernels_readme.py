"""The example in kernels/README.md can be run as it is."""

from __future__ import annotations

from pathlib import Path

README = Path(__file__).resolve().parents[2] / "kernels/README.md"


def test_example() -> None:
    code = README.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    names: dict[str, object] = {}
    exec(code, names)
    assert names["z"].shape == (2, 784, 64)
