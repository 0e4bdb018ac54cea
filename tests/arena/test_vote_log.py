"""The vote log: nothing is lost, doubled or passed over, whatever happened to the file."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realbench.arena.vote_log import (
    VOTES_FILE,
    EditedLogError,
    Seal,
    VoteLog,
    line_of,
    read_log,
    write_log,
)
from realbench.arena.votes import Retraction, Vote
from realbench.errors import RealBenchError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def vote(number: int, **changes: object) -> Vote:
    fields: dict[str, object] = {
        "id": f"v{number}",
        "judge": "by-name",
        "judge_fingerprint": "f",
        "prompt_id": f"p{number}",
        "first": "a",
        "second": "b",
        "first_sha256": "1",
        "second_sha256": "2",
        "verdict": "first",
        "time": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return Vote.model_validate(fields | changes)


def record_of(line: bytes) -> dict[str, object]:
    """Return a line as its vote has it, without the digest."""
    record: dict[str, object] = json.loads(line)
    record.pop("chain")
    return record


def plain(number: int, **changes: object) -> bytes:
    """Return a vote as version 0.1.0 wrote it."""
    return vote(number, **changes).model_dump_json(exclude_none=True).encode() + b"\n"


def fill(out: Path, n: int) -> bytes:
    with VoteLog(out) as log:
        for number in range(n):
            log.append(vote(number))
    return (out / VOTES_FILE).read_bytes()


def test_a_vote_is_in_the_file_before_append_returns(tmp_path: Path) -> None:
    with VoteLog(tmp_path / "new" / "run") as log:
        for sync in (True, False):
            log.append(vote(int(sync)), sync=sync)
            lines = log.path.read_bytes().splitlines(keepends=True)
            assert Vote.model_validate(record_of(lines[-1])) == vote(int(sync))
        assert log.votes == [vote(1), vote(0)]
    assert read_log(log.path).votes == [vote(1), vote(0)]


@given(reason=TEXT, raw=TEXT, probability=st.none() | st.floats(0, 1), prompt=TEXT)
def test_any_vote_is_one_line_and_reads_as_it_was(
    reason: str, raw: str, probability: float | None, prompt: str
) -> None:
    one = vote(0, reason=reason, raw=raw, probability=probability, prompt_id=prompt)
    line, chain = line_of(one, "")
    assert line.count(b"\n") == 1
    assert line.endswith(f'"{chain}"}}\n'.encode())
    assert Vote.model_validate(record_of(line)) == one


def test_a_log_torn_at_any_byte_of_its_last_line_keeps_all_others(tmp_path: Path) -> None:
    whole = fill(tmp_path, 3)
    path = tmp_path / VOTES_FILE
    start = whole.rindex(b"\n", 0, -1) + 1
    for end in range(start, len(whole) + 1):
        path.write_bytes(whole[:end])
        torn = 0 < end - start < len(whole) - start - 1  # all but the line feed is a vote
        assert len(read_log(path).votes) == (3 if end >= len(whole) - 1 else 2)
        assert path.read_bytes() == whole[:end]  # reading alone changes nothing
        with VoteLog(tmp_path) as log:
            assert log.torn_bytes == (end - start if torn else 0)
            log.append(vote(9))
        ids = [one.id for one in read_log(path).votes]
        assert ids == (["v0", "v1", "v2", "v9"] if end >= len(whole) - 1 else ["v0", "v1", "v9"])


def test_zeros_that_a_power_cut_leaves_are_cut_off(tmp_path: Path) -> None:
    whole = fill(tmp_path, 2)
    (tmp_path / VOTES_FILE).write_bytes(whole + bytes(100))
    with VoteLog(tmp_path) as log:
        assert log.torn_bytes == 100
    assert (tmp_path / VOTES_FILE).read_bytes() == whole


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (b"not json\n", "invalid JSON"),
        (b"\n", "invalid JSON"),
        (b"[]\n", "should be an object"),
        (b'{"id": "x"}\n', "judge: Field required"),
        (plain(5).replace(b'"raw"', b'"x"').replace(b'"first":', b'"x":'), "first: Field"),
        (plain(5).replace(b'"verdict":"first"', b'"verdict":"left"'), "verdict"),
        (plain(5).replace(b'"format":1', b'"format":2'), "format"),
        (plain(5)[:-5] + b"\xff\xff\n", "invalid JSON"),
    ],
)
def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path, damage: bytes, reason: str) -> None:
    lines = fill(tmp_path, 2).splitlines(keepends=True)
    (tmp_path / VOTES_FILE).write_bytes(lines[0] + damage + lines[1])
    for use in (lambda: read_log(tmp_path / VOTES_FILE), lambda: VoteLog(tmp_path)):
        with pytest.raises(RealBenchError, match=r"votes\.jsonl, line 2 is no vote") as caught:
            use()
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)
    (tmp_path / VOTES_FILE).write_bytes(lines[0])
    VoteLog(tmp_path).close()  # a log that could not be read was not left locked


def test_a_line_that_comes_twice_counts_once_and_a_forged_one_is_an_error(tmp_path: Path) -> None:
    whole = fill(tmp_path, 2)
    path = tmp_path / VOTES_FILE
    path.write_bytes(whole + whole)
    assert [one.id for one in read_log(path, accept_edits=True).votes] == ["v0", "v1"]
    path.write_bytes(whole + plain(0, verdict="second"))
    with pytest.raises(RealBenchError, match=r"line 3: the vote id 'v0' .* on line 1"):
        read_log(path)


def test_a_vote_that_is_taken_back_stays_in_the_file_and_does_not_count(tmp_path: Path) -> None:
    with VoteLog(tmp_path) as log:
        log.append(vote(0))
        log.append(vote(1))
        log.retract(vote(0))
        assert log.votes == [vote(1)]
    contents = read_log(tmp_path / VOTES_FILE)
    assert contents.votes == [vote(1)]
    assert [type(entry) for entry in contents.entries] == [Vote, Vote, Retraction]
    with VoteLog(tmp_path) as log:
        assert log.votes == [vote(1)]


def test_a_second_run_on_the_same_folder_says_so_and_stops(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from realbench.arena.vote_log import VoteLog\n"
        "from realbench.errors import RealBenchError\n"
        "try: VoteLog(Path(sys.argv[1]))\n"
        "except RealBenchError as error: print(error); sys.exit(error.exit_code)"
    )
    with VoteLog(tmp_path) as log:
        log.append(vote(0))
        other = subprocess.run(
            [sys.executable, "-c", code, tmp_path], text=True, capture_output=True, timeout=60
        )
        assert other.returncode == 2, other.stderr
        assert other.stdout.startswith("another run is writing to")
        with pytest.raises(RealBenchError, match="another run"):  # and in one process
            VoteLog(tmp_path)
        log.append(vote(1))
    assert len(read_log(log.path).votes) == 2
    VoteLog(tmp_path).close()


def test_a_killed_run_leaves_the_folder_free(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from realbench.arena.vote_log import VoteLog\n"
        "log = VoteLog(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, tmp_path], timeout=60)
    assert killed.returncode == -9
    with VoteLog(tmp_path) as log:
        log.append(vote(0))


def test_a_disk_that_fills_up_leaves_whole_lines_and_one_that_says_so(tmp_path: Path) -> None:
    code = f"""
