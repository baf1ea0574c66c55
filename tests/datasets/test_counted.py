"""Long loops over files tell how far they are; short ones say nothing."""

import logging

import pytest

from lssvwm_datasets.counted import counted


def test_what_takes_long_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert list(counted("abc", "letters read")) == ["a", "b", "c"]
        assert caplog.messages == []
        monkeypatch.setattr("lssvwm_datasets.counted.EVERY", 0.0)
        assert list(counted("abc", "letters read")) == ["a", "b", "c"]
    assert caplog.messages == ["0 of 3 letters read", "1 of 3 letters read", "2 of 3 letters read"]
