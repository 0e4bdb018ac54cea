"""The bundled suites: balanced, diverse, whole; their names, versions and hashes."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from realbench.errors import UsageError
from realbench.prompt_records import export_prompts
from realbench.prompts import Prompt, Suite, list_suites, load_suite

CORE = load_suite("realbench-core")
MINI = load_suite("realbench-mini")
PROMPTS = list(CORE.prompts.values())

# What changes one of these is a new version: raise it in prompts/suites/suites.toml.
PINNED = {
    ("realbench-core", "1.0"): "a4663b524db7783fced9b77b07071928b6d35a1aa6b9ceb8108ddeb71c65a173",
    ("realbench-mini", "1.0"): "4544283c23c07b3fae992563ceead1d7b714bcfa074fb32c51ebd7e83e6dd426",
}

CATEGORIES = {
    *("people", "hands", "groups", "animals", "food", "interiors"),
    *("street", "landscapes", "products", "text", "night", "sports"),
}
SETTING = {"indoor", "outdoor"}
PEOPLE = {"no-people", "one-person", "few-people", "crowd"}
LIGHT = {
    *("daylight", "window-light", "overcast", "golden-hour", "artificial-light", "mixed-light"),
    *("low-light", "night", "flash", "backlight", "firelight"),
}
OTHER = {
    *("rain", "snow", "fog", "phone", "film", "compact", "baby", "child", "teenager", "elderly"),
    *("skin", "hands", "hair", "eyes", "fur", "fabric", "text", "water", "reflection"),
    *("transparent", "motion", "shadow", "steam", "fine-pattern"),
}

FUNCTION_WORDS = {
    *("a", "an", "the", "and", "or", "of", "in", "on", "at", "by", "to", "with", "from", "for"),
    *("as", "into", "over", "under", "up", "its", "it", "is", "are", "his", "her", "their"),
    *("one", "two", "three", "that", "this", "so", "no", "not"),
}


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def content(text: str | None) -> set[str]:
    return set(words(text or "")) - FUNCTION_WORDS


def similarity(a: set[str], b: set[str]) -> float:
    """Return the share of content words that two texts have in common (Jaccard index)."""
    return len(a & b) / len(a | b)


# --- What the prompts are ----------------------------------------------------------------------


def test_the_core_suite_is_large_and_balanced() -> None:
    assert len(PROMPTS) >= 324
    assert set(CORE.categories) == CATEGORIES
    counts = CORE.categories.values()
    assert min(counts) >= 27
    assert max(counts) == min(counts)


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt.id)
def test_a_prompt_is_whole(prompt: Prompt) -> None:
    assert re.fullmatch(rf"{prompt.category}-\d\d", prompt.id)
    assert prompt.prompt_long is not None
    assert 8 <= len(prompt.prompt.split()) <= 20
    assert 45 <= len(prompt.prompt_long.split()) <= 75
    assert prompt.prompt_long.endswith(".")
    assert not prompt.prompt.endswith(".")
    for text in (prompt.prompt, prompt.prompt_long):
        assert text == " ".join(text.split())
        assert text.isprintable()
        assert text.count('"') % 2 == 0
    tags = set(prompt.tags)
    assert len(tags) == len(prompt.tags)
    assert len(tags & SETTING) == 1
    assert len(tags & PEOPLE) == 1
    assert tags & LIGHT
    assert tags <= SETTING | PEOPLE | LIGHT | OTHER


@pytest.mark.parametrize(("form", "limit"), [("prompt", 0.35), ("prompt_long", 0.25)])
def test_no_two_prompts_are_near_duplicates(form: str, limit: float) -> None:
    texts = {one.id: content(getattr(one, form)) for one in PROMPTS}
    near = [
        (a, b)
        for a, b in itertools.combinations(texts, 2)
        if similarity(texts[a], texts[b]) >= limit
    ]
    assert near == []


@pytest.mark.parametrize(
    ("a", "b", "limit"),
    [
        (
            "a tabby cat asleep in a laundry basket on top of clean shirts",
            "a gray tabby cat sleeping on clean shirts in a laundry basket",
            0.35,
        ),
        (
            "Two bites in. Yolk has run under the toast, pepper in uneven clumps, a crust left "
            "over on the rim of a chipped plate. Window to the left, gray day.",
            "Three bites in. The yolk ran over the toast, pepper in clumps, a crust left on the "
            "chipped rim of a blue plate. Window to the right, rainy day.",
            0.25,
        ),
    ],
)
def test_a_reworded_prompt_would_be_seen(a: str, b: str, limit: float) -> None:
    assert similarity(content(a), content(b)) >= limit


def test_a_long_form_is_about_what_the_short_form_is_about() -> None:
    """Each short form shares more words with its own long form than with nearly all others."""
    stems = {one.id: {word[:5] for word in words(one.prompt_long or "")} for one in PROMPTS}
    for prompt in PROMPTS:
        own = {word[:5] for word in content(prompt.prompt)}
        shared = {name: len(own & stems[name]) for name in stems}
        nearer = [name for name in stems if shared[name] >= shared[prompt.id]]
        assert len(nearer) <= 20, prompt.id


@pytest.mark.parametrize(("n_words", "limit"), [(1, 30), (2, 5), (3, 2)])
def test_the_long_forms_do_not_open_alike(n_words: int, limit: int) -> None:
    openings = Counter(" ".join(words(one.prompt_long or "")[:n_words]) for one in PROMPTS)
    opening, count = openings.most_common(1)[0]
    assert count <= limit, opening


def test_no_phrase_is_a_template() -> None:
    """No four words in a row are in more than five of the long forms, settings like f/2.8 aside."""
    phrases: Counter[tuple[str, ...]] = Counter()
    for prompt in PROMPTS:
        each = re.findall(r"[^\W_]+|[.,:;]", re.sub(r"\S*\d\S*", ";", prompt.prompt_long or ""))
        runs = {tuple(each[n : n + 4]) for n in range(len(each) - 3)}
        phrases.update(run for run in runs if all(word.isalpha() for word in run))
    phrase, count = phrases.most_common(1)[0]
    assert count <= 5, phrase


def test_the_cameras_and_the_light_are_diverse() -> None:
    long = [one.prompt_long or "" for one in PROMPTS]
    lenses = Counter(lens for text in long for lens in re.findall(r"\d+mm", text))
    assert len(lenses) >= 12
    assert max(lenses.values()) <= len(PROMPTS) / 4
    tags = Counter(tag for one in PROMPTS for tag in one.tags)
    assert all(tags[tag] >= 9 for tag in LIGHT - {"firelight"}), tags
    assert min(tags["indoor"], tags["outdoor"]) >= len(PROMPTS) * 0.4


def test_no_prompt_asks_for_the_look_of_generated_pictures() -> None:
    """Nor does one name a maker of cameras, film, cars or phones."""
    banned = {
        *(
            "photorealistic",
            "hyperrealistic",
            "masterpiece",
            "stunning",
            "breathtaking",
            "8k",
            "4k",
        ),
        *("hdr", "cinematic", "trending", "octane", "render", "artstation", "aesthetic"),
        *("perfect", "flawless", "nikon", "canon", "sony", "leica", "kodak", "fuji", "fujifilm"),
        *("polaroid", "hasselblad", "olympus", "pentax", "iphone", "samsung", "toyota", "ford"),
        *("bmw", "volkswagen", "vespa", "honda", "lego", "nike", "adidas", "starbucks", "hoover"),
        *("thermos", "anglepoise", "velcro", "frisbee", "jeep", "tupperware", "biro"),
    }
    for prompt in PROMPTS:
        found = banned & set(words(f"{prompt.prompt} {prompt.prompt_long}"))
        assert not found, prompt.id


def test_a_text_in_the_scene_is_the_same_in_both_forms() -> None:
    texts = []
    for prompt in PROMPTS:
        if prompt.category == "text":
            assert "text" in prompt.tags
            (text,) = re.findall(r'"([^"]+)"', prompt.prompt)
            assert f'"{text}"' in (prompt.prompt_long or ""), prompt.id
            texts.append(text)
    assert len(set(texts)) == len(texts)
    assert sum(not text.isascii() for text in texts) >= 3  # also other alphabets


# --- Names, versions and hashes ----------------------------------------------------------------


def test_the_mini_suite_is_four_of_each_category_of_the_core() -> None:
    assert len(MINI.prompts) == 48
    assert set(MINI.categories.values()) == {4}
    assert set(MINI.categories) == CATEGORIES
    assert all(CORE.prompts[one.id] == one for one in MINI.prompts.values())


@pytest.mark.parametrize("name", list_suites())
def test_a_version_has_the_prompts_that_it_was_published_with(name: str) -> None:
    suite = load_suite(name)
    assert suite.sha256 == PINNED[name, suite.version or ""], (
        "prompts have changed: give the suite a new version, and pin its hash here"
    )
    assert suite.describe() == {
        "name": name,
        "version": suite.version,
        "sha256": suite.sha256,
        "n_prompts": len(suite.prompts),
    }


def test_the_hash_is_of_what_results_depend_on() -> None:
    a = Prompt("a", "a red fox", "animals", "A red fox at dawn.", ("fur",))
    b = Prompt("b", "a portrait")
    suite = Suite("s", {"a": a, "b": b})
    assert Suite("other", {"b": b, "a": replace(a, tags=())}, version="2").sha256 == suite.sha256
    changed = [
        replace(a, id="c"),
        replace(a, prompt="a gray fox"),
        replace(a, category="night"),
        replace(a, category=None),
        replace(a, prompt_long="A red fox at noon."),
        replace(a, prompt_long=None),
        replace(a, prompt_long=a.category, category=a.prompt_long),
    ]
    hashes = {Suite("s", {one.id: one, "b": b}).sha256 for one in changed}
    assert len(hashes | {suite.sha256}) == len(changed) + 1
    assert Suite("s", {"a": a}).sha256 not in hashes | {suite.sha256}


def test_a_file_is_a_suite_with_the_hash_of_its_prompts(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(export_prompts(MINI), encoding="utf-8")
    suite = load_suite(path)
    assert (suite.name, suite.version) == ("mine", None)
    assert suite.sha256 == MINI.sha256
    assert suite.prompts == MINI.prompts


def test_a_suite_is_found_by_name_whatever_lies_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("realbench-mini").mkdir()  # a run's folder, say
    Path("realbench-core").write_text('{"id": "x", "prompt": "a red fox"}', encoding="utf-8")
    assert load_suite("realbench-mini").sha256 == MINI.sha256
    assert load_suite(Path("realbench-core")).sha256 == CORE.sha256
    assert list(load_suite(tmp_path / "realbench-core").prompts) == ["x"]


def test_an_unknown_name_lists_the_suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"'core': the suites are realbench-core, realbench-mini"):
        load_suite("core")
    with pytest.raises(UsageError, match=r"core\.jsonl: No such file.*realbench prompts list"):
        load_suite("core.jsonl")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "a", "prompt": "b", "tags": "fur"}', '"tags" must be a list'),
        ('{"id": "a", "prompt": "b", "tags": [3]}', '"tags" must be a text'),
        ('{"id": "a", "prompt": "b", "prompt_long": ""}', '"prompt_long" must be a text'),
    ],
)
def test_further_fields_are_checked(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "suite.jsonl"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        load_suite(path)
