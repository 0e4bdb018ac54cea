"""Prompt suites: what is read, and one clear line for every bad file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realbench.errors import UsageError
from realbench.prompts import Prompt, load_prompts


def write(folder: Path, *lines: str | bytes) -> Path:
    path = folder / "prompts.jsonl"
    path.write_bytes(b"\n".join(x if isinstance(x, bytes) else x.encode() for x in lines))
    return path


def test_reads_ids_prompts_and_categories_in_order(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '{"id": "b", "prompt": "a red fox", "category": "animals"}',
        "",
        '{"id": "a", "prompt": "a portrait", "category": null, "seed": 3}\r',
        '  {"id": 17, "prompt": "Straße\\u2028bei Nacht"}  ',
        "",
    )
    prompts = load_prompts(path)
    assert list(prompts) == ["b", "a", "17"]
    assert prompts["b"] == Prompt("b", "a red fox", "animals")
    assert prompts["a"] == Prompt("a", "a portrait", None)
    assert prompts["17"].prompt == "Straße\u2028bei Nacht"


def test_a_byte_order_mark_and_a_raw_line_separator_do_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path, b'\xef\xbb\xbf{"id": "a", "prompt": "one\xe2\x80\xa8line"}')
    assert load_prompts(path)["a"].prompt == "one\u2028line"


def test_ids_match_file_names_however_their_accents_are_written(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps({"id": "cafe\u0301", "prompt": "a café"}))
    assert list(load_prompts(str(path))) == ["caf\u00e9"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON"),
        ("0001 a red fox", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('["0001", "a red fox"]', "expected a JSON object"),
        ("null", "expected a JSON object"),
        ('{"prompt": "a red fox"}', '"id" must be a text'),
        ('{"id": "", "prompt": "a red fox"}', '"id" must be a text'),
        ('{"id": true, "prompt": "a red fox"}', '"id" must be a text'),
        ('{"id": 1.5, "prompt": "a red fox"}', '"id" must be a text'),
        ('{"id": "0001"}', '"prompt" must be a text'),
        ('{"id": "0001", "prompt": "  "}', '"prompt" must be a text'),
        ('{"id": "0001", "prompt": ["a"]}', '"prompt" must be a text'),
        ('{"id": "0001", "prompt": "a", "category": 3}', '"category" must be a text'),
        ('{"id": "0001", "prompt": "\\ud83d alone"}', "half a character"),
        (b'{"id": "0001", "prompt": "caf\xe9"}', "not UTF-8 text (byte 30)"),
        ('{"id": "0000", "prompt": "again"}', "the id '0000' was already given on line 1"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str | bytes, message: str) -> None:
    path = write(tmp_path, '{"id": "0000", "prompt": "fine"}', line)
    with pytest.raises(UsageError) as error:
        load_prompts(path)
    assert str(error.value).startswith(f"{path}, line 2: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_a_file_without_prompts_is_an_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UsageError, match="holds no prompts"):
        load_prompts(write(tmp_path, content))


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing.jsonl", "No such file"), (".", "Is a directory"), ("nul\0byte", "null byte")],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(UsageError, match=rf"cannot read the prompts file .*{reason}"):
        load_prompts(tmp_path / name)


@given(
    texts=st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip),
        st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip),
        min_size=1,
    ),
    ascii_only=st.booleans(),
)
def test_whatever_json_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, texts: dict[str, str], ascii_only: bool
) -> None:
    lines = [
        json.dumps({"id": f"{i} {key}", "prompt": text}, ensure_ascii=ascii_only)
        for i, (key, text) in enumerate(texts.items())
    ]
    prompts = load_prompts(write(tmp_path_factory.mktemp("suite"), *lines))
    assert [prompt.prompt for prompt in prompts.values()] == list(texts.values())


@given(content=st.binary(max_size=200))
def test_any_bytes_give_prompts_or_one_clear_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = write(tmp_path_factory.mktemp("suite"), content)
    try:
        outcome = f"{len(load_prompts(path))} prompts"
    except UsageError as error:
        outcome = str(error)
    assert outcome.endswith(" prompts") or str(path) in outcome
    assert len(outcome.splitlines()) == 1


def test_the_shared_suites_load(shared_data: Path) -> None:
    for path in sorted(shared_data.rglob("prompts.jsonl")):
        assert load_prompts(path)
