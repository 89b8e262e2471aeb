"""What is recorded of the machine."""

from __future__ import annotations

from pathlib import Path

from pipelines.provenance import cpu


def test_model_and_instruction_sets(tmp_path: Path) -> None:
    description = tmp_path / "cpuinfo"
    core = "processor\t: {}\nmodel name\t: Some CPU @ 2.00GHz\nflags\t\t: fpu avx2 fma avx ht\nbugs\t\t: none\n\n"
    description.write_text(core.format(0) + core.format(1))
    assert cpu(description) == {"model": "Some CPU @ 2.00GHz", "instruction_sets": "avx fma avx2"}


def test_arm_names_its_instruction_sets_otherwise(tmp_path: Path) -> None:
    description = tmp_path / "cpuinfo"
    description.write_text("processor\t: 0\nFeatures\t: fp asimd bf16 sve\nCPU part\t: 0xd40\n")
    assert cpu(description)["instruction_sets"] == "asimd bf16 sve"


def test_a_machine_without_a_description_has_a_name(tmp_path: Path) -> None:
    found = cpu(tmp_path / "missing")
    assert found["model"] and found["instruction_sets"] == ""
