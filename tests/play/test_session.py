"""Many may watch and press; there is one world, and it keeps its pace."""

import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from lssvwm_core.play.game import Game
from lssvwm_core.play.session import QUEUE, Session, Viewer
from lssvwm_datasets.errors import LssvwmError
from lssvwm_datasets.memory_maze import ACTION_NAMES
from lssvwm_datasets.video import read_video
from tests.play.conftest import Watcher

FORWARD, LEFT, RIGHT = (ACTION_NAMES.index(name) for name in ("forward", "left", "right"))


@pytest.fixture
def actions(game: Game, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the game is asked to do, frame by frame."""
    taken: list[int] = []
    show = game.show
    monkeypatch.setattr(game, "show", lambda action: (taken.append(action), show(action))[1])
    return taken


def test_nobody_watches_nothing_runs(session: Session, actions: list[int]) -> None:
    time.sleep(0.3)
    assert not actions
    watcher = Watcher()
    session.join(watcher)
    watcher.wait_for(lambda picture: picture.status["frames"] >= 2)
    session.leave(watcher)
    time.sleep(0.1)
    count = len(actions)
    time.sleep(0.4)
    assert len(actions) == count


def test_the_latest_key_wins(session: Session, actions: list[int]) -> None:
    one, other = Watcher(), Watcher()
    with session._changed:  # nothing is generated meanwhile
        session._viewers += [one, other]
        session.press(one, LEFT, 1.0)
        session.press(other, FORWARD, 2.0)
        session.press(one, RIGHT, 3.0)
        session.press(one, ACTION_NAMES.index("noop"), 4.0)
        session.press(other, 99)
        session._changed.notify()
    answered = one.wait_for(lambda picture: picture.answers is not None)
    assert answered.answers == (one, 3.0)
    one.wait_for(lambda picture: picture.status["frames"] >= 3)
    assert actions[0] == RIGHT
    assert not any(actions[1:])


def test_held_until_let_go_or_gone(session: Session, actions: list[int]) -> None:
    one, other = Watcher(), Watcher()
    session.join(one)
    session.join(other)
    session.press(other, LEFT)
    one.wait_for(lambda picture: len(actions) > 4)
    assert actions[-2:] == [LEFT, LEFT]
    session.leave(other)
    count = len(actions)
    one.wait_for(lambda picture: len(actions) > count + 2)
    assert actions[-1] == 0


def test_a_slow_viewer_loses_frames_and_slows_nobody(session: Session) -> None:
    slow, quick = Viewer(lambda: None), Watcher()
    session.join(slow)
    session.join(quick)
    last = quick.wait_for(lambda picture: picture.status["frames"] >= 3 * QUEUE)
    assert len(slow) == QUEUE
    picture = slow.take()
    assert picture is not None
    assert picture.status["frames"] >= last.status["frames"] - QUEUE
    assert [picture.status["frames"] for picture in quick.seen if picture.status["frames"]] == list(
        range(1, quick.seen[-1].status["frames"] + 1)
    )


def test_the_pace_is_the_worlds_and_keys_come_early(game: Game, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(game, "show", lambda action: game.frame)
    monkeypatch.setattr(game, "commit", lambda: None)
    with Session(game, fps=2) as session:
        watcher = Watcher()
        session.join(watcher)
        watcher.wait_for(lambda picture: picture.status["frames"] == 1)
        started = time.monotonic()
        session.press(watcher, LEFT)
        watcher.wait_for(lambda picture: picture.answers is not None)
        assert time.monotonic() - started < 0.4
        watcher.wait_for(lambda picture: picture.status["frames"] == 4)
        assert time.monotonic() - started > 1.2


def test_commands_run_between_frames_and_errors_are_told(session: Session) -> None:
    watcher = Watcher()
    session.join(watcher)
    session.submit(lambda: session.game.load("nothing") or "")
    assert "nothing is saved" in watcher.wait_for(lambda picture: picture.status["notice"] != "").status["notice"]
    assert session.failure is None


def test_a_fault_in_a_command_is_told_and_the_game_goes_on(session: Session) -> None:
    watcher = Watcher()
    session.join(watcher)
    session.submit(lambda: ["nothing"][1])
    told = watcher.wait_for(lambda picture: "a fault of lssvwm" in picture.status["notice"])
    watcher.wait_for(lambda picture: picture.status["frames"] > told.status["frames"])
    session.submit(lambda: "well")
    watcher.wait_for(lambda picture: picture.status["notice"] == "well")
    assert session.failure is None


def test_letting_go_is_the_idle_action(session: Session, actions: list[int], game: Game) -> None:
    watcher = Watcher()
    session.join(watcher)
    session.press(watcher, LEFT)
    watcher.wait_for(lambda picture: picture.answers is not None)
    session.press(watcher, None)
    seen = len(actions)
    watcher.wait_for(lambda picture: picture.status["frames"] > seen + 2)
    assert game.environment is not None
    assert actions[-1] == game.idle == game.world.header.action_names.index(game.environment.idle)
    session.press(watcher, 1000)
    session.press(watcher, -1)
    watcher.wait_for(lambda picture: picture.status["frames"] > seen + 4)
    assert set(actions[-3:]) == {game.idle}


def test_recording_makes_a_video(session: Session, game: Game) -> None:
    watcher = Watcher()
    session.join(watcher)
    session.submit(lambda: session.record(True))
    begun = watcher.wait_for(lambda picture: picture.status["recording"]).status["frames"]
    watcher.wait_for(lambda picture: picture.status["frames"] >= begun + 3)
    assert not list(game.slots.folder.glob("[!.]*.mp4"))
    session.submit(lambda: session.record(False))
    watcher.wait_for(lambda picture: picture.status["notice"] == "the video is saved")
    (path,) = Path(game.slots.folder).glob("[!.]*.mp4")
    frames = np.concatenate(list(read_video(path)))
    assert len(frames) >= 3
    assert frames.shape[1:] == (256, 256, 3)


@pytest.mark.parametrize(
    ("error", "notice"),
    [(LssvwmError("no frame follows"), "no frame follows"), (MemoryError("of 9 GB"), "a fault of lssvwm.*of 9 GB")],
)
@pytest.mark.parametrize("step", ["show", "commit"])
def test_a_frame_that_cannot_be_made_is_told_and_the_game_goes_on(
    session: Session,
    game: Game,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    step: str,
    error: Exception,
    notice: str,
) -> None:
    def fail(*_: object) -> None:
        raise error

    watcher = Watcher()
    session.join(watcher)
    watcher.wait_for(lambda picture: picture.status["frames"] > 1)
    with monkeypatch.context() as failing:
        failing.setattr(game, step, fail)
        watcher.wait_for(lambda picture: re.match(notice, picture.status["notice"]) is not None)
        seen = len(watcher.seen)
        watcher.wait_for(lambda picture: len(watcher.seen) > seen + 3)
    frames = watcher.seen[-1].status["frames"]
    watcher.wait_for(lambda picture: picture.status["frames"] > frames + 2)
    assert session.failure is None
    assert len(caplog.records) == isinstance(error, MemoryError), "told once, not with every frame"


def test_a_failure_ends_the_session_and_is_kept(
    game: Game, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no more memory")

    monkeypatch.setattr(Session, "_publish", fail)
    woken = threading.Event()
    with Session(game) as session:
        session.join(Viewer(woken.set))
        session._thread.join(10)
    assert str(session.failure) == "no more memory"
    assert woken.is_set()
