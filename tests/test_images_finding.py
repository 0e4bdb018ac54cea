"""Which files of a folder count as images, in which order, under which names."""

from __future__ import annotations

import os
import random
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realbench.errors import UsageError
from realbench.images import ImageFile, find_images
from realbench.text import printable
from tests.conftest import FolderMaker

posix_only = pytest.mark.skipif(os.name != "posix", reason="names and links of POSIX systems")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(folder: Path) -> list[str]:
    return [file.image for file in find_images(folder)]


def test_files_are_described(make_folder: FolderMaker) -> None:
    folder = make_folder("flux-dev", count=2)
    touch(folder, "people/0007.v2.PNG")
    assert find_images(str(folder) + "/") == [
        ImageFile(str(folder), folder / "0000.jpg", "0000.jpg", "0000"),
        ImageFile(str(folder), folder / "0001.jpg", "0001.jpg", "0001"),
        ImageFile(str(folder), folder / "people/0007.v2.PNG", "people/0007.v2.PNG", "0007.v2"),
    ]


def test_the_folder_keeps_the_name_that_the_user_gave(
    make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder("flux", count=1)
    monkeypatch.chdir(folder)
    for name in (".", "../flux"):
        (file,) = find_images(name)
        assert file.folder == name
        assert file.path.read_bytes() == (folder / "0000.jpg").read_bytes()


def test_extensions_decide_in_any_case(tmp_path: Path) -> None:
    images = ["a.jpg", "b.JPEG", "c.Png", "d.webp", "e.gif", "f.bmp", "g.tif", "h.TIFF", "i.avif"]
    images += ["j.heic", "k.jxl"]  # listed, to be reported as unreadable where they are so
    touch(tmp_path, *images, "notes.txt", "prompts.jsonl", "jpg", "x.jpg.part", "noextension")
    assert names(tmp_path) == images


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "._a.jpg", ".jpg", ".cache/b.jpg", "sub/.c.jpg", "__MACOSX/._d.jpg")
    assert names(tmp_path) == ["a.jpg"]


def test_a_hidden_folder_can_be_named(tmp_path: Path) -> None:
    touch(tmp_path, ".outputs/a.jpg")
    assert names(tmp_path / ".outputs") == ["a.jpg"]


def test_order_is_natural(tmp_path: Path) -> None:
    ordered = ["1.png", "2.jpg", "2.png", "010.png", "10.png", "a1.png", "A2.png", "a10.png"]
    ordered += ["s2/1.png", "s10/1.png"]
    shuffled = random.Random(0).sample(ordered, len(ordered))
    touch(tmp_path, *shuffled)
    assert names(tmp_path) == ordered


@given(
    numbers=st.sets(st.integers(0, 10**12), min_size=2, max_size=12),
    prefix=st.sampled_from(["", "img", "img-", "prompt 7 seed ", "ü²"]),
)
def test_numbered_files_come_in_the_order_of_their_numbers(
    tmp_path_factory: pytest.TempPathFactory, numbers: set[int], prefix: str
) -> None:
    folder = tmp_path_factory.mktemp("numbered")
    touch(folder, *(f"{prefix}{number}.png" for number in sorted(numbers, reverse=True)))
    assert names(folder) == [f"{prefix}{number}.png" for number in sorted(numbers)]


def test_accents_are_written_one_way_in_prompt_ids(tmp_path: Path) -> None:
    touch(tmp_path, "cafe\u0301.jpg")
    assert find_images(tmp_path)[0].prompt_id == "caf\u00e9"


# --- Odd names ---------------------------------------------------------------------------------


@posix_only
def test_names_that_are_not_utf8_can_be_printed_and_opened(tmp_path: Path) -> None:
    try:
        raw = os.fsencode(tmp_path) + b"/caf\xe9-\xff.jpg"
        with open(raw, "wb") as file:
            file.write(b"content")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (found,) = find_images(tmp_path)
    assert found.image == r"caf\xe9-\xff.jpg"
    assert found.prompt_id == r"caf\xe9-\xff"
    assert found.image.encode("utf-8").decode("utf-8") == found.image
    assert found.path.read_bytes() == b"content"


@posix_only
def test_control_characters_cannot_break_a_table(tmp_path: Path) -> None:
    touch(tmp_path, "a\nb\x1b[31m.jpg")
    assert names(tmp_path) == [r"a\x0ab\x1b[31m.jpg"]


def test_a_name_cannot_pass_for_another_by_its_direction(tmp_path: Path) -> None:
    touch(tmp_path, "photo\u202egpj.png")
    assert names(tmp_path) == [r"photo\u202egpj.png"]


@given(name=st.text().map(lambda s: s.encode("utf-8", "surrogatepass")) | st.binary())
def test_printable_names_are_utf8_on_one_line(name: bytes) -> None:
    decoded = name.decode("utf-8", "surrogateescape")
    shown = printable(decoded)
    shown.encode("utf-8")
    assert not any(ord(letter) < 32 for letter in shown)
    if decoded.isprintable():
        assert shown == decoded


# --- Links -------------------------------------------------------------------------------------


