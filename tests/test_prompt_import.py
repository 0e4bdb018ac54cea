"""Suites as files and back, and what is read of other people's suites."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realbench.errors import RealBenchError, UsageError
from realbench.prompt_import import Columns, DatasetPart, Numbering, import_prompts
from realbench.prompt_records import ExportFormat, export_prompts
from realbench.prompts import Prompt, Suite, load_suite

MINI = load_suite("realbench-mini")


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def texts(suite: Suite) -> dict[str, str]:
    return {one.id: one.prompt for one in suite.prompts.values()}


# --- Export ------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_what_is_exported_is_imported_again(tmp_path: Path, format: ExportFormat) -> None:
    path = write(tmp_path / f"suite.{format}", export_prompts(MINI, format))
    again = import_prompts(path)
    assert again.prompts == MINI.prompts
    assert list(again.prompts) == list(MINI.prompts)
    assert again.sha256 == MINI.sha256


def test_the_core_suite_is_kept_as_it_is_exported() -> None:
    from realbench.content import content_path

    file = content_path("prompts") / "suites" / "realbench-core.jsonl"
    assert export_prompts(load_suite("realbench-core")) == file.read_text(encoding="utf-8")


def test_the_long_form_takes_the_place_of_the_short(tmp_path: Path) -> None:
    expected = {one.id: one.prompt_long for one in MINI.prompts.values()}
    for format in ("jsonl", "csv"):
        path = write(tmp_path / f"long.{format}", export_prompts(MINI, format, long=True))
        suite = import_prompts(path)
        assert texts(suite) == expected
        assert all(one.prompt_long is None for one in suite.prompts.values())
    assert export_prompts(MINI, "txt", long=True).splitlines() == list(expected.values())


def test_a_prompt_of_several_lines_is_one_line_of_text() -> None:
    suite = Suite(
        "s", {"a": Prompt("a", "one\ntwo\r\n  three\u2028four"), "b": Prompt("b", "five")}
    )
    assert export_prompts(suite, "txt") == "one two three four\nfive\n"


def test_a_suite_without_long_forms_says_so() -> None:
    suite = Suite("s", {"a": Prompt("a", "one", prompt_long="ONE"), "b": Prompt("b", "two")})
    with pytest.raises(UsageError, match=r"no long form of 'b' \(1 of 2 prompts\)"):
        export_prompts(suite, long=True)


_TEXTS = st.text(st.characters(codec="utf-8"), min_size=1).map(str.strip).filter(bool)
_WORDS = st.text(st.sampled_from("aéß字0_-"), min_size=1, max_size=5)  # composed, as ids are


@settings(max_examples=30)
@given(
    prompts=st.dictionaries(
        _WORDS,
        st.tuples(_TEXTS, st.none() | _TEXTS, st.none() | _WORDS, st.lists(_WORDS, max_size=3)),
        min_size=1,
        max_size=4,
    ),
    format=st.sampled_from(["jsonl", "csv"]),
)
def test_whatever_is_exported_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    prompts: dict[str, tuple[str, str | None, str | None, list[str]]],
    format: ExportFormat,
) -> None:
    suite = Suite(
        "s",
        {
            key: Prompt(key, short, group, long, tuple(tags))
            for key, (short, long, group, tags) in prompts.items()
        },
    )
    path = tmp_path_factory.mktemp("suite") / f"s.{format}"
    assert import_prompts(write(path, export_prompts(suite, format))).prompts == suite.prompts


# --- Text --------------------------------------------------------------------------------------


def test_line_1_of_a_text_file_is_image_00000(tmp_path: Path) -> None:
    """As in the original RealBench: 1,041 prompts, a line each."""
    lines = [f"a photograph of subject {n}" for n in range(1041)]
    suite = import_prompts(write(tmp_path / "RealBench.txt", "\n".join(lines)))
    assert suite.name == "RealBench"
    assert list(suite.prompts)[:2] == ["00000", "00001"]
    assert suite.prompts["01040"].prompt == lines[-1]
    assert len(suite.prompts) == 1041


def test_blank_lines_count_and_line_endings_do_not(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.txt", "\ufeffa red fox\r\n\r\n  a portrait, \u201con film\u201d\r\n\n"
    )
    assert texts(import_prompts(path)) == {
        "00000": "a red fox",
        "00002": "a portrait, \u201con film\u201d",
    }
    numbered = import_prompts(path, numbering=Numbering(start=1, digits=4))
    assert list(numbered.prompts) == ["0001", "0003"]


# --- Tables ------------------------------------------------------------------------------------


def test_rows_without_an_id_are_numbered(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", '{"text": "a red fox"}\n{"text": "a portrait"}\n')
    assert texts(import_prompts(path)) == {"00000": "a red fox", "00001": "a portrait"}


def test_a_key_that_the_first_row_lacks_is_read(tmp_path: Path) -> None:
    lines = '{"prompt": "a red fox"}\n{"prompt": "a portrait", "category": "people"}\n'
    suite = import_prompts(write(tmp_path / "p.jsonl", lines))
    assert [one.category for one in suite.prompts.values()] == [None, "people"]


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.csv",
        "image,Prompt,caption,challenge\n0007,long one,short one,3\n0008,long two,short two,\n",
    )
    suite = import_prompts(
        path,
        columns=Columns(id="image", prompt="caption", category="challenge", prompt_long="Prompt"),
    )
    assert suite.prompts == {
        "0007": Prompt("0007", "short one", "3", "long one"),
        "0008": Prompt("0008", "short two", None, "long two"),
    }


def test_the_case_of_a_columns_name_does_not_matter(tmp_path: Path) -> None:
    """Else the rows would be numbered, and no image be named by its prompt."""
    path = write(tmp_path / "p.csv", "ID,PROMPT,Category\nfox,a red fox,animals\n")
    assert import_prompts(path).prompts == {"fox": Prompt("fox", "a red fox", "animals")}


def test_an_id_can_be_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", '{"id": "x/1", "prompt": "a red fox"}')
    with pytest.raises(UsageError, match=r"line 1: the id 'x/1' cannot be the name of an image"):
        import_prompts(path)
    assert list(import_prompts(path, numbering=Numbering(always=True)).prompts) == ["00000"]


@pytest.mark.parametrize("content", ['["a red fox", "a portrait"]', '[{"prompt": "a red fox"}]'])
def test_a_json_list_is_read(tmp_path: Path, content: str) -> None:
    suite = import_prompts(write(tmp_path / "p.json", content))
    assert suite.prompts["00000"].prompt == "a red fox"


def test_a_csv_file_may_have_quotes_and_tabs(tmp_path: Path) -> None:
    text = io.StringIO()
    rows = [["prompt", "id"], ['a sign, "OPEN"\nat night', "a"], ["x\ty", "b"]]
    csv.writer(text, delimiter="\t").writerows(rows)
    assert texts(import_prompts(write(tmp_path / "p.tsv", text.getvalue()))) == {
        "a": 'a sign, "OPEN"\nat night',
        "b": "x\ty",
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", b"fine\ncaf\xe9\n", "p.txt, line 2: not UTF-8"),
        ("p.txt", b"\n\n", "holds no prompts"),
        ("p.jsonl", b"\n", "holds no prompts"),
        ("p.csv", b"", "holds no prompts"),
        ("p.prompts", b"x", "its ending tells no format"),
        ("p.jsonl", b'{"prompt": "x"}\n{"prompt": 3}', 'p.jsonl, line 2: "prompt" must be'),
        ("p.jsonl", b"{", "p.jsonl, line 1: not valid JSON"),
        ("p.jsonl", b'{"title": "x"}', "its columns are title: name one with --prompt-column"),
        ("p.json", b'{"prompt": "x"}', "expected a list"),
        ("p.json", b"[3]", "row 1: expected a prompt"),
        ("p.json", b"[\n,]", "line 2: not valid JSON"),
        ("p.json", b"[" * 100_000, "nested too deeply"),
        ("p.csv", b"prompt\nx\n\n ,\n", 'row 2: "prompt" must be'),
        ("p.csv", b'prompt\n"x', "not a CSV file"),
        ("p.csv", b"a red fox\na portrait\n", "its columns are a red fox"),
        ("p.csv", b"id,prompt\na,x\na,y\n", "row 2: the id 'a' was already given on row 1"),
        ("p.csv", b"id,prompt\n..,x\n", "the id '..' cannot be the name"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    with pytest.raises(UsageError) as error:
        import_prompts(write(tmp_path / name, content))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_column_lists_those_there_are(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "prompt,group\nx,y\n")
    with pytest.raises(UsageError, match=r"no column 'area'.*prompt, group.*--category-column"):
        import_prompts(path, columns=Columns(category="area"))


@given(content=st.binary(max_size=200), ending=st.sampled_from(["txt", "json", "jsonl", "csv"]))
def test_any_bytes_give_prompts_or_one_clear_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, ending: str
) -> None:
    path = write(tmp_path_factory.mktemp("suite") / f"p.{ending}", content)
    try:
        outcome = f"{len(import_prompts(path).prompts)} prompts"
    except UsageError as error:
        outcome = str(error)
    assert outcome.endswith(" prompts") or str(path) in outcome
    assert len(outcome.splitlines()) == 1


# --- Parquet and datasets ----------------------------------------------------------------------


def rows() -> list[dict[str, Any]]:
    return [
        {"id": 7, "Prompt": "a red fox", "group": "animals", "image": b"\x89PNG", "tags": ["fur"]},
        {"id": 8, "Prompt": "a portrait", "group": None, "image": b"\x89PNG", "tags": []},
    ]


EXPECTED = {
    "7": Prompt("7", "a red fox", "animals", tags=("fur",)),
    "8": Prompt("8", "a portrait"),
}


def make_parquet(path: Path) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="needs realgen[datasets]")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows()), path)
    return path


def test_a_parquet_file_is_read(tmp_path: Path) -> None:
    path = make_parquet(tmp_path / "p.parquet")
    assert import_prompts(path, columns=Columns(category="group")).prompts == EXPECTED
    with pytest.raises(UsageError, match=r"no column 'area'.*id, Prompt, group, image, tags"):
        import_prompts(path, columns=Columns(category="area"))


def test_a_damaged_or_missing_parquet_file_is_named(tmp_path: Path) -> None:
    path = make_parquet(tmp_path / "p.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UsageError, match=r"cannot read the Parquet file .*p\.parquet"):
        import_prompts(path)
    with pytest.raises(UsageError, match=r"missing\.parquet: No such file"):
        import_prompts(tmp_path / "missing.parquet")


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset in a folder, as the hub has them: two splits, categories with names."""
    datasets = pytest.importorskip("datasets", reason="needs realgen[datasets]")
    import pyarrow
    from pyarrow import parquet

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    folder = tmp_path / "suite"
    folder.mkdir()
    features = datasets.Features(
        {"Prompt": datasets.Value("string"), "group": datasets.ClassLabel(names=["people", "food"])}
    )
    for split, prompts in (("train", ["a", "b"]), ("test", ["c"])):
        table = pyarrow.table(
            {"Prompt": prompts, "group": [1, 0][: len(prompts)]}, schema=features.arrow_schema
        )
        parquet.write_table(table, folder / f"{split}.parquet")
    return folder


