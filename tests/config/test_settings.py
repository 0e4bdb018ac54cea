"""Settings of a wrong type, from Python: a line that names the setting and what it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import realbench
from realbench.config.settings import checked_settings
from realbench.errors import UsageError
from realbench.generation import GenerateOptions
from realbench.generation.pipeline import PipelineOptions
from realbench.generation.rewriting import RewriterOptions


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: realbench.Scorer(detectors=3), r"Scorer: detectors takes str .*, not 3"),
        (lambda: realbench.Scorer(max_false_alarm="x"), "max_false_alarm takes float, not 'x'"),
        (lambda: realbench.score("a", batch_size="3"), "score: batch_size takes int .*, not '3'"),
        (lambda: realbench.score("a", detectors=["a", 3]), r"detectors takes .*, not \['a', 3\]"),
        (lambda: realbench.score("a", 3), "folders takes str . Path, not 3"),
        (lambda: realbench.score("a", precision=3), "no precision 3: give float32 or bfloat16"),
        (lambda: realbench.arena("a", "b", judge=7), "arena: judge takes str . Judge .*, not 7"),
        (lambda: realbench.arena("a", "b", options={}), "options takes JudgeOptions .*, not {}"),
        (
            lambda: realbench.JudgeOptions(workers="3"),
            "JudgeOptions: workers takes int .*, not '3'",
        ),
        (lambda: realbench.generate("s", "out", {}), "options takes GenerateOptions, not {}"),
        (lambda: GenerateOptions("model"), "pipeline takes PipelineOptions, not 'model'"),
        (lambda: PipelineOptions("model", steps="3"), "steps takes int . None, not '3'"),
        (lambda: RewriterOptions("model", batch_size=1.5), "batch_size takes int, not 1.5"),
        (lambda: realbench.load_detector(3), "detector takes str . Path . Card, not 3"),
        (lambda: realbench.load_detector("trace-lite", device=3), "device takes str, not 3"),
        (lambda: realbench.Scorer(device="foo"), "^no device 'foo': give auto, cpu, [^\n]{,30}$"),
    ],
)
def test_a_wrong_type_is_told_in_one_line(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_what_is_meant_all_the_same_is_taken() -> None:
    @checked_settings
    def call(*names: str, number: int = 0, share: float = 0.5, device: str = "") -> object:
        return names, number, share, device

    taken = call("a", number=np.int64(3), share=1, device=torch.device("cpu"))  # type: ignore[arg-type]
    assert taken == (("a",), 3, 1, "cpu")
    with pytest.raises(TypeError, match=r"call\(\) got an unexpected keyword argument 'nmber'"):
        call(nmber=3)  # type: ignore[call-arg]


def test_a_list_is_taken_for_a_tuple() -> None:
    options = realbench.JudgeOptions(detectors=["trace-lite"])  # type: ignore[arg-type]
    assert options.detectors == ("trace-lite",)
    with pytest.raises(UsageError, match="JudgeOptions: detectors takes"):
        realbench.JudgeOptions(detectors=[3])  # type: ignore[list-item]