@posix_only
def test_loops_of_links_end(tmp_path: Path) -> None:
    root = tmp_path / "model"
    touch(root, "a.jpg", "sub/b.jpg")
    touch(tmp_path, "other model/c.jpg")
    (root / "sub" / "loop").symlink_to(root)
    (root / "here").symlink_to(".")
    (root / "up").symlink_to("..")  # would pull in the other model's folder
    (root / "self").symlink_to("self")
    (root / "ping").symlink_to("pong")
    (root / "pong").symlink_to("ping")
    assert names(root) == ["a.jpg", "sub/b.jpg"]


@posix_only
def test_a_folder_reached_twice_is_listed_at_its_real_place(tmp_path: Path) -> None:
    root = tmp_path / "model"
    touch(root, "z/a.jpg")
    touch(tmp_path, "elsewhere/b.jpg", "elsewhere/deep/c.jpg")
    (root / "a-link").symlink_to("z")
    (root / "x").symlink_to(tmp_path / "elsewhere")
    (root / "y").symlink_to(tmp_path / "elsewhere")
    assert names(root) == ["x/b.jpg", "x/deep/c.jpg", "z/a.jpg"]


@posix_only
def test_links_to_images_count_as_images(tmp_path: Path, make_folder: FolderMaker) -> None:
    source = make_folder("source", count=1)
    folder = tmp_path / "linked"
    folder.mkdir()
    (folder / "1.jpg").symlink_to(source / "0000.jpg")
    (folder / "2.jpg").symlink_to("gone.jpg")
    (folder / "3.jpg").symlink_to("3.jpg")
    os.mkfifo(folder / "4.jpg")
    # Those that cannot be opened are listed, so that they become rows with a reason.
    assert names(folder) == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]


@posix_only
def test_the_folder_itself_may_be_a_link(tmp_path: Path, make_folder: FolderMaker) -> None:
    (tmp_path / "latest").symlink_to(make_folder("run-7", count=2))
    assert names(tmp_path / "latest") == ["0000.jpg", "0001.jpg"]


def test_a_folder_that_is_named_like_an_image_is_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "x.jpg/y.jpg")
    assert names(tmp_path) == ["x.jpg/y.jpg"]


# --- Trouble -----------------------------------------------------------------------------------


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such folder: '.*/missing'; check the path"):
        find_images(tmp_path / "missing")


@pytest.mark.parametrize("name", ["", "nul\0byte"])
def test_a_name_that_cannot_be_a_folder(name: str) -> None:
    """An unset shell variable must not score the current folder."""
    with pytest.raises(UsageError, match="no such folder"):
        find_images(name)


def test_a_file_is_not_a_folder(make_folder: FolderMaker) -> None:
    with pytest.raises(UsageError, match=r"0000\.jpg is not a folder"):
        find_images(make_folder("model") / "0000.jpg")


@posix_only
@pytest.mark.parametrize("target", ["gone", "link"])
def test_a_link_to_nothing_is_not_a_folder(tmp_path: Path, target: str) -> None:
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(UsageError, match="link is not a folder"):
        find_images(tmp_path / "link")


@pytest.mark.parametrize("content", [[], ["notes.txt", "sub/data.csv"], [".hidden.jpg"]])
def test_a_folder_without_images_says_what_was_looked_for(
    tmp_path: Path, content: list[str]
) -> None:
    touch(tmp_path, *content)
    with pytest.raises(UsageError, match=r"no images in .*looked for files named .*\.png") as error:
        find_images(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def unlistable_folder(folder: Path) -> None:
    """Make a folder below ``folder`` whose path is too long to be listed, even by root."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 240, dir_fd=here)
        deeper = os.open("d" * 240, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)


@posix_only
def test_a_subfolder_that_cannot_be_listed_is_reported_and_the_search_goes_on(
    tmp_path: Path,
) -> None:
    touch(tmp_path, "a.jpg", "z/b.jpg")
    unlistable_folder(tmp_path)
    problems: list[tuple[Path, str]] = []
    found = find_images(tmp_path, on_problem=lambda path, reason: problems.append((path, reason)))
    assert [file.image for file in found] == ["a.jpg", "z/b.jpg"]
    ((path, reason),) = problems
    assert path.is_relative_to(tmp_path / ("d" * 240))
    assert reason == "cannot list this folder: File name too long"


@posix_only
def test_without_a_listener_an_unlistable_subfolder_is_a_warning(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    unlistable_folder(tmp_path)
    with pytest.warns(UserWarning, match="cannot list this folder: File name too long") as caught:
        assert names(tmp_path) == ["a.jpg"]
    assert caught[0].filename == __file__


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may list everything")
def test_folders_without_permission(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "locked/b.jpg")
    (tmp_path / "locked").chmod(0)
    try:
        with pytest.warns(UserWarning, match="Permission denied"):
            assert names(tmp_path) == ["a.jpg"]
        with pytest.raises(UsageError, match=r"cannot list the folder .*Permission denied"):
            find_images(tmp_path / "locked")
    finally:
        (tmp_path / "locked").chmod(0o700)


def test_nothing_is_said_about_sound_folders(shared_data: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = find_images(shared_data / "photos")
    assert len(found) == 105
    assert [file.image for file in found[:2]] == ["00000.jpg", "00002.jpg"]
