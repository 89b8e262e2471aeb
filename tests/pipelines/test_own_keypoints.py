"""From labelled pictures to params.yaml: the commands `tcformer keypoints`, and what prepare reports."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from pipelines.datasets.downloads import check
from pipelines.datasets.prepare import prepare
from pipelines.layout import PARAMS, Layout
from pipelines.own_keypoints import OwnFiles, add_sections, split
from pipelines.params import Params, load_params, spec_from_json, spec_to_json
from pipelines.prediction.box_files import BoxFile
from pipelines.prediction.weights import as_text, describe
from pipelines.provenance import stage_code
from pipelines.report.content import gather
from pipelines.report.markdown import to_markdown
from stages.cli import cli
from stages.keypoints import keypoints
from tcformer.data.keypoints.annotations import load_annotated
from tcformer.errors import UserError
from tcformer.models import create_model, save_model
from tcformer.tasks.keypoints.official import OFFICIAL
from tcformer.tasks.keypoints.options import KeypointsEvaluation, KeypointsOptions
from tests import own_points

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "pipelines/datasets/own_keypoints.yaml"
TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")


@pytest.fixture
def params_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(TEXT, encoding="utf-8")
    for module in ("pipelines.datasets.survey", "pipelines.datasets.prepare"):
        monkeypatch.setattr(f"{module}.PARAMS", path)
    return path


@pytest.fixture
def files(tmp_path: Path) -> OwnFiles:
    root = tmp_path / "my cats"
    train, val = own_points.write(root), own_points.write(root, "val.json", own_points.content(images=2))
    return OwnFiles(train, val, root / "images", root / "images")


def loaded(params_file: Path, files: OwnFiles) -> Params:
    add_sections(params_file, "sample", files)
    return load_params(params_file)


def test_only_lines_are_added_to_params(params_file: Path, files: OwnFiles) -> None:
    notes = add_sections(params_file, "sample", files)
    text = params_file.read_text(encoding="utf-8")
    params = load_params(params_file)
    assert params.paper == load_params(ROOT / "params.yaml").paper and params.paper.tasks == params.sample.tasks[:-1]
    kept = iter(text.splitlines())
    assert all(line in kept for line in TEXT.splitlines()), "all former lines are there, in their order"
    task = params.sample.training_of("keypoints").task
    assert params.sample.data_of("keypoints").root == str(files.train.parent)
    assert (task.train.annotations, task.val.annotations, task.train.images) == ("train.json", "val.json", "images")
    assert task.augmentation.flip_probability == 0.5 and params.sample.evaluation_options_of("keypoints").flip_test
    assert any("2 left/right pairs: left ear / right ear, left paw / right paw" in note for note in notes)
    assert f"{files.train}: 4 labelled objects of the category cat on 4 images" in notes
    assert spec_from_json("keypoints", spec_to_json(params.sample.spec_of("keypoints"))).options == task
    with pytest.raises(UserError, match=r"sample.finetune.keypoints exists already"):
        add_sections(params_file, "sample", files)
    add_sections(params_file, "paper", None)
    assert load_params(params_file).paper.data_of("keypoints").source == "generated"


def test_points_without_sides_switch_mirroring_off(params_file: Path, files: OwnFiles) -> None:
    points = files.train.parent / "points.yaml"
    points.write_text("names: [a, b, c, d, e]\n")
    described = OwnFiles(files.train, files.val, files.train_images, files.val_images, "cat", points)
    recipe = loaded(params_file, described).sample
    task = recipe.training_of("keypoints").task
    assert (task.points, task.category, task.augmentation.flip_probability) == ("points.yaml", "cat", 0.0)
    assert not recipe.evaluation_options_of("keypoints").flip_test


def test_without_its_sections_a_stage_says_how_to_add_them() -> None:
    recipe = load_params(PARAMS).sample
    assert "keypoints" not in recipe.tasks
    for section in (recipe.training_of, recipe.data_of, recipe.evaluation_of, recipe.drawing_of):
        with pytest.raises(UserError, match=r"no section \w+\.keypoints: .*`tcformer keypoints init`"):
            section("keypoints")


def test_prepare_describes_the_files_and_names_what_is_missing(
    params_file: Path, files: OwnFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = loaded(params_file, files)
    prepare("keypoints", params, tmp_path / "out")
    printed = capsys.readouterr().out
    assert "no sigma is given for 3 points ('nose tip', ...): OKS uses 0.067" in printed
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["counts"]["train.json: labelled objects"] == 4 and manifest["root"] == str(files.train.parent)
    assert all(finding.is_good for finding in check("keypoints", params))

    (files.train_images / "3 a.jpg").unlink()
    with pytest.raises(UserError, match=r"images/3 a.jpg .named at params.yaml:\d+") as caught:
        prepare("keypoints", params, tmp_path / "out")
    assert "correct its name" in str(caught.value)
    files.val.unlink()
    with pytest.raises(UserError, match=r"val.json .named at params.yaml:\d+"):
        prepare("keypoints", params, tmp_path / "out")


def test_other_points_change_the_identity_of_the_data(params_file: Path, files: OwnFiles, tmp_path: Path) -> None:
    params, found = loaded(params_file, files), set()
    for sigma in (0.1, 0.2):
        own_points.write(files.train.parent, tree=own_points.content(sigmas=[sigma] * 5))
        prepare("keypoints", params, tmp_path / "out")
        found.add(json.loads((tmp_path / "out/manifest.json").read_text())["sha256"])
    assert len(found) == 2


def test_pts_files_are_among_the_files_that_workers_get(tmp_path: Path) -> None:
    for name in ("train", "val"):
        path = tmp_path / name / "indoor/a.pts"
        path.parent.mkdir(parents=True)
        path.write_text("n_points: 5\n{\n" + "\n".join(f"{i} {i * i}" for i in range(5, 10)) + "\n}\n")
        Image.new("RGB", (100, 100)).save(path.with_suffix(".png"))
        path.with_name("._a.pts").write_text("of an archive of macOS")
    (tmp_path / "points.yaml").write_text(f"names: {list(own_points.NAMES)}\n")
    folders = {name: {"annotations": name, "images": name} for name in ("train", "val")}
    tree = own_points.options_tree(**folders, points="points.yaml")
    options = TypeAdapter(KeypointsOptions).validate_json(json.dumps(tree))
    evaluation = KeypointsEvaluation(test=None, flip_test=True, decoding="auto", keypoint_threshold=0.2)
    inventory = OFFICIAL.take_inventory(tmp_path, OFFICIAL.sources(options, evaluation))
    named = {f"{name}/indoor/a.{suffix}" for name in ("train", "val") for suffix in ("pts", "png")}
    assert set(inventory.files) == {*named, "points.yaml"}
    assert {"train/indoor/a.pts", "val/indoor/a.pts", "points.yaml"} < set(inventory.identities)


def test_a_file_is_divided_by_images(files: OwnFiles, tmp_path: Path) -> None:
    notes = split(files.train, 0.25, tmp_path / "labels", seed=0)
    trees = [json.loads((tmp_path / f"labels/{name}.json").read_text()) for name in ("train", "val")]
    assert [len(tree["images"]) for tree in trees] == [3, 1]
    assert sorted(image["id"] for tree in trees for image in tree["images"]) == [0, 1, 2, 3]
    for tree in trees:
        assert {a["image_id"] for a in tree["annotations"]} == {image["id"] for image in tree["images"]}
        assert tree["categories"] == own_points.content()["categories"]
    counts = [f"{len(tree['images'])} images, {len(tree['annotations'])} annotations" for tree in trees]
    assert [note.partition(".json: ")[2] for note in notes] == counts
    with pytest.raises(UserError, match="4 images, of which 0 would be for validation"):
        split(files.train, 0.01, tmp_path, seed=0)


def test_the_commands(files: OwnFiles, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        done = CliRunner().invoke(cli, ["keypoints", *arguments])
        assert done.exit_code == 0, done.output
        return done.output

    divided = run("split", str(files.train), "-o", str(tmp_path / "lab\x1bels"), "--val", "0.5")
    assert r"lab\x1bels" in divided and "train.json: 2 images" in divided and "val.json: 2 images" in divided
    pts = tmp_path / "faces/a.pts"
    pts.parent.mkdir()
    pts.write_text("n_points: 68\n{\n" + "\n".join(f"{i} {i % 7}" for i in range(1, 69)) + "\n}\n")
    (files.train_images / "0 a.jpg").rename(pts.with_suffix(".jpg"))
    assert "1 images with 68 points" in run("from-pts", str(pts.parent), "-o", str(tmp_path / "faces.json"))
    assert CliRunner().invoke(cli, ["keypoints", "init"]).exit_code == 2
    for command in ("init", "split", "from-pts"):
        assert "tcformer keypoints" in run(command, "--help")


def test_boxes_of_own_annotations_are_those_of_the_category_with_points(files: OwnFiles, tmp_path: Path) -> None:
    tree = own_points.content()
    for number, annotation in enumerate(tree["annotations"]):
        annotation["bbox"] = [number, 2, 30, 40]
    boxes = BoxFile(own_points.write(tmp_path, "boxes.json", tree))
    assert boxes.of(Path("0 a.jpg")).xywh.tolist() == [[1, 2, 30, 40]], "not that of the dog"


def test_info_names_the_points(tmp_path: Path, files: OwnFiles) -> None:
    points = load_annotated(files.train, files.train_images).points.to_json()
    model = create_model("tcformer_nano", "keypoints", num_keypoints=5, points=points)
    save_model(model, tmp_path / "model.safetensors")
    about = describe(tmp_path / "model.safetensors")
    assert about["points"]["names"] == "left ear, right ear, nose tip, left paw, right paw"
    assert about["points"]["left/right"] == "left ear - right ear, left paw - right paw"
    assert "points" not in about["network"] and "left ear - nose tip" in as_text(about)


def test_the_report_shows_own_keypoints_only_if_the_recipe_has_them(
    params_file: Path, files: OwnFiles, tmp_path: Path
) -> None:
    layout = Layout("sample", tmp_path)
    before = to_markdown(gather(layout, load_params(params_file), {}))
    assert "Own keypoints" not in before
    params = loaded(params_file, files)
    out = layout.run("evaluate", "keypoints")
    out.mkdir(parents=True)
    (out / "metrics.json").write_text(
        json.dumps(
            {
                "all": {"AP": 0.4321, "AP50": 0.75, "APM": None},
                "oks": 0.5,
                "nme": 0.25,
                "points": {"test": {"all": {"NME": 0.3125}}},
                "baseline": {"oks": 0.125},
            }
        )
    )
    after = to_markdown(gather(layout, params, {}))
    assert "| all points | 0.432 |" in after, "the table of the task, not the headlines alone"
    assert "Own keypoints: loss" in after and "0.432" in after and "own keypoints" in after and "0.250" in after
    assert "| all points | 0.432 | 0.750 |" in after and "### Own keypoints: by part" in after, "its table and its bars"


def test_a_training_depends_on_the_code_that_it_shares() -> None:
    code = stage_code("finetune@keypoints")
    assert {"tcformer/data/keypoints", "tcformer/data/wholebody", "tcformer/metrics/wholebody.py"} < set(code)
    assert "tcformer/data/keypoints" not in stage_code("finetune@wholebody")


def test_the_examples_of_the_page_are_right(tmp_path: Path) -> None:
    page = (ROOT / "docs/own-keypoints.md").read_text(encoding="utf-8")
    [content] = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    [description] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "train.json").write_text(content)
    (tmp_path / "points.yaml").write_text(description)
    found = load_annotated(tmp_path / "train.json", tmp_path, None, tmp_path / "points.yaml")
    assert len(found.crops()) == 1 and found.points.normalise == (0, 1) and found.points.sigmas[0] == 0.04
    named = re.findall(r"^\| `(\w+)\.keypoints\.([\w.]+)` \|", page, re.MULTILINE)
    text = TEMPLATE.read_text(encoding="utf-8")
    assert len(named) == 7 and all(re.search(rf"\b{name.split('.')[-1]}:", text) for _, name in named)
    commands = re.findall(r"tcformer keypoints ([\w-]+)(.*)", page)
    assert {name for name, _ in commands} == {"init", "split", "from-pts"}
    for name, arguments in commands:
        known = {option for parameter in keypoints.commands[name].params for option in parameter.opts}
        assert set(re.findall(r"(?<= )--?[a-z-]+", arguments.partition("#")[0])) <= known, name
    # The messages that the page shows.
    (tmp_path / "points.yaml").write_text("flip: [[left eer, right ear]]")
    with pytest.raises(UserError, match="did you mean 'left ear'") as caught:
        load_annotated(tmp_path / "train.json", tmp_path, None, tmp_path / "points.yaml")
    assert str(caught.value).partition(": ")[2] in page


def test_the_diff_of_the_page_adds_all_that_dvc_has_of_another_task() -> None:
    [diff] = re.findall(r"```diff\n(.*?)```", (ROOT / "docs/own-keypoints.md").read_text(encoding="utf-8"), re.DOTALL)
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    assert all(line[1:].strip() in text for line in diff.splitlines() if line[0] in "- "), "dvc.yaml has other lines"
    yaml = YAML(typ="safe")
    stages = yaml.load(text)["stages"]
    added = yaml.load("\n".join(line[1:] for line in diff.splitlines() if line[0] != "-"))
    tasks = added["finetune"]["matrix"]["task"]
    assert tasks == [*stages["finetune"]["matrix"]["task"], "keypoints"]
    face = [dep.replace("/face", "/keypoints") for dep in stages["report"]["deps"] if "/face" in dep]
    assert added["report"]["deps"] == face
    for name in ("evaluate", "visualize"):
        assert added[name]["foreach"] == {"keypoints": stages[name]["foreach"]["face"].replace("face", "keypoints")}
    assert set(added["prepare"]["foreach"]["keypoints"]) == set(stages["prepare"]["foreach"]["face"])
