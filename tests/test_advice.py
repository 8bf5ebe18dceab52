"""What an error of the Python API advises is taken from its text, and is then accepted."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("typer")
pytest.importorskip("pyarrow")

import sklearn.utils.class_weight

import gpumlp
from tests.support.advice import call_of, messages, settings_of
from tests.support.advice_cases import (
    CALLS,
    CASES,
    ELSEWHERE,
    NAMES,
    OTHERS,
    ROW_LABELS,
    TABLES,
    resume,
)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("said", CASES)
def test_settings_that_an_error_proposes_are_accepted(said, path, no_waiting_for_the_disk):
    call, settings = CASES[said]
    settings = settings | ({"path": path} if call is resume else {})
    with pytest.raises((ValueError, TypeError, AttributeError, FloatingPointError)) as caught:
        call(**settings)
    texts = [str(caught.value), str(caught.value.__cause__)]
    message = next(text for text in texts if said in text)
    proposed = settings_of(message, NAMES | {"PATH": path})
    assert proposed
    for setting in proposed:
        if "cupy" not in setting.values():
            call(**settings | setting)


@pytest.mark.parametrize("said", CALLS)
def test_calls_that_an_error_proposes_are_accepted(said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, name, value = CALLS[said]
    names = {"np": np, "numpy": np, "sklearn": sklearn, "classes": [0, 1], "y": ROW_LABELS}
    if callable(value):
        torch = pytest.importorskip("torch")
        value = value()
        names["torch"] = torch
        names["weight"] = torch.ones(1, dtype=torch.float64)
    with pytest.raises((ValueError, TypeError)) as caught:
        call(value)
    assert said.replace("{}", "") in str(caught.value)
    call(call_of(str(caught.value), names | {name: value}))


def test_every_message_that_advises_has_a_case():
    known = [*TABLES, *OTHERS, *CASES, *CALLS, *ELSEWHERE]
    texts = messages(Path(gpumlp.__file__).parent)
    assert [text for text in texts if not any(part in text for part in known)] == []
    assert [part for part in ELSEWHERE if not any(part in text for text in texts)] == []