import resource, signal, sys
from pathlib import Path
from realbench.arena.vote_log import VoteLog
from realbench.errors import RealBenchError
from tests.arena.test_vote_log import vote
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = VoteLog(Path({str(tmp_path)!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))
n = 0
try:
    while True:
        log.append(vote(n))
        n += 1
except RealBenchError as error:
    print(n, error)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], text=True, capture_output=True, timeout=60
    )
    assert "votes.jsonl" in result.stdout, result.stderr
    n = int(result.stdout.split()[0])
    assert n >= 1
    data = (tmp_path / VOTES_FILE).read_bytes()
    assert data.endswith(b"\n")
    assert [record_of(line)["id"] for line in data.splitlines()] == [f"v{i}" for i in range(n)]


def test_a_folder_that_cannot_be_used_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RealBenchError, match="is a file"):
        VoteLog(tmp_path / "file")
    (tmp_path / VOTES_FILE).mkdir()
    with pytest.raises(RealBenchError, match=r"votes\.jsonl"):
        VoteLog(tmp_path)

    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(RealBenchError, match="give another --out"):
        VoteLog(tmp_path)


def test_a_whole_log_is_not_written_over_another(tmp_path: Path) -> None:
    write_log(tmp_path / "new", [vote(0), vote(1)])
    assert read_log(tmp_path / "new" / VOTES_FILE).votes == [vote(0), vote(1)]
    with pytest.raises(RealBenchError, match="exists already"):
        write_log(tmp_path / "new", [vote(2)])


# --- Nobody has changed it ---------------------------------------------------------------------


