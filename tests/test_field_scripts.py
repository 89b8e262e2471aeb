"""The scripts that stand for failures which people have reported: each exits with 0 once its kind of failure is gone.

They are not part of the repository. Their names of modules are older: `MOVED` has what they are called now.
"""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

PYTHON = (
    "01_checkpoint_numpy_meta.py", "02_image_size_not_as_annotated.py", "03_result_records_traceback.py",
    "10_params_file_traceback.py", "14_relative_tracking_uri_lost.py", "17_cluster_storage_traceback.py",
    "20_network_of_nans_is_measured.py", "22_box_over_left_or_top_border.py",
)  # fmt: skip
LARGE = "12_large_png_called_broken.py"
#: What they show is tested by tests/stages/test_other_machines.py, tests/test_wheel.py and test_loading.py.
SHELL = ("05_long_tmpdir.sh", "06_home_not_writable.sh", "08_wheel_without_assets.sh", "15_small_shm_hangs.sh")

MOVED = {
    "from tcformer.data.wholebody import": "from tcformer.data.wholebody.dataset import",
    "from tcformer.data.mesh_files import": "from tcformer.data.mesh.files import",
    "from tcformer.data.landmarks import": "from tcformer.data.face.landmarks import",
    "from tcformer.data.face import": "from tcformer.data.face.dataset import",
    "from tcformer.metrics.decode import decode_heat_maps, flip_test": (
        "from tcformer.heatmaps.decode import decode_heat_maps\nfrom tcformer.heatmaps.flip import flip_test"
    ),
    'decode_heat_maps(flip_test(broken, batch["image"], FLIP))': (
        'decode_heat_maps(flip_test(broken, batch["image"], FLIP, 0), "quarter_pixel", 2.0)'
    ),
    "import pipelines.tracking as tracking": "import pipelines.adapters.mlflow as tracking",
    "from pipelines.storage import": "from pipelines.adapters.storage import",
}


@pytest.fixture
def field(samples: Path) -> Path:
    folder = samples.parent / "field"
    if not folder.is_dir():
        pytest.skip("needs the scripts of shared/field, which are not beside the repository")
    return folder


def with_present_names(script: Path, folder: Path) -> Path:
    """A copy of a script in `folder`."""
    text = script.read_text(encoding="utf-8")
    for before, now in MOVED.items():
        text = text.replace(before, now)
    copy = folder / script.name
    copy.write_text(text, encoding="utf-8")
    return copy


def test_every_script_is_run(field: Path) -> None:
    found = {path.name for path in field.iterdir() if path.suffix in (".py", ".sh")}
    assert found == {*PYTHON, LARGE, *SHELL}


@pytest.mark.parametrize("name", [*PYTHON, pytest.param(LARGE, marks=pytest.mark.slow)])
def test_a_script_finds_its_failure_gone(name: str, field: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(with_present_names(field / name, tmp_path)), run_name="__main__")
    assert not ended.value.code
