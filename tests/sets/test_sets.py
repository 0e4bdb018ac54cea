"""Named sets: each format that they come in, fetched from loopback, cut, wrong and hostile."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from realbench.content import content_path
from realbench.errors import RealBenchError, RealBenchWarning, UsageError
from realbench.images import find_images
from realbench.prompts import load_suite
from realbench.sets import downloads, fetching, reading
from realbench.sets.cards import find_set, list_sets, path_pattern
from realbench.sets.fetching import find_fetched, get, sets_folder
from realbench.sets.naming import set_folders, set_photographs
from tests.hub import Hub

pytestmark = pytest.mark.filterwarnings("ignore::realbench.errors.RealBenchWarning")

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
FOLDERS = '[folders]\nphotographs = ["pics/0_real/*"]\ngenerated = ["pics/{generator}/*"]\n'
COLUMNS = """[columns]
image = "image"
label = "label"
real = ["real"]
generator = "model"
caption = "prompt"
"""


def picture(seed: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind)
    return data.getvalue()


PATHS = ["pics/0_real/a.png", "pics/0_real/b.png", "pics/sdxl/a.png", "pics/flux/deep.png"]
FILES = {path: picture(n) for n, path in enumerate(PATHS)}
WANTED = {
    path.replace("pics/0_real", "photographs").replace("pics/", "generated/"): data
    for path, data in FILES.items()
}


def as_zip(files: Mapping[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def as_tar(files: Mapping[str, bytes], mode: str = "w:gz") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return data.getvalue()


def rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Every third is a photograph; the rest is of two generators."""
    return [
        {
            "image": {"bytes": picture(n), "path": None},
            "label": "fake" if n % 3 else "real",
            "model": ["", "lab/one", "two"][n % 3],
            "prompt": f"picture {n}",
        }
        for n in range(start, start + count)
    ]


