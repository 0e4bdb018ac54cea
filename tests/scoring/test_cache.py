"""The score cache on real files: what it knows, what it forgets, and what it survives."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realbench.errors import RealBenchWarning
from realbench.scoring.cache import ScoreCache, cache_path, file_stat, open_cache

SHA = "ab" * 32
OTHER = "cd" * 32


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "cache" / "scores.sqlite"


@pytest.fixture
def cache(place: Path) -> Iterator[ScoreCache]:
    with open_cache([place]) as opened:
        yield opened


def old_file(path: Path, data: bytes = b"data") -> Path:
    """Write a file whose contents are old by its time; its inode's time is that of now, though."""
    path.write_bytes(data)
    os.utime(path, ns=(10**18, 10**18))
    return path


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files be remembered that have just been written."""
    monkeypatch.setattr("realbench.scoring.cache._SETTLED_NS", -(10**10))


def test_scores_come_back_by_content_and_fingerprint(cache: ScoreCache, place: Path) -> None:
    cache.put_logits("f1", {SHA: 1.25, OTHER: -3.0})
    cache.put_logits("f2", {SHA: 0.5})
    assert cache.logits(SHA, ["f1", "f2", "f3"]) == {"f1": 1.25, "f2": 0.5}
    assert cache.logits(OTHER, ["f2"]) == {}
    cache.put_logits("f2", {SHA: 0.75})
    cache.close()
    cache.close()
    with open_cache([place]) as again:
        assert again.logits(SHA, ["f1", "f2"]) == {"f1": 1.25, "f2": 0.75}


@settings(max_examples=40)
@given(st.dictionaries(st.text("0123456789abcdef", min_size=1), st.floats(-1e300, 1e300)))
def test_any_finite_logit_comes_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, logits: dict[str, float]
) -> None:
    with open_cache([tmp_path_factory.mktemp("cache") / "scores.sqlite"]) as cache:
        cache.put_logits("f", logits)
        for sha256, logit in logits.items():
            assert cache.logits(sha256, ["f"]) == {"f": logit}


@pytest.mark.usefixtures("at_once")
def test_an_unchanged_file_is_known_and_any_change_is_seen(
    cache: ScoreCache, tmp_path: Path
) -> None:
    path = old_file(tmp_path / "a.png")
    assert cache.known_sha256(path) is None
    cache.put_file(path, file_stat(path), SHA)
    cache.put_logits("f", {})  # files are written with the next scores
    assert cache.known_sha256(path) == SHA
    assert cache.known_sha256(Path(os.path.relpath(path))) == SHA
    old_file(path, b"DATA")  # the same size and time, only the inode's time differs
    assert cache.known_sha256(path) is None
    assert cache.known_sha256(tmp_path / "missing") is None
    assert cache.known_sha256(tmp_path / "nul\0.png") is None


def test_a_file_that_may_still_change_is_not_remembered(cache: ScoreCache, tmp_path: Path) -> None:
    path = old_file(tmp_path / "a.png")
    cache.put_file(path, file_stat(path), SHA)  # its inode's time is that of now
    cache.put_logits("f", {})
    assert cache.known_sha256(path) is None
    cache.put_file(path, None, SHA)
    assert cache.known_sha256(path) is None


@pytest.mark.usefixtures("at_once")
def test_names_that_are_not_utf8_are_files_like_others(cache: ScoreCache, tmp_path: Path) -> None:
    try:
        path = old_file(tmp_path / os.fsdecode(b"caf\xe9.png"))
    except OSError:
        pytest.skip("this file system wants UTF-8 names")
    cache.put_file(path, file_stat(path), SHA)
    cache.put_logits("f", {})
    assert cache.known_sha256(path) == SHA


def test_what_was_put_survives_a_process_that_dies(place: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from realbench.scoring.cache import open_cache\n"
        "cache = open_cache([Path(sys.argv[1])])\n"
        f"cache.put_logits('f', {{{SHA!r}: 7.0}})\n"
        "os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(place)], check=False).returncode == 9
    with open_cache([place]) as cache:
        assert cache.logits(SHA, ["f"]) == {"f": 7.0}


def test_threads_and_processes_share_a_cache(place: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from realbench.scoring.cache import open_cache\n"
        "with open_cache([Path(sys.argv[1])]) as cache:\n"
        "    for n in range(200): cache.put_logits(sys.argv[2], {f'{n:064}': float(n)})"
    )
    processes = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", code, str(place), name])
        for name in ("p", "q")
    ]
    with warnings.catch_warnings(), open_cache([place]) as cache:
        warnings.simplefilter("error")

        def put(name: str) -> None:
            for n in range(200):
                cache.put_logits(name, {f"{n:064}": float(n)})
                assert cache.logits(f"{n:064}", [name]) == {name: float(n)}

        threads = [threading.Thread(target=put, args=(name,)) for name in ("r", "s")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [process.wait(60) for process in processes] == [0, 0]
        for n in range(200):
            found = cache.logits(f"{n:064}", ["p", "q", "r", "s"])
            assert found == dict.fromkeys("pqrs", float(n))


def damaged_text(path: Path) -> None:
    path.write_bytes(b"this was a database once, they say" * 100)


def damaged_start(path: Path) -> None:
    path.write_bytes(b"\0" * 100 + path.read_bytes()[100:])


def damaged_schema(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:100] + os.urandom(len(data) - 100))


@pytest.mark.parametrize("damage", [damaged_text, damaged_start, damaged_schema])
def test_a_damaged_cache_is_set_aside_with_its_log(place: Path, damage: object) -> None:
    log = place.with_name(place.name + "-wal")
    open_cache([place]).close()
    with open_cache([place]) as cache:
        cache.put_logits("f", {SHA: 1.0})
        left_behind = log.read_bytes()  # as a process that is killed leaves it
    assert callable(damage)
    damage(place)
    log.write_bytes(left_behind)
    with pytest.warns(RealBenchWarning, match=r"damaged \(.*\); it is now"):
        cache = open_cache([place])
    with cache:
        assert cache.logits(SHA, ["f"]) == {}
        cache.put_logits("f", {SHA: 2.0})
    assert list(place.parent.glob("*.damaged-*"))
    with open_cache([place]) as cache:
        assert cache.logits(SHA, ["f"]) == {"f": 2.0}


def test_damage_met_later_is_set_aside_and_a_new_cache_begun(place: Path) -> None:
    with open_cache([place]) as cache:
        for n in range(40):
            cache.put_logits("f", {f"{n}-{m}": 1.0 for m in range(40)})
    data = bytearray(place.read_bytes())
    data[3 * 4096 :] = os.urandom(len(data) - 3 * 4096)  # the schema's pages stay whole
    place.write_bytes(data)
    with open_cache([place]) as cache:
        with pytest.warns(RealBenchWarning, match="damaged .*; it is now"):
            _ = [cache.logits(f"{n}-0", ["f"]) for n in range(40)]
        assert cache.logits("0-0", ["f"]) == {}
        cache.put_logits("f", {SHA: 1.0})
    assert list(place.parent.glob("*.damaged-*"))
    with open_cache([place]) as cache:
        assert cache.logits(SHA, ["f"]) == {"f": 1.0}


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE scores SET logit = 0.0448",
        "UPDATE scores SET logit = 9e999",
        "UPDATE scores SET logit = -logit",
        "UPDATE scores SET logit = 'a text'",
        "UPDATE scores SET logit = CAST(x'ff' AS TEXT)",
        "UPDATE scores SET checksum = x'00'",
        f"UPDATE OR REPLACE scores SET sha256 = '{OTHER}' WHERE sha256 = '{SHA}'",
        "UPDATE OR REPLACE scores SET fingerprint = 'f' WHERE fingerprint = 'g'",
        f"UPDATE files SET sha256 = '{OTHER}'",
        "UPDATE files SET sha256 = CAST(x'ff' AS TEXT)",
        "UPDATE files SET size = size + 1",
        "UPDATE files SET inode = 1e300",
        "ALTER TABLE scores RENAME COLUMN logit TO logis",
        "ALTER TABLE scores DROP COLUMN checksum",
        "DROP TABLE files",
        "PRAGMA user_version = 0",
        "PRAGMA user_version = 9",
        "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = 'CREATF TABLE scores ('",
    ],
)
def test_an_altered_row_gives_no_score_and_is_told(
    place: Path, tmp_path: Path, change: str
) -> None:
    file = old_file(tmp_path / "a.png")
    with open_cache([place]) as cache:
        cache.put_file(file, file_stat(file), SHA)
        cache.put_logits("f", {SHA: 0.0039, OTHER: 1.0})
        cache.put_logits("g", {SHA: 2.0, OTHER: 3.0})
    with contextlib.closing(sqlite3.connect(place, isolation_level=None)) as database:
        database.executescript(change)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with open_cache([place]) as cache:
            assert cache.known_sha256(file) in (None, SHA)
            assert cache.logits(SHA, ["f", "g"]) in ({}, {"f": 0.0039, "g": 2.0})
            assert cache.logits(OTHER, ["f", "g"]) in ({}, {"f": 1.0, "g": 3.0})
            cache.put_logits("f", {SHA: 5.0})
            assert cache.logits(SHA, ["f"]) == {"f": 5.0}
    if "DROP TABLE" not in change:  # which loses the hashes of files, and no score
        assert ["damaged" in str(one.message) for one in told] == [True]
        assert list(place.parent.glob("*.damaged-*"))


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_no_byte_of_the_file_makes_a_wrong_score(
    tmp_path_factory: pytest.TempPathFactory, random: Random
) -> None:
    place = tmp_path_factory.mktemp("cache") / "scores.sqlite"
    known = {f"{n:064x}": n / 7 - 3 for n in range(80)}
    with open_cache([place]) as cache:
        cache.put_logits("f", known)
    data = bytearray(place.read_bytes())
    for _ in range(random.choice((1, 1, 3, 200))):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    place.write_bytes(data[: random.choice((len(data), len(data), random.randrange(len(data))))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RealBenchWarning)
        with open_cache([place]) as cache:
            for sha256, logit in known.items():
                assert cache.logits(sha256, ["f"]) in ({}, {"f": logit})
            cache.put_logits("f", known)
        with open_cache([place]) as cache:
            for sha256, logit in known.items():
                assert cache.logits(sha256, ["f"]) in ({}, {"f": logit})


def test_a_cache_that_another_process_began_anew_stays(place: Path) -> None:
    with open_cache([place]) as cache:
        cache.put_logits("f", {SHA: 1.0})
        assert cache._database is not None
        cache._database.execute("UPDATE scores SET logit = 2")
        cache._database.commit()
        for suffix in ("", "-wal", "-shm"):  # as the other process does
            place.with_name(place.name + suffix).rename(place.parent / f"aside{suffix}")
        with open_cache([place]) as other:
            other.put_logits("f", {OTHER: 7.0})
        assert cache.logits(SHA, ["f"]) == {}
        assert cache.logits(OTHER, ["f"]) == {"f": 7.0}
    assert not list(place.parent.glob("*.damaged-*"))


def test_a_full_disk_costs_the_cache_and_not_the_run(cache: ScoreCache) -> None:
    cache.put_logits("f", {SHA: 1.0})
    assert cache._database is not None
    cache._database.execute("PRAGMA max_page_count = 8")
    with pytest.warns(RealBenchWarning, match="full; going on without it"):
        cache.put_logits("f", {f"{n:064}": 1.0 for n in range(2000)})
    cache.put_logits("f", {OTHER: 1.0})
    assert cache.logits(OTHER, ["f"]) == {}


def test_the_next_place_is_used_where_the_first_cannot_be(tmp_path: Path) -> None:
    blocked, spare = tmp_path / "file" / "scores.sqlite", tmp_path / "spare.sqlite"
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(RealBenchWarning, match=r"cannot be used .*; using .*spare\.sqlite instead"):
        cache = open_cache([blocked, spare])
    with cache:
        cache.put_logits("f", {SHA: 1.0})
        assert cache.logits(SHA, ["f"]) == {"f": 1.0}
    with pytest.warns(RealBenchWarning, match="going on without"):
        cache = open_cache([blocked])
    cache.put_logits("f", {SHA: 1.0})
    assert cache.logits(SHA, ["f"]) == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_a_place_that_cannot_be_used(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.warns(RealBenchWarning, match="cannot be used"):
        cache = open_cache([folder / "scores.sqlite"])
    assert cache.logits(SHA, ["f"]) == {}


def test_the_cache_lies_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REALBENCH_CACHE", str(tmp_path / "mine"))
    assert cache_path() == tmp_path / "mine" / "scores.sqlite"
    monkeypatch.delenv("REALBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if sys.platform == "linux":
        assert cache_path() == tmp_path / "xdg" / "realbench" / "scores.sqlite"