@pytest.mark.slow
def test_a_dataset_is_read_split_by_split(dataset: Path) -> None:
    columns = Columns(category="group")
    suite = import_prompts(f"hf:{dataset}", columns=columns, part=DatasetPart(split="train"))
    assert suite.name == "suite"
    assert suite.prompts == {
        "00000": Prompt("00000", "a", "food"),
        "00001": Prompt("00001", "b", "people"),
    }
    with pytest.raises(UsageError, match=r"has the splits train, test: choose one with --split"):
        import_prompts(f"hf:{dataset}")
    (dataset / "test.parquet").unlink()
    assert len(import_prompts(f"hf:{dataset}", columns=columns).prompts) == 2


@pytest.mark.slow
def test_a_dataset_that_cannot_be_loaded_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets", reason="needs realgen[datasets]")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RealBenchError, match=r"^cannot load hf:.*empty") as error:
        import_prompts(f"hf:{tmp_path / 'empty'}")
    assert "\n" not in str(error.value)


def test_a_dataset_of_the_hub_without_a_network_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("datasets", reason="needs realgen[datasets]")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(RealBenchError) as error:
        import_prompts("hf:no/such-dataset")
    assert str(error.value) == (
        "cannot load hf:no/such-dataset: the hub cannot be reached, and it is not in the local "
        "cache"
    )


def test_json_lines_of_a_run_are_no_prompts(tmp_path: Path) -> None:
    """A file of another kind, given by mistake, is named with what it has."""
    path = write(tmp_path / "votes.jsonl", json.dumps({"judge": "x", "verdict": "tie"}))
    with pytest.raises(UsageError, match=r"its columns are judge, verdict"):
        import_prompts(path)


def test_prompts_of_others_go_wherever_a_suite_does(tmp_path: Path) -> None:
    (tmp_path / "theirs.txt").write_text("a red fox\n\na portrait\n", encoding="utf-8")
    (tmp_path / "theirs.csv").write_text("id,prompt\n0001,a red fox\n", encoding="utf-8")
    (tmp_path / "torn.csv").write_text("id,prompt\n0001,\n", encoding="utf-8")
    assert list(load_suite(tmp_path / "theirs.txt").prompts) == ["00000", "00002"]
    for name in ("theirs.txt", "theirs.csv"):
        assert load_suite(tmp_path / name) == import_prompts(tmp_path / name)
    with pytest.raises(UsageError, match=r"torn\.csv, row 1: "):
        load_suite(tmp_path / "torn.csv")