def as_parquet(table: list[dict[str, Any]], group: int = 4) -> bytes:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    data = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(table), data, row_group_size=group)
    return data.getvalue()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REALBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("REALBENCH_SETS", str(tmp_path / "cards"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(downloads, "time", SimpleNamespace(sleep=lambda _: None))
    return tmp_path / "cache"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub().serving() as played:
        yield played


Make = Callable[..., Path]


@pytest.fixture
def card(tmp_path: Path) -> Make:
    def make(source: str, rest: str = FOLDERS, name: str = "mine", top: str = "") -> Path:
        folder = tmp_path / "cards" / name
        folder.mkdir(parents=True, exist_ok=True)
        head = f'name = "{name}"\ndescription = "Some."\nlicence = "CC0"\nverified = false\n{top}'
        (folder / "set.toml").write_text(f"{head}\n[source]\n{source}\n{rest}")
        return folder

    return make


def archive(hub: Hub, data: bytes, *, sha256: str | None = None, name: str = "s.bin") -> str:
    """Serve a file, and return the source that a card has for it."""
    hub.pages[f"/{name}"] = data
    pin = f'\nsha256 = "{sha256}"' if sha256 else ""
    return f'kind = "archive"\n[[source.files]]\nurl = "{hub.endpoint}/{name}"{pin}'


def contents(folder: Path) -> dict[str, bytes]:
    return {one.image: one.path.read_bytes() for one in find_images(folder)}


def reasons(folder: Path) -> dict[str, str]:
    with (folder / "pictures.csv").open(newline="") as text:
        return {row["image"]: row["reason"] for row in csv.DictReader(text) if row["reason"]}


# --- each format -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pack", [as_zip, as_tar, lambda f: as_tar(f, "w"), lambda f: as_tar(f, "w:xz")]
)
def test_an_archive_of_folders_becomes_folders(
    hub: Hub, card: Make, pack: Callable[[Mapping[str, bytes]], bytes]
) -> None:
    card(archive(hub, pack({**FILES, "pics/readme.txt": b"x", "pics/0_real/.hidden.png": b"x"})))
    found = get(find_set("mine"))
    assert contents(found.folder) == WANTED
    record = json.loads((found.folder / "set.json").read_text())
    assert record["folders"] == {"photographs": 2, "generated/sdxl": 1, "generated/flux": 1}
    assert (record["n"], record["n_failed"], record["licence"]) == (4, 0, "CC0")
    hub.pages.clear()  # it is not asked for again
    assert get(find_set("mine")).record == found.record


def test_a_commit_of_a_repository_comes_with_its_captions(hub: Hub, card: Make) -> None:
    files = {f"name-{COMMIT}/{path}": data for path, data in FILES.items()}
    files[f"name-{COMMIT}/pics/0_real/00001.png"] = picture(9)
    files[f"name-{COMMIT}/prompt.txt"] = b"zero\na dog\n"
    hub.pages[f"/owner/name/archive/{COMMIT}.tar.gz"] = as_tar(files)
    source = f'kind = "git"\nrepo = "{hub.endpoint}/owner/name"\nrevision = "{COMMIT}"'
    card(source, f'{FOLDERS}captions = "prompt.txt"\n')
    found = get(find_set("mine"))
    assert contents(found.folder) == {**WANTED, "photographs/00001.png": picture(9)}
    suite = load_suite("set:mine")
    assert {key: one.prompt for key, one in suite.prompts.items()} == {"00001": "a dog"}

    other = COMMIT.replace("8", "7")  # another revision is another set, which the server lacks
    card(source.replace(COMMIT, other), f'{FOLDERS}captions = "prompt.txt"\n')
    assert find_fetched(find_set("mine")) is None
    with pytest.raises(RealBenchError, match="HTTP 404"):
        get(find_set("mine"))


def table_wanted(table: list[dict[str, Any]]) -> dict[str, bytes]:
    places = ["photographs", "generated/lab-one", "generated/two"]
    return {f"{places[n % 3]}/{n:06}.png": row["image"]["bytes"] for n, row in enumerate(table)}


@pytest.mark.parametrize("inside", ["", "zip", "tar"])
def test_parquet_files_become_folders(hub: Hub, card: Make, inside: str) -> None:
    table = rows(7)
    data = as_parquet(table)
    if inside:
        parts = {"d/0.parquet": as_parquet(table[:4]), "d/1.parquet": as_parquet(table[4:])}
        data = as_zip(parts) if inside == "zip" else as_tar(parts, "w")
    card(archive(hub, data), COLUMNS)
    found = get(find_set("mine"))
    assert contents(found.folder) == table_wanted(table)
    captions = {key: one.prompt for key, one in load_suite("set:mine").prompts.items()}
    assert captions == {f"{n:06}": f"picture {n}" for n in range(7)}


def test_a_webdataset_becomes_folders(hub: Hub, card: Make) -> None:
    files: dict[str, bytes] = {}
    for n in range(4):
        files[f"part/{n}.{'jpg' if n == 3 else 'png'}"] = picture(n, "JPEG" if n == 3 else "PNG")
        files[f"part/{n}.json"] = json.dumps({"label": n % 2, "of": f"g{n}"}).encode()
        files[f"part/{n}.txt"] = f" caption {n}\n".encode()
    files["part/3.json"] = b'{"label": 1, "of": "g3", "id": 0, "text": "half a \\ud83d"}'
    columns = """[columns]
image = "png;jpg"
label = "json.label"
real = [0]
generator = "json.of"
caption = "txt"
"""
    card(archive(hub, as_tar(files, "w")), columns)
    found = get(find_set("mine"))
    assert contents(found.folder) == {
        "photographs/000000.png": picture(0),
        "photographs/000002.png": picture(2),
        "generated/g1/000001.png": picture(1),
        "generated/g3/000003.jpg": picture(3, "JPEG"),
    }
    assert load_suite("set:mine").prompts["000003"].prompt == "caption 3"
    card(archive(hub, as_tar(files, "w")), columns.replace("txt", "json.text"), name="texts")
    get(find_set("texts"))
    assert load_suite("set:texts").prompts["000003"].prompt == "half a ?"


def test_rows_are_called_by_their_ids_unless_two_prompts_share_one(hub: Hub, card: Make) -> None:
    table = rows(6)
    for row, name, prompt in zip(table, "aabbcc", ["x", "x", "y", "z", None, "w"], strict=True):
        row |= {"id": f"../{name}", "prompt": prompt}
    card(archive(hub, as_parquet(table)), f'{COLUMNS}id = "id"\n')
    names = set(contents(get(find_set("mine")).folder))
    assert names == {
        *("photographs/a.png", "generated/lab-one/a.png", "generated/two/b.png"),
        *("photographs/b-row000003.png", "generated/lab-one/c.png", "generated/two/c.png"),
    }
    prompts = {key: one.prompt for key, one in load_suite("set:mine").prompts.items()}
    assert prompts == {"a": "x", "b": "y", "b-row000003": "z", "c": "w"}


def test_a_part_of_an_archive_is_chosen_by_hash_and_says_so(hub: Hub, card: Make) -> None:
    card(archive(hub, as_zip({f"pics/0_real/{n}.png": picture(n) for n in range(20)})))
    part = get(find_set("mine"), n=5)
    names = sorted(contents(part.folder))
    by_hash = sorted(
        (f"pics/0_real/{n}.png" for n in range(20)),
        key=lambda name: hashlib.sha256(name.encode()).digest(),
    )
    assert names == sorted(f"photographs/{Path(one).name}" for one in by_hash[:5])
    with pytest.warns(RealBenchWarning, match="5 pictures are here, not the whole"):
        assert set_photographs("set:mine") == part.folder / "photographs"
    whole = get(find_set("mine"))
    assert len(contents(whole.folder)) == 20
    two = archive(hub, as_zip({"pics/sdxl/x.png": picture(1)}), name="b.zip").partition("\n")[2]
    one = archive(hub, as_zip({f"pics/0_real/{n}.png": picture(n) for n in range(9)}), name="a.zip")
    card(f"{one}\n{two}", name="pair")
    assert len(contents(get(find_set("pair"), n=4).folder)) == 3  # two of each, as far as it goes
    assert set_photographs("set:mine") == whole.folder / "photographs"


# --- cut, wrong, changed -----------------------------------------------------------------------


def test_a_download_that_is_cut_goes_on_where_it_broke_off(hub: Hub, card: Make) -> None:
    data = as_zip({**FILES, "pics/0_real/noise.bin": bytes(np.random.default_rng(0).bytes(90_000))})
    card(archive(hub, data, sha256=hashlib.sha256(data).hexdigest()))
    hub.cut = (30_000, 2)
    found = get(find_set("mine"))
    assert contents(found.folder) == WANTED
    assert [int(line.split()[-1]) for line in hub.asked] == [0, 30_000, 60_000]


def killed_while_fetching(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the process end when the connection breaks for the first time."""
    real = downloads._fetch

    def fetch(*args: Any) -> str:
        real(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(downloads, "_fetch", fetch)
        with pytest.raises(KeyboardInterrupt):
            get(find_set("mine"))


def test_a_killed_download_is_taken_up_by_the_next_process(
    hub: Hub, card: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    card(archive(hub, as_zip({**FILES, "pics/x.bin": np.random.default_rng(0).bytes(90_000)})))
    hub.cut = (50_000, 1)
    killed_while_fetching(monkeypatch)
    assert find_fetched(find_set("mine")) is None
    assert contents(get(find_set("mine")).folder) == WANTED
    assert [int(line.split()[-1]) for line in hub.asked] == [0, 50_000]
    assert not [one for one in sets_folder().iterdir() if one.is_dir() and one.name[0] == "."]


def test_what_lies_there_now_is_not_joined_to_a_part_of_what_lay_there(
    hub: Hub, card: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).bytes(90_000)
    card(archive(hub, as_zip({**FILES, "pics/x.bin": noise})))
    hub.cut = (50_000, 1)
    killed_while_fetching(monkeypatch)
    changed = {path: picture(100 + n) for n, path in enumerate(PATHS)}
    hub.pages["/s.bin"] = as_zip({**changed, "pics/x.bin": noise})
    found = contents(get(find_set("mine")).folder)
    assert sorted(found.values()) == sorted(changed.values())


def test_a_wrong_hash_is_refused_and_nothing_kept(hub: Hub, card: Make) -> None:
    card(archive(hub, as_zip(FILES), sha256="0" * 64))
    with pytest.raises(RealBenchError, match=r"came with sha256 .* but its card says 0000"):
        get(find_set("mine"))
    assert not list(sets_folder().rglob("*.partial"))
    card(archive(hub, as_zip(FILES)), top=f'content = "{"0" * 64}"\n')
    with pytest.raises(RealBenchError, match="they are other ones"):
        get(find_set("mine"))
    assert find_fetched(find_set("mine")) is None


def test_the_content_hash_is_the_pictures_whatever_they_come_in(hub: Hub, card: Make) -> None:
    card(archive(hub, as_zip(FILES)))
    content = get(find_set("mine")).record["content"]
    backwards = dict(reversed(FILES.items()))
    card(archive(hub, as_tar(backwards)), top=f'content = "{content}"\n', name="other")
    assert get(find_set("other")).record["content"] == content


def test_a_set_by_hand_says_how_and_takes_the_file(hub: Hub, card: Make, tmp_path: Path) -> None:
    card('kind = "manual"\nhow = "write to its author"')
    with pytest.raises(RealBenchError, match=r"write to its author, then run: .* mine --from FILE"):
        get(find_set("mine"))
    file = tmp_path / "given.zip"
    file.write_bytes(as_zip(FILES))
    assert contents(get(find_set("mine"), given=[file]).folder) == WANTED
    with pytest.raises(UsageError, match="there is no such file"):
        get(find_set("mine"), given=[tmp_path / "no.zip"])


def test_without_a_network_one_line_says_what_to_do(card: Make) -> None:
    with Hub().serving() as gone:
        source = archive(gone, b"")
    card(source)
    with pytest.raises(RealBenchError, match=r"s\.bin is not reached: .*sets get mine --from FILE"):
        get(find_set("mine"))


CUT = as_tar(FILES, "w")[:1700] + as_tar(FILES, "w")[1800:]


@pytest.mark.parametrize(
    "data", [b"", CUT, b"<html>a page</html>", b"\x1f\x8bnot gzip", as_zip(FILES)[:90]]
)
def test_what_is_no_archive_is_said_and_fetched_again(hub: Hub, card: Make, data: bytes) -> None:
    card(archive(hub, data))
    with pytest.raises(RealBenchError, match="no zip, tar or Parquet file, or damaged"):
        get(find_set("mine"))
    hub.pages["/s.bin"] = as_zip(FILES)
    assert contents(get(find_set("mine")).folder) == WANTED


def test_a_card_that_names_no_picture_there_is_said(hub: Hub, card: Make) -> None:
    card(archive(hub, as_zip(FILES)), '[folders]\nphotographs = ["other/*"]\n')
    with pytest.raises(UsageError, match=r"has no picture that the card .*mine names"):
        get(find_set("mine"))


def test_two_processes_fetch_a_set_once(hub: Hub, card: Make) -> None:
    card(archive(hub, as_zip({**FILES, "pics/x.bin": np.random.default_rng(0).bytes(200_000)})))
    hub.slow = 0.02
    found = []
    threads = [threading.Thread(target=lambda: found.append(get(find_set("mine")))) for _ in "ab"]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(found) == 2
    assert len([line for line in hub.asked if line.startswith("GET")]) == 1


# --- hostile -----------------------------------------------------------------------------------


def test_hostile_members_are_rows_with_reasons_and_lead_nowhere(
    hub: Hub, card: Make, tmp_path: Path
) -> None:
    good = {"pics/0_real/ok.png": picture(0)}
    evil = {
        "pics/0_real/../../../../up.png": picture(1),
        "pics/0_real//etc/abs.png": picture(2),
        "pics/0_real/back\\slash.png": picture(3),
        "pics/0_real/nul\x01.png": picture(4),
        f"pics/0_real/{'x' * 300}.png": picture(5),
        "pics/0_real/text.png": b"not a picture",
        "pics/0_real/OK.png": picture(6),
    }
    data = io.BytesIO(as_tar({**good, **evil}, "w"))
    with tarfile.open(fileobj=data, mode="a:") as grown:
        for name, kind, target in (
            ("pics/0_real/link.png", tarfile.SYMTYPE, "/etc/passwd"),
            ("pics/0_real/hard.png", tarfile.LNKTYPE, "pics/0_real/ok.png"),
            ("pics/0_real/device.png", tarfile.CHRTYPE, ""),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, target
            grown.addfile(entry)
    rest = '[folders]\nphotographs = ["pics/0_real/**"]\n'
    card(archive(hub, data.getvalue()), rest)
    found = get(find_set("mine"))
    assert contents(found.folder) == {"photographs/ok.png": picture(0)}
    assert found.record["n_failed"] == 10 == len(reasons(found.folder))
    assert not [one for one in tmp_path.rglob("*.png") if one.name != "ok.png"]
    assert not [one for one in found.folder.rglob("*") if one.is_symlink()]


def test_a_link_and_a_damaged_member_of_a_zip_are_rows(hub: Hub, card: Make) -> None:
    data = io.BytesIO(as_zip({"pics/0_real/a.png": picture(0), "pics/0_real/b.png": picture(1)}))
    with zipfile.ZipFile(data, "a") as grown:
        link = zipfile.ZipInfo("pics/0_real/link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        grown.writestr(link, "/etc/passwd")
    broken = bytearray(data.getvalue())
    broken[broken.index(b"pics/0_real/b.png") + 60] ^= 0xFF
    card(archive(hub, bytes(broken)))
    found = get(find_set("mine"))
    assert set(contents(found.folder)) == {"photographs/a.png"}
    assert set(reasons(found.folder)) == {"b.png", "link.png"}


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "header"])
def test_bombs_are_not_unpacked(
    hub: Hub, card: Make, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_ALWAYS", 1 << 20)
    files = {"pics/0_real/a.png": picture(0), "pics/zeros.bin": bytes(20 << 20), "z": b""}
    data = as_zip(files) if kind == "zip" else as_tar(files)
    if kind == "header":  # a name of 10 MB, which tarfile would read into memory
        monkeypatch.setattr(reading, "_LARGEST", 1 << 20)
        data = as_tar({"x" * (10 << 20): b"", **files}, "w")
    card(archive(hub, data))
    with pytest.raises(RealBenchError, match="unpacks to more than"):
        get(find_set("mine"))
    assert find_fetched(find_set("mine")) is None


def test_bad_rows_of_a_table_are_rows_with_reasons(hub: Hub, card: Make) -> None:
    table = rows(6)
    table[1]["image"] = {"bytes": b"", "path": None}
    table[2]["image"] = None
    table[3]["label"] = None
    table[4]["image"] = {"bytes": b"\x89PNG\r\n\x1a\n cut", "path": "../../x.png"}
    table[5]["model"] = "../../../evil"
    card(archive(hub, as_parquet(table)), COLUMNS)
    found = get(find_set("mine"))
    assert set(contents(found.folder)) == {"photographs/000000.png", "generated/evil/000005.png"}
    assert found.record["n_failed"] == 4
    assert "it has no label" in reasons(found.folder).values()


def test_a_redirect_from_elsewhere_to_this_machine_is_not_followed() -> None:
    for location in ("http://127.0.0.1/x", "http://elsewhere.org/x", "ftp://a/b", "//[::1/x"):
        with pytest.raises(RealBenchError, match="not followed"):
            downloads._next("https://example.org/x.zip", {"location": location})
    assert downloads._next("https://a.org/x", {"location": "//b.org/y"}) == "https://b.org/y"


# --- cards -------------------------------------------------------------------------------------


def test_every_shipped_card_can_be_read_and_says_what_it_is() -> None:
    for name in (one.name for one in content_path("sets").iterdir()):
        card = find_set(name)
        assert card.name == name
        assert card.homepage or card.source.kind == "embedded"
        if card.source.kind == "embedded":
            continue
        assert not card.verified  # nothing could be tried where they were written
        assert card.citation


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("CC0", ""), "licence: is empty"),
        (('kind = "archive"', 'kind = "ftp"'), "source"),
        (("http://", "file://"), "url"),
        (("[folders]", "[folder]"), "folder"),
        (("photographs =", "reals ="), "reals"),
        (('name = "mine"', 'name = "other"'), "give folder and card one name"),
    ],
)
def test_a_card_that_is_not_valid_names_the_field(
    card: Make, change: tuple[str, str], message: str
) -> None:
    path = card('kind = "archive"\n[[source.files]]\nurl = "http://a.org/x.zip"') / "set.toml"
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    with pytest.raises(UsageError, match=message):
        find_set("mine")


def test_a_users_own_card_goes_by_name_and_by_path(hub: Hub, card: Make) -> None:
    folder = card(archive(hub, as_zip(FILES)))
    assert list_sets()["mine"] == folder
    found = get(find_set("mine")).folder
    assert set_photographs("set:mine") == found / "photographs"
    both = [found / "generated/sdxl", found / "generated/flux"]
    assert set_folders(["set:mine", "plain"]) == [*both, "plain"]
    assert set_folders([Path("set:mine/sdxl")]) == [both[0]]
    assert set_folders([f"set:{folder}/flux"]) == [both[1]]
    with pytest.raises(UsageError, match=r"has no 'dalle', but photographs, sdxl, flux"):
        set_folders(["set:mine/dalle"])
    with pytest.raises(UsageError, match="did you mean mine"):
        set_folders(["set:mina"])


def test_patterns_say_where_a_picture_goes() -> None:
    found = path_pattern("top/{generator}/1_fake/**").fullmatch("top/sd xl/1_fake/a/b.png")
    assert found is not None
    assert found.groupdict() == {"generator": "sd xl", "rest": "a/b.png"}
    assert path_pattern("**/0_real/*").fullmatch("0_real/a.png")
    assert not path_pattern("a/*.png").fullmatch("a/b/c.png")
    assert path_pattern("a/b.png").fullmatch("a/b.png")["rest"] == "b.png"  # type: ignore[index]


def test_set_record_fingerprint_ignores_texts_for_people(card: Make) -> None:
    source = 'kind = "archive"\n[[source.files]]\nurl = "http://a.org/x.zip"'
    first = find_set(card(source)).fingerprint
    assert find_set(card(source, top='citation = "Someone"\n')).fingerprint == first
    assert find_set(card(source.replace("x.zip", "y.zip"))).fingerprint != first
    assert fetching._place(find_set("mine"), None).parent == sets_folder()
