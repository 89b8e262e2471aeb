from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import tcformer
from benchmarks import token_study
from benchmarks.token_study import BEGIN, END, VARIANTS, Crops, HeldClusters, main, table
from tests.small import generate, parameters
from tests.tcformer.models.test_network import nano, smooth_images


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    generate("wholebody", parameters(folder), folder)
    return folder / "wholebody"


def rows(results: Path) -> list[dict]:
    (path,) = results.glob("token-study-*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_runs_and_their_table(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = ["--size", "64", "32", "--batch", "2", "--data", str(data)]
    run = ["--results", str(tmp_path), "run"]
    main([*run, "ctm_grid", "held", "cr_mta", "--steps", "2", "--save", str(tmp_path), *small])
    main([*run, "ctm_grid", "--steps", "2", *small])
    main([*run, "ctm_grid", "--steps", "2", "--seed", "1", *small])
    first, held, neck, again, other = rows(tmp_path)
    assert [row["variant"] for row in (first, held, neck)] == ["ctm_grid", "held", "cr_mta"]
    timed = ("trained_seconds", "date")
    assert {**first, **dict.fromkeys(timed)} == {**again, **dict.fromkeys(timed)}, "a run can be repeated exactly"
    assert first["loss"] != held["loss"] and first["loss"] != other["loss"]
    assert {"body@3", "body@6", "foot@3", "foot@6"} <= set(first)
    assert first["density, stage 4"] == pytest.approx(1) and first["twins, stage 3"] < held["twins, stage 3"] < 1
    assert 0.5 <= first["purity, stage 4"] <= 1
    assert tcformer.load_model(tmp_path / "cr_mta-0.safetensors").config["options"]["neck"] == "cr_mta"

    picture = tmp_path / "tokens.png"
    networks = [str(tmp_path / f"{name}-0.safetensors") for name in ("ctm_grid", "cr_mta")]
    main(["draw", *networks, "--persons", "0", "--size", "64", "32", "--data", str(data), "--out", str(picture)])
    assert picture.read_bytes().startswith(b"\x89PNG")

    main([*run, "ctm", "--set", "place_weight=0.5", "--seconds", "0.01", "--augment", *small])
    assert rows(tmp_path)[-1]["variant"] == "ctm, place_weight=0.5"
    document = tmp_path / "study.md"
    document.write_text(f"before\n{BEGIN}old{END}\nafter\n")
    main(["--results", str(tmp_path), "table", "--document", str(document)])
    text = document.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert text.count("| variant |") == 2, "runs of another setting have a table of their own"
    line = next(line for line in text.splitlines() if line.startswith("| ctm_grid |"))
    assert line.split(" | ")[2] == "2" and "±" in line, "two seeds; the repeated run counts once"
    values = [1000 * row["loss"] for row in (first, other)]
    assert f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f} e-3" in line
    assert table(tmp_path / "nothing") == "Not run."


def test_variants_see_the_same_samples(data: Path) -> None:
    options = token_study.load_params(token_study.ROOT / "params.yaml").sample.training_of("wholebody").task
    crops = Crops.read(data, "train", (64, 48), options, 3)
    assert len(crops) == 3 and crops.images.shape == (3, 64, 48, 3)
    for augmented in (False, True):
        streams = [token_study.training_batches(crops, 2, 5, augmented) for _ in range(2)]
        for _ in range(4):
            a, b = (next(stream) for stream in streams)
            assert set(a) == {"image", "points", "weights"}
            assert all(torch.equal(a[name], b[name]) for name in a)
    index = np.array([1])
    plain, mirrored = (crops.batch(index, np.array([flip])) for flip in (False, True))
    assert torch.equal(mirrored["image"], plain["image"].flip(-1))
    left, right = token_study.FLIP[5], 5
    assert mirrored["points"][0, left, 0] == 47 - plain["points"][0, right, 0]
    # The box fills 1 / padding of the crop along one axis at least.
    box = crops.dataset.crops.box[1, 2:]
    longer = max(box[0] / 48, box[1] / 64)
    assert crops.scale[1] == pytest.approx(np.sqrt(box.prod()) / longer / options.box_padding, rel=1e-5)


def test_held_clusters_change_only_when_the_copy_is_renewed() -> None:
    model, images = nano("features").train(), smooth_images(2, 64, 48)
    holder = HeldClusters(model.backbone, steps=2)
    with torch.no_grad():
        expected = [tokens.token_of_cell for tokens in model.backbone(images)]
        for step in range(3):
            if step:
                for parameter in model.parameters():
                    parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step)))
            holder.set(images, step)
            same = [torch.equal(a.token_of_cell, b) for a, b in zip(model.backbone(images), expected, strict=True)]
            assert all(same) == (step < 2)
        holder.release()
        assert all("cluster" not in vars(getattr(model.backbone, f"ctm{i}")) for i in (1, 2, 3))


def test_every_variant_can_be_built() -> None:
    for variant in VARIANTS.values():
        with torch.device("meta"):
            tcformer.create_model(token_study.MODEL, "wholebody", **variant.options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("keypoints=face", ("keypoints", "face")),
        ("neck=finest_map", ("neck", "finest_map")),
        ("token_place=true", ("token_place", True)),
        ("place_weight=0.5", ("place_weight", 0.5)),
        ("local_parts=[2,1,1]", ("local_parts", [2, 1, 1])),
    ],
)
def test_an_option_is_json_or_text(text: str, expected: tuple[str, object]) -> None:
    assert token_study._assignment(text) == expected


def test_an_option_without_a_value_is_refused() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="keypoints: expected NAME=VALUE"):
        token_study._assignment("keypoints")
