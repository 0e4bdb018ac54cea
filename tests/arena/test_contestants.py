"""Folders become contestants: which pictures meet, what is left out, and that it is said."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from realbench.arena.contestants import line_up
from realbench.errors import UsageError
from realbench.prompts import Prompt
from realbench.scoring.cache import ScoreCache, open_cache
from tests.conftest import FolderMaker


def test_folders_meet_on_the_prompts_they_share(make_folder: FolderMaker) -> None:
    a, b = make_folder("a", 3), make_folder("b", 2)
    (a / "sub").mkdir()
    (a / "0001.jpg").rename(a / "sub" / "0001.jpg")
    suite = {"0000": Prompt("0000", "a fox")}
    lineup = line_up([a, b], prompts=suite)
    assert lineup.contestants == ["a", "b"]
    assert lineup.prompt_ids() == {"a": {"0000", "0001"}, "b": {"0000", "0001"}}
    assert lineup.prompts == {"0000": "a fox", "0001": None}
    assert lineup.dropped == {"a": ["0002"], "b": []}
    assert lineup.n_images == {"a": 3, "b": 2}
    picture = lineup.pictures["a", "0001"]
    assert picture.path == a / "sub" / "0001.jpg"
    assert picture.sha256 == hashlib.sha256(picture.path.read_bytes()).hexdigest()
    showing = lineup.showing("0000", "b", "a")
    assert (showing.prompt, showing.first.contestant) == ("a fox", "b")
    assert any("0002" in note for note in lineup.notes)
    assert any("does not name 0001" in note for note in lineup.notes)


def test_three_folders_that_share_in_part_meet_pair_by_pair(make_folder: FolderMaker) -> None:
    a, b, c = make_folder("a", 4), make_folder("b", 4), make_folder("c", 4)
    (a / "0000.jpg").unlink()
    (b / "0001.jpg").unlink()
    for n in range(4):
        (c / f"000{n}.jpg").rename(c / f"{n}.jpg")
    lineup = line_up([a, b, c])
    ids = lineup.prompt_ids()
    assert ids["a"] & ids["b"] == {"0002", "0003"}
    assert lineup.dropped == {"a": ["0001"], "b": ["0000"], "c": ["0", "1", "2", "3"]}
    assert lineup.missing["c"] == ["0002", "0003"]
    assert any("c shares no prompt" in note for note in lineup.notes)


def test_of_two_files_of_one_prompt_the_first_counts_and_it_is_said(
    make_folder: FolderMaker,
) -> None:
    a, b = make_folder("a", 2), make_folder("b", 2)
    shutil.copy(b / "0001.jpg", a / "0000.jpeg")
    lineup = line_up([a, b])
    assert lineup.pictures["a", "0000"].path == a / "0000.jpeg"
    assert lineup.doubles["a"] == ["0000.jpg"]
    assert any("0000.jpg" in note for note in lineup.notes)


def test_an_unreadable_picture_costs_its_prompt_and_no_more(make_folder: FolderMaker) -> None:
    a, b = make_folder("a", 3), make_folder("b", 3)
    whole = (a / "0001.jpg").read_bytes()
    (a / "0001.jpg").write_bytes(whole[: len(whole) // 2])  # its header is still good
    (b / "0002.jpg").write_bytes(b"<html>not found</html>")
    lineup = line_up([a, b])
    assert set(lineup.prompts) == {"0000"}
    assert "truncated" in lineup.unreadable["a"]["0001.jpg"]
    assert "web page" in lineup.unreadable["b"]["0002.jpg"]
    assert sum("unreadable" in note for note in lineup.notes) == 2


def test_pictures_above_max_pixels_are_unreadable(make_folder: FolderMaker) -> None:
    with pytest.raises(UsageError, match=r"none of the 2 images of a can be read: .* limit of 1"):
        line_up([make_folder("a", 2), make_folder("b", 2)], max_pixels=1)


def test_photographs_with_the_models_ids_meet_them_there(make_folder: FolderMaker) -> None:
    lineup = line_up([make_folder("a", 3)], reference=make_folder("photos", 2))
    assert (lineup.contestants, lineup.reference) == (["a", "photos"], "photos")
    assert not lineup.stand_ins
    assert set(lineup.prompts) == {"0000", "0001"}
    assert lineup.showing("0000", "a", "photos").first.contestant == "a"


def test_photographs_with_ids_of_their_own_stand_in(make_folder: FolderMaker) -> None:
    a, b, photos = make_folder("a", 5), make_folder("b", 5), make_folder("p", 3)
    for n, path in enumerate(sorted(photos.iterdir())):
        path.rename(photos / f"photo-{n}.jpg")
    suite = {f"{n:04}": Prompt(f"{n:04}", "a fox") for n in range(5)}
    lineup = line_up([a, b], reference=photos, prompts=suite)
    drawn = {prompt: lineup.pictures["p", prompt].path.name for prompt in lineup.prompts}
    assert len(drawn) == 5
    assert sorted(Counter(drawn.values()).values()) == [1, 2, 2]
    assert line_up([b, a], reference=photos).pictures["p", "0003"].path.name == drawn["0003"]
    others = [line_up([a, b], reference=photos, seed=seed) for seed in range(1, 6)]
    assert any(one.pictures["p", p].path.name != drawn[p] for one in others for p in drawn)
    # The prompt would give away which one it does not describe.
    assert lineup.showing("0000", "a", "p").prompt is None
    assert lineup.showing("0000", "p", "a").prompt is None
    assert lineup.showing("0000", "a", "b").prompt == "a fox"
    assert any("ids of its own" in note for note in lineup.notes)


def test_a_further_prompt_leaves_the_other_draws_alone(make_folder: FolderMaker) -> None:
    a, photos = make_folder("a", 4), make_folder("p", 20)
    for path in photos.iterdir():
        path.rename(photos / f"p{path.name}")
    before = line_up([a], reference=photos).pictures
    shutil.copy(a / "0000.jpg", a / "0007.jpg")
    after = line_up([a], reference=photos).pictures
    kept = sum(after[key] == picture for key, picture in before.items() if key[0] == "p")
    assert kept == 4


def test_names_are_the_shortest_that_differ(make_folder: FolderMaker) -> None:
    lineup = line_up([make_folder("one/out", 1), make_folder("two/out", 1)])
    assert lineup.contestants == ["one/out", "two/out"]


def test_what_cannot_be_an_arena_is_a_usage_error(make_folder: FolderMaker, tmp_path: Path) -> None:
    a, b, empty, bad = make_folder("a", 1), make_folder("b", 1), tmp_path / "none", tmp_path / "bad"
    (b / "0000.jpg").rename(b / "other.jpg")
    empty.mkdir()
    bad.mkdir()
    (bad / "0000.jpg").write_bytes(b"")
    for folders, reference, message in (
        ([], None, "two contestants"),
        ([a], None, "two contestants"),
        ([], a, "two contestants"),
        ([a, a], None, "given twice"),
        ([a], a, "given twice"),
        ([a, b], None, "a has 0000, b has other"),
        ([a, empty], None, "no images"),
        ([a, tmp_path / "missing"], None, "no such folder"),
        ([a, bad], None, "none of the 1 images of bad can be read: 0000.jpg"),
    ):
        with pytest.raises(UsageError, match=message):
            line_up(folders, reference=reference)


def test_files_that_were_read_before_are_not_read_again(
    make_folder: FolderMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    from realbench.arena import contestants

    a, b = make_folder("a", 2), make_folder("b", 2)
    for path in (*a.iterdir(), *b.iterdir()):
        os.utime(path, (1, 1))
    past = contestants.file_stat

    def settled(path: Path) -> tuple[int, int, int, int] | None:
        found = past(path)
        return None if found is None else (found[0], found[1], found[2] - 10**10, found[3])

    # The cache trusts no file whose inode changed in the last two seconds; these are older.
    monkeypatch.setattr(contestants, "file_stat", settled)
    monkeypatch.setattr("realbench.scoring.cache.file_stat", settled)
    with open_cache([tmp_path / "cache" / "scores.sqlite"]) as cache:
        before = line_up([a, b], cache=cache)
    read: list[Path] = []
    real = contestants.read_bytes_and_hash

    def counting(path: Path) -> tuple[bytes, str]:
        read.append(path)
        return real(path)

    monkeypatch.setattr(contestants, "read_bytes_and_hash", counting)
    with open_cache([tmp_path / "cache" / "scores.sqlite"]) as cache:
        assert line_up([a, b], cache=cache) == before
    assert read == []
    (a / "0001.jpg").write_bytes((b / "0000.jpg").read_bytes())
    with open_cache([tmp_path / "cache" / "scores.sqlite"]) as cache:
        after = line_up([a, b], cache=cache)
    assert read == [a / "0001.jpg"]
    assert after.pictures["a", "0001"].sha256 == before.pictures["b", "0000"].sha256
    assert line_up([a, b], cache=ScoreCache(None)) == after


# --- Which files count -------------------------------------------------------------------------


def test_photographs_inside_of_a_contestant_are_not_its_own(make_folder: FolderMaker) -> None:
    model, photos = make_folder("model", 3), make_folder("model/photos", 3)
    for n in range(3):  # so that no prompt id collides
        (photos / f"000{n}.jpg").rename(photos / f"photo{n}.jpg")
    lineup = line_up([model], reference=photos)
    assert lineup.n_images == {"model": 3, "photos": 3}
    assert {prompt for name, prompt in lineup.pictures if name == "model"} == {
        "0000",
        "0001",
        "0002",
    }
    assert any("3 images left out, since they lie in photos" in note for note in lineup.notes)
    for n in range(3):
        (model / f"hard{n}.jpg").hardlink_to(photos / f"photo{n}.jpg")
    linked = line_up([model], reference=photos)
    assert linked.pictures == lineup.pictures
    assert linked.copies == {"model": 3}
    shutil.copytree(photos, model.parent / "copy")
    with pytest.raises(UsageError, match="none of the 3 images of copy is another one than in pho"):
        line_up([model.parent / "copy"], reference=photos)


def test_a_picture_of_several_prompts_counts_once(make_folder: FolderMaker) -> None:
    a, b = make_folder("a", 4), make_folder("b", 4)
    for n in (1, 2):
        shutil.copy(a / "0000.jpg", a / f"000{n}.jpg")
    shutil.copy(a / "0003.jpg", b / "0003.jpg")  # which is no copy: another model's
    lineup = line_up([a, b])
    assert lineup.prompt_ids()["a"] == {"0000", "0003"}
    assert any(note.startswith("a: 2 of 4 images are copies") for note in lineup.notes)
    assert "a and b have 1 image in common, to the last pixel" in lineup.notes
    with Image.open(b / "0000.jpg") as picture:
        picture.save(b / "0001.png")  # the same pixels by another encoder
    assert line_up([a, b]).copies == {"a": 2, "b": 1}