def edits(whole: bytes) -> dict[str, bytes]:
    """Return what somebody or some disk may make of a log of four lines, by name."""
    lines = whole.splitlines(keepends=True)
    found = {}
    for n in range(4):
        before, line, after = lines[:n], lines[n], lines[n + 1 :]
        changes = {
            "deleted": [],
            "doubled": [line, line],
            "changed digit": [line.replace(b'"seconds":0.0', b'"seconds":1.0')],
            "changed digest": [line[:-10] + bytes([line[-10] ^ 1]) + line[-9:]],
            "flipped verdict": [line.replace(b'"first","attempts"', b'"second","attempts"')],
            "swapped pictures": [
                line.replace(b'"first":"a","second":"b"', b'"first":"b","second":"a"')
            ],
            "key twice": [line.replace(b'{"format"', b'{"verdict":"second","format"')],
            "inner key twice": [line.replace(b'"usage":{}', b'"usage":{"a":1,"a":1}')],
            "without digest": [line[: line.index(b',"chain"')] + b"}\n"],
            "written otherwise": [line.replace(b'":', b'": ')],
        }
        for name, change in changes.items():
            found[f"{name} {n}"] = b"".join([*before, *change, *after])
    for n in range(3):
        found[f"swapped {n}"] = b"".join([*lines[:n], lines[n + 1], lines[n], *lines[n + 2 :]])
    found["sorted backwards"] = b"".join(reversed(lines))
    found["all digests gone"] = b"".join(x[: x.index(b',"chain"')] + b"}\n" for x in lines)
    found["added"] = whole + lines[-1].replace(b'"v3"', b'"v4"')
    forged, _ = line_of(vote(7), json.loads(lines[-1])["chain"])
    found["added with a digest"] = whole + forged
    for end in (0, len(lines[0]), len(whole) - 1, *range(5, len(whole), 97)):
        found[f"cut at {end}"] = whole[:end]
    return {name: data for name, data in found.items() if data != whole}


def test_every_edit_of_a_whole_log_is_caught(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    with VoteLog(tmp_path) as log:
        seal = log.whole()
    path = tmp_path / VOTES_FILE
    assert (seal.lines, len(read_log(path, seal).votes)) == (4, 4)
    tried = edits(path.read_bytes())
    assert len(tried) > 50
    for name, data in tried.items():
        path.write_bytes(data)
        with pytest.raises(RealBenchError, match=r"votes\.jsonl") as caught:
            read_log(path, seal)
        assert "\n" not in str(caught.value), name
        assert isinstance(caught.value, EditedLogError) or "key comes twice" in str(caught.value)
    path.unlink()
    with pytest.raises(EditedLogError, match="ends before the end of its line 4"):
        read_log(path, seal)


def test_a_log_that_grows_may_be_longer_than_its_manifest_says_and_no_shorter(
    tmp_path: Path,
) -> None:
    fill(tmp_path, 2)
    path = tmp_path / VOTES_FILE
    with VoteLog(tmp_path) as log:
        seal = log.seal  # as the manifest of a run that begins has it
        log.append(vote(2))
    assert len(read_log(path, seal).votes) == 3
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])  # killed in the middle of a line
    assert len(read_log(path, seal).votes) == 2
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:1]))
    with pytest.raises(EditedLogError, match="line 2"):
        read_log(path, seal)
    with VoteLog(tmp_path, seal=seal) as log:  # which asks again
        assert "asked again" in log.notes[0]
        assert len(log.votes) == 1


def test_a_log_of_the_first_version_is_read_with_a_note_and_held_from_then_on(
    tmp_path: Path,
) -> None:
    path = tmp_path / VOTES_FILE
    path.write_bytes(plain(0) + plain(1))
    assert read_log(path).votes == [vote(0), vote(1)]
    with VoteLog(tmp_path) as log:
        assert "2 lines of votes.jsonl are of version 0.1.0" in log.notes[0]
        log.append(vote(2))
        seal = log.whole()
    contents = read_log(path, seal)
    assert contents.votes == [vote(0), vote(1), vote(2)]
    assert len(contents.notes) == 1
    whole = path.read_bytes()
    for data in (
        whole.replace(b'"p0"', b'"p9"'),
        whole[len(plain(0)) :],
        plain(1) + plain(0) + whole[len(plain(0) + plain(1)) :],
    ):
        path.write_bytes(data)
        for known in (seal, None):
            with pytest.raises(EditedLogError):
                read_log(path, known)


def test_edits_on_purpose_are_taken_with_a_note_and_sealed_anew(tmp_path: Path) -> None:
    whole = fill(tmp_path, 3)
    path = tmp_path / VOTES_FILE
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[1:]))
    with pytest.raises(EditedLogError, match=r"line 1 does not follow .*--accept-edits"):
        VoteLog(tmp_path)
    with VoteLog(tmp_path, accept_edits=True) as log:
        assert "accepted with --accept-edits: votes.jsonl, line 1" in log.notes[0]
        log.append(vote(9))
        seal = log.whole()
    assert [one.id for one in read_log(path, seal).votes] == ["v1", "v2", "v9"]
    assert seal == Seal(lines=3, chain=seal.chain, whole=True)
