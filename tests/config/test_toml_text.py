"""TOML files of users: read as they are, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from realbench.config.config_files import first_problem, read_toml
from realbench.errors import UsageError


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8")))
def test_any_bytes_are_a_table_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(data)
    refused = ""
    try:
        assert isinstance(read_toml(path), dict)
    except UsageError as error:
        refused = str(error)
    assert not refused or "any.toml is no TOML: " in refused
    assert "\n" not in refused


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("a = 1".encode("utf-16"), "not UTF-8 (byte 1); save it as UTF-8"),
        (b"a = " + b"[" * 100_000, "nested too deeply"),
        (b"#" * 1_000_001, "more than 1,000,000 bytes"),
        (b"a = 1\na = 2\n", "line 2"),
    ],
)
def test_what_is_no_toml_is_said(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"the recipe .*x\.toml is no TOML: ") as caught:
        read_toml(path, "recipe")
    assert reason in str(caught.value)


def test_a_file_that_is_not_there_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the board .*x\.toml: No such file"):
        read_toml(tmp_path / "x.toml", "board")
    with pytest.raises(UsageError, match="Is a directory; give a TOML file"):
        read_toml(tmp_path)


def test_editors_of_windows(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes("\ufeffname = 'é'\r\n[a]\r\nb = 1\r\n".encode())
    assert read_toml(path) == {"name": "é", "a": {"b": 1}}


class _Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    share: float = Field(ge=0)


class _Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")

    inner: list[_Inner]

    @field_validator("inner")
    @classmethod
    def some(cls, value: list[_Inner]) -> list[_Inner]:
        if not value:
            raise ValueError("give at least one")
        return value


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"inner": [{"share": -1}]}, "inner.0.share: Input should be greater than or equal to 0"),
        ({"inner": []}, "inner: give at least one"),
        ({"inner": [{"share": 1}], "x\x1b": 1}, "x\\x1b: Extra inputs are not permitted"),
    ],
)
def test_the_first_problem_names_its_place(fields: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        _Whole(**fields)  # type: ignore[arg-type]
    assert first_problem(caught.value, "the file") == problem


def test_a_problem_of_the_whole_names_that() -> None:
    with pytest.raises(ValidationError) as caught:
        _Whole.model_validate(3)
    assert first_problem(caught.value, "the file").startswith("the file: ")
