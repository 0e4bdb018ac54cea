"""``realbench.score`` from Python: what it returns, what it refuses, what it tells on the way."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import realbench
from realbench.detection.registry import find_card
from realbench.detection.verdict import ConformalSample
from realbench.errors import RealBenchError, RealBenchWarning, UsageError
from realbench.runs.files import checked, make_folder, write_atomically
from realbench.scoring import Progress
from realbench.scoring.cache import cache_path
from tests.conftest import FolderMaker, PictureMaker
from tests.fakes import make_card


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_card(tmp_path_factory.mktemp("cards"), "tiny", seed=3)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REALBENCH_CACHE", str(tmp_path / "cache"))


def test_a_run_is_a_table_and_a_row_per_folder(make_folder: FolderMaker, card: Path) -> None:
    first, second = make_folder("a", 3), make_folder("b", 2)
    (second / "0001.jpg").write_bytes(b"")
    run = realbench.score(first, str(second), detectors=str(card))
    assert list(run.table.columns) == [
        *("folder", "image", "prompt_id", "sha256", "status", "reason", "realism"),
        *("tiny", "disagreement", "verdict"),
    ]
    assert list(run["folder"]) == ["a"] * 3 + ["b"] * 2
    assert (len(run), run.n_scored, len(run.failures)) == (5, 4, 1)
    pd.testing.assert_series_equal(run["realism"], run["tiny"], check_names=False)
    assert run["realism"].dropna().between(0, 1).all()
    assert list(run.folders.index) == sorted(
        ["a", "b"], key=lambda name: -run.folders.loc[name, "realism"]
    )
    assert run.folders.loc["b", "n_failed"] == 1
    assert "realism" in repr(run)
    assert "<table" in run._repr_html_()
    assert run.paths["a", "0000.jpg"] == first / "0000.jpg"


def test_what_is_written_is_what_is_returned(
    make_folder: FolderMaker, card: Path, tmp_path: Path
) -> None:
    run = realbench.score(make_folder("a", 2), detectors=[card], out=tmp_path / "new" / "run")
    out = tmp_path / "new" / "run"
    assert {path.name for path in out.iterdir()} == {
        *("scores.csv", "summary.json", "run.json", "report.html"),
    }
    assert json.loads((out / "summary.json").read_text()) == run.summary
    assert json.loads((out / "run.json").read_text()) == run.manifest
    table = pd.read_csv(out / "scores.csv", dtype={"prompt_id": str})
    np.testing.assert_allclose(table["realism"], run["realism"], atol=1e-6)
    again = realbench.score(make_folder("a", 2), detectors=[card], out=out)
    assert again.manifest["n_cached"] == 2
    pd.testing.assert_frame_equal(again.table, run.table)


def test_verdicts_follow_held_out_scores_of_these_very_weights(
    make_folder: FolderMaker, card: Path, tmp_path: Path
) -> None:
    own = shutil.copytree(card, tmp_path / "own")
    folder = make_folder("a", 6)
    (folder / "0005.jpg").write_bytes(b"")
    before = realbench.score(folder, detectors=own)
    assert (before["verdict"] == "").all()
    assert before.summary["verdict"] is before.summary["folders"][0]["verdicts"] is None
    assert "realbench detectors calibrate tiny --reference" in before.summary["notes"][0]

    # At 0.1 the fourth of 39 photographs counts, which scores between two images and the others.
    logits = np.sort(np.log(before["realism"] / (1 - before["realism"])).dropna())
    middle = float(logits[1:3].mean())
    sample = ConformalSample.of(
        [find_card(own)],
        {"tiny": np.r_[[middle] * 4, [middle + 3] * 35, np.linspace(-60, 50, 39)]},
        np.arange(78) < 39,
        np.repeat(["street", "flux"], 39),
        "made up",
    )
    sample.write(own)
    rule = sample.rule([find_card(own)], 0.1)
    run = realbench.score(folder, detectors=own, max_false_alarm=0.1, out=tmp_path / "run")
    called = dict(zip(run["realism"].rank(), run["verdict"], strict=True))
    assert [called[n] for n in (1, 2)] == ["generated", "generated"]
    assert set(run["verdict"][:5]) == {"generated", "unsure"}
    assert run["verdict"].tolist() == rule.verdicts(run["realism"]).tolist()
    assert run["verdict"][5] == ""
    (entry,) = run.summary["folders"]
    shares = {verdict: share["estimate"] for verdict, share in entry["verdicts"].items()}
    assert shares == {"photograph": 0, "unsure": 0.6, "generated": 0.4}
    basis = run.summary["verdict"]
    assert (basis["n_photographs"], basis["n_generated"]) == (39, 39)
    assert basis["generated_below"] == rule.low
    assert basis["photographs_called_generated"] is None  # there is one source
    images = [Image.open(folder / name) for name in run["image"][:5]]
    scorer = realbench.Scorer(own, device="cpu", max_false_alarm=0.1)
    assert scorer(images).verdict.tolist() == run["verdict"][:5].tolist()
    assert realbench.Scorer(card, device="cpu")(images).verdict is None
    with pytest.raises(UsageError, match="--max-false-alarm must be above 0"):
        realbench.score(folder, detectors=own, max_false_alarm=0)


def test_progress_counts_up_to_all_files(make_folder: FolderMaker, card: Path) -> None:
    folder = make_folder("a", 4)
    (folder / "broken.png").write_bytes(b"?")
    seen: list[Progress] = []
    realbench.score(folder, detectors=[card], progress=seen.append)
    assert [one.done for one in seen] == [1, 2, 3, 4, 5]
    assert seen[-1] == Progress(done=5, total=5, cached=0, failed=1)
    realbench.score(folder, detectors=[card], progress=seen.append)
    assert seen[-1] == Progress(done=5, total=5, cached=4, failed=1)


def test_scores_do_not_depend_on_threads_and_batches(make_folder: FolderMaker, card: Path) -> None:
    folder = make_folder("a", 9, size=(90, 70))
    runs = [
        realbench.score(folder, detectors=[card], cache=False, workers=w, batch_size=b)
        for w, b in ((1, 1), (4, 2), (2, 100))
    ]
    for run in runs[1:]:
        np.testing.assert_allclose(run["realism"], runs[0]["realism"], atol=1e-4)


def test_arguments_that_make_no_sense_are_refused(make_folder: FolderMaker, card: Path) -> None:
    folder = make_folder("a", 1)
    for options in ({"workers": 0}, {"batch_size": -1}, {"max_pixels": 0}, {"seed": -1}):
        (name,) = options
        with pytest.raises(UsageError, match=f"{name} must be at least"):
            realbench.score(folder, detectors=[card], **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no folder is given"):
        realbench.score(detectors=[card])
    with pytest.raises(UsageError, match="no detector is given"):
        realbench.score(folder, detectors=[])
    with pytest.raises(UsageError, match="'tiny' is given twice"):
        realbench.score(folder, detectors=[card, card])
    with pytest.raises(UsageError, match="no device 'nowhere': give auto, cpu"):
        realbench.score(folder, detectors=[card], device="nowhere")


def test_a_callback_that_fails_ends_the_run(make_folder: FolderMaker, card: Path) -> None:
    def fail(progress: Progress) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        realbench.score(make_folder("a", 3), detectors=[card], progress=fail)


def test_changed_pictures_are_scored_again(make_folder: FolderMaker, card: Path) -> None:
    folder = make_folder("a", 3)
    before = realbench.score(folder, detectors=[card])
    Image.new("RGB", (64, 48), (200, 10, 10)).save(folder / "0001.jpg")
    after = realbench.score(folder, detectors=[card])
    assert after.manifest["n_cached"] == 2
    assert list(before["sha256"] == after["sha256"]) == [True, False, True]
    assert before["realism"][1] != after["realism"][1]


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_atomically(path, b"old")
    with pytest.raises(UsageError, match="lies below a file"):
        write_atomically(path / "y.json", b"new")
    with pytest.raises(UsageError, match="is a file"):
        make_folder(path)

    def full() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(RealBenchError, match=r"cannot write .*x\.json .*free some space"):
        checked(path, full)
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    (tmp_path / "folder").mkdir()
    with pytest.raises(RealBenchError, match="cannot write"):
        write_atomically(tmp_path / "folder", b"new")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["folder", "x.json"]


def test_an_image_folder_is_no_place_for_results(make_folder: FolderMaker, card: Path) -> None:
    folder, photographs = make_folder("a", 1), make_folder("photographs", 1)
    for out in (folder, folder / ".." / "a", photographs):
        with pytest.raises(UsageError, match="is a folder of images of this run"):
            realbench.score(folder, reference=photographs, detectors=card, out=out)
    assert {path.name for path in folder.iterdir()} == {"0000.jpg"}


def test_a_run_that_replaces_other_folders_says_so(
    make_folder: FolderMaker, card: Path, tmp_path: Path
) -> None:
    a, b, out = make_folder("a", 1), make_folder("b", 1), tmp_path / "run"
    realbench.score(a, b, detectors=card, out=out)
    with pytest.warns(RealBenchWarning, match="held a run that had b, too"):
        realbench.score(a, detectors=card, out=out)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RealBenchWarning)
        realbench.score(a, b, detectors=card, out=out)


def test_prompts_that_name_no_image_are_told(
    make_folder: FolderMaker, card: Path, tmp_path: Path
) -> None:
    prompts, folder = tmp_path / "suite.jsonl", make_folder("a", 2)
    prompts.write_text('{"id": "castle", "prompt": "A castle."}\n')
    with pytest.warns(RealBenchWarning, match=r"such as castle\.png.*first image is 0000\.jpg"):
        assert realbench.score(folder, prompts=prompts, detectors=card).n_scored == 2
    prompts.write_text('{"id": "0001", "prompt": "A castle."}\n')
    with warnings.catch_warnings():
        warnings.simplefilter("error", RealBenchWarning)
        realbench.score(folder, prompts=prompts, detectors=card)


def test_a_folder_of_models_is_one_model_with_a_word_of_advice(
    make_folder: FolderMaker, card: Path, tmp_path: Path
) -> None:
    for model in ("x", "y"):
        make_folder(f"models/{model}", 2)
    models = tmp_path / "models"
    note, _ = realbench.score(models, detectors=card).summary["notes"]
    assert "the same prompts in 2 folders" in note
    (models / "y" / "0000.jpg").rename(models / "y" / "other.jpg")
    (models / "y" / "0001.jpg").unlink()
    (note,) = realbench.score(models, detectors=card).summary["notes"]  # parts of one set
    assert note.startswith("no verdicts: ")


def test_a_wrong_device_is_refused_though_every_score_is_known(
    make_folder: FolderMaker, card: Path
) -> None:
    folder = make_folder("a", 1)
    realbench.score(folder, detectors=card)
    with pytest.raises(UsageError, match="abacus"):
        realbench.score(folder, detectors=card, device="abacus")


def test_a_failed_arena_leaves_no_claim_on_its_folder(
    make_folder: FolderMaker, card: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "votes.jsonl").touch()
    realbench.score(make_folder("a", 1), detectors=card, out=out)
    assert (out / "report.html").exists()


# --- Which files count -------------------------------------------------------------------------


def counts(run: realbench.scoring.ScoreRun) -> dict[str, int]:
    reference = run.summary["reference"]
    return {
        entry["folder"]: entry["n"]
        for entry in [*run.summary["folders"], *([reference] if reference else [])]
    }


def test_photographs_inside_of_a_model_folder_are_not_the_models(
    make_folder: FolderMaker, card: Path, tmp_path: Path
) -> None:
    model, photos = make_folder("model", 4), make_folder("model/photos", 3)
    alone = realbench.score(make_folder("a", 4), reference=photos, detectors=[card])
    assert counts(alone) == {"a": 4, "photos": 3}
    run = realbench.score(model, reference=photos, detectors=[card])
    assert counts(run) == {"model": 4, "photos": 3}
    assert any("3 images left out, since they lie in photos" in n for n in run.summary["notes"])
    # The same by a link to the folder, by a link inside of the model, and by hard links.
    (tmp_path / "link").symlink_to(photos)
    linked = realbench.score(model, reference=tmp_path / "link", detectors=[card])
    assert counts(linked) == {"model": 4, "photos": 3}
    other, apart = make_folder("other", 2), make_folder("apart", 3)
    (other / "inside").symlink_to(apart)
    assert counts(realbench.score(other, reference=apart, detectors=[card])) == {
        "other": 2,
        "apart": 3,
    }
    (other / "inside").unlink()
    for n, path in enumerate(sorted(apart.iterdir())):
        (other / f"hard{n}.jpg").hardlink_to(path)
    run = realbench.score(other, reference=apart, detectors=[card])
    assert counts(run) == {"other": 2, "apart": 3}
    assert any("3 of 5 images are copies of photographs" in n for n in run.summary["notes"])


def test_a_folder_inside_of_another_has_its_images_alone(
    make_folder: FolderMaker, card: Path
) -> None:
    a, sub = make_folder("a", 3), make_folder("a/sub", 2)
    for folders in ((a, sub), (sub, a)):
        run = realbench.score(*folders, detectors=[card])
        assert counts(run) == {"a": 3, "sub": 2}
    one, two = make_folder("up/one", 2), make_folder("up/two", 1)
    with pytest.raises(UsageError, match="all images of up are those of one and two"):
        realbench.score(one.parent, one, two, detectors=[card])


def test_a_copy_of_the_photographs_is_no_model(
    make_folder: FolderMaker, card: Path, tmp_path: Path
) -> None:
    photos, model = make_folder("photos", 3), make_folder("model", 2)
    shutil.copytree(photos, tmp_path / "copy")
    run = realbench.score(model, tmp_path / "copy", reference=photos, detectors=[card])
    assert counts(run) == {"model": 2, "copy": 0, "photos": 3}
    assert run.summary["pairs"] == []
    assert run.folders.loc["copy", "n_failed"] == 0
    assert run.failures.empty


def test_copies_of_a_picture_count_once(
    make_folder: FolderMaker, card: Path, tmp_path: Path
) -> None:
    stuck, fine, photos = make_folder("stuck", 1), make_folder("fine", 4), make_folder("photos", 3)
    for n in range(1, 20):
        shutil.copy(stuck / "0000.jpg", stuck / f"{n:04d}.jpg")
    shutil.copy(photos / "0000.jpg", photos / "again.jpg")
    run = realbench.score(stuck, fine, reference=photos, detectors=[card], out=tmp_path / "run")
    entry = next(one for one in run.summary["folders"] if one["folder"] == "stuck")
    assert (entry["n"], entry["n_copies"], entry["n_prompts"], entry["n_failed"]) == (1, 19, 1, 0)
    assert entry["realism"]["low"] is None
    assert counts(run)["photos"] == 3
    (pair,) = run.summary["pairs"]
    assert pair["tied"]
    (note,) = [one for one in run.summary["notes"] if one.startswith("stuck: 19 of 20")]
    assert note.endswith("such as 0001.jpg of 0000.jpg: each picture counts once")
    table = pd.read_csv(tmp_path / "run" / "scores.csv")
    copies = table[table["status"] == "copy"]
    assert len(copies) == 20
    assert set(copies["reason"]) == {"a copy of stuck/0000.jpg", "a copy of photos/0000.jpg"}
    assert "Copies, which do not count" in (tmp_path / "run" / "report.html").read_text()


def test_a_picture_that_was_saved_again_is_a_copy(
    make_folder: FolderMaker, card: Path, tmp_path: Path
) -> None:
    model, photos = make_folder("model", 3), make_folder("photos", 2)
    black, noted = Image.new("RGB", (64, 64)), PngInfo()
    noted.add_text("parameters", "seed 7")
    black.save(model / "black1.png", compress_level=1)
    black.save(model / "black2.png", compress_level=9, pnginfo=noted)
    black.save(model / "black3.jpg")
    black.convert("L").save(model / "black4.webp", lossless=True)
    with Image.open(photos / "0001.jpg") as photo:
        photo.save(model / "photo.png")
    Image.new("RGB", (32, 128)).save(model / "other.png")  # as many black pixels, another shape
    for _ in range(2):  # the second one finds all in the cache
        run = realbench.score(model, reference=photos, detectors=[card])
        assert counts(run) == {"model": 5, "photos": 2}
        reasons = run.table[run.table["status"] == "copy"].set_index("image")["reason"].to_dict()
        black_one = "a copy of model/black1.png"
        assert reasons == {
            "black2.png": black_one,
            "black3.jpg": black_one,
            "black4.webp": black_one,
            "photo.png": "a copy of photos/0001.jpg",
        }
    # Caches of before know no pixels: they learn them, and keep their scores.
    with contextlib.closing(sqlite3.connect(cache_path())) as database, database:
        database.execute("DROP TABLE pixels")
    run = realbench.score(model, reference=photos, detectors=[card])
    assert counts(run) == {"model": 5, "photos": 2}
    assert run.manifest["n_cached"] == 11


def test_models_may_make_the_same_picture(make_folder: FolderMaker, card: Path) -> None:
    a, b = make_folder("a", 3), make_folder("b", 3)
    shutil.copy(a / "0000.jpg", b / "0000.jpg")
    run = realbench.score(a, b, detectors=[card])
    assert counts(run) == {"a": 3, "b": 3}
    assert "a and b have 1 image in common, to the last pixel" in run.summary["notes"]


# --- Told apart without a look at the picture --------------------------------------------------


def test_a_format_that_tells_a_model_from_the_photographs_is_a_note(
    make_folder: FolderMaker, card: Path
) -> None:
    photos = make_folder("photos", 10, size=(90, 60))
    model = make_folder("model", 10, size=(64, 64), format="png")
    twin = make_folder("twin", 10, size=(64, 64), format="png")
    alike = make_folder("alike", 10, size=(90, 60))
    run = realbench.score(model, twin, alike, reference=photos, detectors=[card])
    (note,) = [one for one in run.summary["notes"] if "told apart" in one]
    assert note.startswith("model, twin: photographs and generated images can be told apart")
    assert "format (JPEG against PNG) by 100 %" in note
    assert "size (90 × 60 against 64 × 64) by 100 %" in note
    assert note.endswith("use --matched")
    matched = realbench.score(model, reference=photos, detectors=[card], matched=True)
    assert not [one for one in matched.summary["notes"] if "told apart" in one]
    assert matched.manifest["arguments"]["matched"] is True
    prints = [one.manifest["detectors"][0]["fingerprint"] for one in (run, matched)]
    assert prints[0] != prints[1]
    own = matched.table["folder"] == "model"
    assert (matched.table["realism"][own] != run.table["realism"][:10]).any()
    assert not [n for n in realbench.score(model, detectors=[card]).summary["notes"] if "told" in n]


def test_an_encoder_that_tells_them_apart_is_a_note(
    make_folder: FolderMaker, make_picture: PictureMaker, card: Path
) -> None:
    photos, model = make_folder("photos", 10), make_folder("model", 0)
    for n in range(10):
        make_picture(seed=n).save(model / f"{n}.jpg", quality=95)
    run = realbench.score(model, reference=photos, detectors=[card])
    (note,) = [one for one in run.summary["notes"] if "told apart" in one]
    assert "their encoder (JPEG 75 against JPEG 95) by 100 %" in note.replace("from their", "their")
