"""Sets of the Hugging Face hub, played on loopback: streamed, in parts, killed and taken up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from realbench.errors import RealBenchError, UsageError
from realbench.sets import fetching
from realbench.sets.cards import find_set
from realbench.sets.fetching import get
from tests.hub import COMMIT, Hub
from tests.sets.test_sets import COLUMNS, as_parquet, contents, reasons, rows, table_wanted

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::realbench.errors.RealBenchWarning"),
]

SHARD = 40
CONFIG = """---
configs:
- config_name: default
  data_files:
  - split: test
    path: data/test-*
---
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with a dataset of two files; this process reaches it, and no other."""
    datasets = pytest.importorskip("datasets")
    from huggingface_hub import HfFileSystem, constants

    monkeypatch.setenv("REALBENCH_CACHE", str(tmp_path / "cache"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    files = {
        "README.md": CONFIG.encode(),
        "data/test-0.parquet": as_parquet(rows(SHARD)),
        "data/test-1.parquet": as_parquet(rows(SHARD, SHARD)),
    }
    with Hub({"datasets/lab/fakes": files}).serving() as played:
        template = f"{played.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        for name, value in {
            "ENDPOINT": played.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_OFFLINE": False,
            "HF_HUB_CACHE": str(tmp_path / "hub"),
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", played.endpoint)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
        HfFileSystem.clear_instance_cache()
        yield played
        HfFileSystem.clear_instance_cache()


def card(tmp_path: Path, rest: str = COLUMNS, revision: str = "") -> Path:
    folder = tmp_path / f"card{revision}"
    folder.mkdir(exist_ok=True)
    (folder / "set.toml").write_text(
        'name = "fakes"\ndescription = "Some."\nlicence = "MIT"\nverified = false\n[source]\n'
        f'kind = "hub"\nrepo = "lab/fakes"\nsplit = "test"\nrevision = "{revision}"\n{rest}'
    )
    return folder


def test_a_dataset_is_taken_up_after_a_kill_and_comes_out_the_same(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_set(card(tmp_path))
    added, real = [], fetching._Writer.add

    def add(self: Any, picture: Any) -> Any:
        if len(added) == 70:
            raise KeyboardInterrupt
        added.append(picture.path)
        return real(self, picture)

    monkeypatch.setattr(fetching._Writer, "add", add)
    with pytest.raises(KeyboardInterrupt):
        get(found)
    again: list[str] = []
    # The branch moves on in the meantime: it is not what the first part is of.
    monkeypatch.setattr("tests.hub.COMMIT", "a" * 40)
    monkeypatch.setattr(
        fetching._Writer, "add", lambda self, one: (again.append(one.path), real(self, one))[1]
    )
    fetched = get(found)
    assert again[0] == f"{64:06}"  # on from the last state, not from the start
    assert contents(fetched.folder) == table_wanted(rows(2 * SHARD))
    assert not reasons(fetched.folder)
    assert fetched.record["commit"] == COMMIT
    assert not any("a" * 40 in line for line in hub.asked)


def test_a_part_is_taken_from_several_files(hub: Hub, tmp_path: Path) -> None:
    found = find_set(card(tmp_path))
    part = get(found, n=6)
    taken = set(contents(part.folder).values())
    wanted = [row["image"]["bytes"] for row in [*rows(3), *rows(3, SHARD)]]
    assert taken == set(wanted)
    assert part.record["asked"] == 6


def test_another_revision_is_another_set(hub: Hub, tmp_path: Path) -> None:
    first = get(find_set(card(tmp_path)), n=3)
    second = get(find_set(card(tmp_path, revision="f" * 40)), n=3)
    assert first.folder != second.folder
    assert any("f" * 40 in line for line in hub.asked)


def test_what_does_not_fit_is_said_in_one_line(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no column 'picture' but image, label, model"):
        get(find_set(card(tmp_path, COLUMNS.replace('"image"', '"picture"'))))
    hub.files["datasets/lab/fakes"]["data/test-1.parquet"] = b"PAR1 no parquet"
    with pytest.raises(
        RealBenchError, match=r"cannot read hf:lab/fakes: .*; run it again"
    ) as error:
        get(find_set(card(tmp_path)))
    assert "\n" not in str(error.value)
    hub.files.clear()
    with pytest.raises(RealBenchError, match="cannot read hf:lab/fakes"):
        get(find_set(card(tmp_path, revision="e" * 40)))
