"""What a model may be called, and which file its entry is."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realbench.leaderboard.names import label, model_name, plain_text, skeleton, skeletons, slug


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("FLUX.1-dev", "flux.1-dev"),
        ("Stable Diffusion 3.5 Large", "stable-diffusion-3.5-large"),
        ("Café Modèle", "cafe-modele"),
        ("../../etc/passwd", "etc-passwd"),
        ("a..b/..", "a.b"),
        ("<b>x</b>", "b-x-b"),
    ],
)
def test_a_file_is_named_after_its_model(name: str, file: str) -> None:
    assert slug(name) == file


def test_names_without_ascii_letters_keep_apart() -> None:
    one, other = slug("通义万相"), slug("混元")
    assert re.fullmatch(r"model-[0-9a-f]{8}", one)
    assert one != other
    assert slug("Σ-model") != slug("model")


@given(st.text(min_size=1, max_size=300))
def test_a_slug_is_always_a_plain_file_name(name: str) -> None:
    made = slug(name)
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", made)
    assert ".." not in made
    assert len(made) < 100
    assert slug(name.upper().lower()) == slug(name.upper().lower())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("good\u202egnp.exe", "U+202E"),
        ("two\nlines", "U+000A"),
        ("zero\u200bwidth", "U+200B"),
        ("bell\x07", "U+0007"),
        ("e\u0301", "composed form"),
        (" spaced", "begins or ends"),
    ],
)
def test_invisible_characters_are_refused(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        plain_text(name)


def test_letters_that_look_alike_do_not_mix() -> None:
    assert model_name("FLUX.1 通义 Модель") == "FLUX.1 通义 Модель"  # a word, a script
    with pytest.raises(ValueError, match="Latin and Cyrillic"):
        model_name("FL\u0423X")


@pytest.mark.parametrize("other", ["FLUX 1 DEV", "flux.1_dev", "ＦＬＵＸ.1-dev", "Flux1dev"])
def test_names_that_read_alike_share_a_skeleton(other: str) -> None:
    assert skeleton(other) == skeleton("FLUX.1-dev")


def test_signs_of_a_name_tell_files_and_names_apart() -> None:
    assert slug("C") == "c"
    names = ["C", "C++", "C#", "C*", "Kolors", "Kolors+"]
    assert len({slug(name) for name in names}) == len(names)
    assert all(
        skeletons(one).isdisjoint(skeletons(other))
        for n, one in enumerate(names)
        for other in names[:n]
    )


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("PP", "\u03a1\u03a1"),  # Greek
        ("Kopc", "\u041a\u043e\u0440\u0441"),  # Cyrillic
        ("FLUX.1", "FLUX.I"),
        ("FLUX 10", "FLUX 1O"),
        ("Kolors", "K\u00f3lors"),
        ("Kolors", "kolors!"),
        ("wan modern", "vvan modem"),
        ("kandinsky-3", "kandinsky-\u0417"),  # Cyrillic
        ("FLUX", "\ua4dd\ua4e1\ua4f4\ua4eb"),  # Lisu
        ("kolors", "\u1d0b\u1d0f\u029f\u1d0f\u0280\ua731"),  # small capitals
    ],
)
def test_names_that_look_alike_are_told(name: str, other: str) -> None:
    assert skeletons(name) & skeletons(other)
    assert model_name(other) == other


@pytest.mark.parametrize("text", ["\u3164", "Kolors\ufe0f", "\u2800", "SD\u115f"])
def test_letters_that_are_not_seen_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invisible character U"):
        model_name(text)


@pytest.mark.parametrize("text", ["v\u0663", "\uff11\uff12B", "1\u0967"])
def test_digits_of_other_scripts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write 0 to 9"):
        label(text)
