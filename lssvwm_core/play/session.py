"""A game that runs: one thread at the world's own pace, keys in from anybody, pictures out to every viewer.

A key's way to a picture: `press` notes it, `_wait` takes it when a frame is due, `_tick` has the game show the frame
that it leads to, and `_publish` puts the picture into every viewer's mailbox.
"""

import io
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lssvwm_core.place import Place
from lssvwm_core.play.game import Game
from lssvwm_core.play.recorder import Recorder
from lssvwm_datasets.errors import LssvwmError

QUEUE = 2  # pictures that wait for a slow viewer; older ones are dropped
MAX_COMMANDS = 16  # that wait for the simulation
TIMED_FRAMES = 12  # over which frames a second are measured

Command = Callable[[], str | None]
"""Something to do between two frames; returns what all viewers should be told, if anything."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """What a viewer gets at each tick: a frame, and JSON-ready facts about it."""

    frame: NDArray[np.uint8]  # (H, W, 3)
    png: bytes
    status: dict[str, Any]
    place: Place
    answers: tuple["Viewer", float] | None = None
    """Whose key led to it, and that viewer's stamp of the key."""


class Viewer:
    """A mailbox of at most `QUEUE` pictures; `notify` is called on the simulation thread when one is new."""

    def __init__(self, notify: Callable[[], None]) -> None:
        self.notify = notify
        self._pictures: deque[Picture] = deque(maxlen=QUEUE)

    def put(self, picture: Picture) -> None:
        self._pictures.append(picture)
        self.notify()

    def take(self) -> Picture | None:
        """The oldest picture that waits."""
        try:
            return self._pictures.popleft()
        except IndexError:
            return None

    def __len__(self) -> int:
        return len(self._pictures)


class Tick(NamedTuple):
    """A frame to come: the action held, and whose key it answers first, with that viewer's stamp of it."""

    action: int | None
    answers: tuple[Viewer, float] | None


class Session:
    """Plays a game while anybody watches. A context manager: leaving it ends the thread and closes the recording.

    A frame comes every 1 / fps seconds. A new key brings the next frame forward, by one period at most, and the frames
    after it keep to the schedule: the rate stays, and a key is answered at once.

    Attributes:
        failure: what ended the simulation, if anything did.
    """

    def __init__(self, game: Game, fps: float | None = None) -> None:
        self.game = game
        self.fps = fps or game.world.header.fps
        self.failure: Exception | None = None
        self._held = game.idle
        self._tapped: int | None = None
        self._key: tuple[Viewer, float] | None = None  # not answered yet
        self._holder: Viewer | None = None
        self._viewers: list[Viewer] = []
        self._commands: deque[Command] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._recorder = Recorder(game.slots.folder, self.fps)
        self._times: deque[float] = deque(maxlen=TIMED_FRAMES)
        self._milliseconds = 0.0
        self._notice = ""
        self._frames = 0
        self._slots: list[str] = []
        self._thread = threading.Thread(target=self._run, name="play", daemon=True)

    def __enter__(self) -> "Session":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def join(self, viewer: Viewer) -> None:
        """Begin to watch; the current picture comes at once."""
        with self._changed:
            self._viewers.append(viewer)
            self._changed.notify()
        self.submit(lambda: self._notice)

    def leave(self, viewer: Viewer) -> None:
        """Stop to watch, and let go of the keys."""
        with self._changed:
            if viewer in self._viewers:
                self._viewers.remove(viewer)
            if viewer is self._holder:
                self._held, self._tapped, self._key, self._holder = self.game.idle, None, None, None
            self._changed.notify()

    def press(self, viewer: Viewer, action: int | None, stamp: float = 0.0) -> None:
        """Hold an action from now on; the latest one of any viewer wins. None, or the idle action, is letting go.

        A key that is let go before the next frame still counts for that frame.
        """
        if action is not None and not 0 <= action < len(self.game.moves):
            return
        with self._changed:
            self._holder, self._held = viewer, self.game.idle if action is None else action
            if self._held != self.game.idle:
                self._tapped, self._key = action, (viewer, stamp)
                self._changed.notify()

    def release(self, viewer: Viewer) -> None:
        """Let go of what `viewer` holds."""
        with self._changed:
            if viewer is self._holder:
                self._held = self.game.idle

    def submit(self, command: Command) -> bool:
        """Run `command` on the simulation thread between two frames; what it returns, or its error, is shown to all.

        Whatever it raises, the game goes on. False when too many wait already.
        """
        with self._changed:
            if len(self._commands) >= MAX_COMMANDS:
                return False
            self._commands.append(command)
            self._changed.notify()
        return True

    def record(self, wanted: bool) -> str:
        """Start or end an MP4 in the folder of the slots; for `submit`."""
        return self._recorder.start() if wanted else self._recorder.stop()

    def _run(self) -> None:
        due = time.monotonic()
        try:
            while (job := self._wait(due)) is not None:
                if isinstance(job, Tick):
                    self._tick(job)
                    due = max(due + 1 / self.fps, time.monotonic())
                else:
                    self._attempt(job)
                    self._publish(None)
        except Exception as error:
            log.exception("the simulation failed")
            self.failure = error
            for viewer in list(self._viewers):
                viewer.notify()
        finally:
            try:
                self._recorder.stop()
            except (LssvwmError, OSError) as error:
                log.error("%s", error)

    def _wait(self, due: float) -> Command | Tick | None:
        """The next thing to do: a command, else a frame when it is due; None when the session has been left."""
        with self._changed:
            while not self._closed:
                if self._commands:
                    return self._commands.popleft()
                left = None
                if self._viewers:
                    left = due - time.monotonic() - (1 / self.fps if self._tapped is not None else 0)
                    if left <= 0:
                        tick = Tick(self._held if self._tapped is None else self._tapped, self._key)
                        self._tapped = self._key = None
                        return tick
                else:
                    self._times.clear()
                self._changed.wait(left)
        return None

    def _attempt(self, command: Command) -> None:
        try:
            self._notice = command() or ""
            self._slots = self.game.slots.names
        except Exception as error:
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        """Make an error the notice that all viewers see; the game goes on."""
        if isinstance(error, LssvwmError | OSError):
            self._notice = str(error)
            return
        notice = f"a fault of lssvwm, told in full where it was started: {type(error).__name__}: {error}"
        if notice != self._notice:  # every frame may fail for the same reason
            log.error("the game goes on after this", exc_info=error)
        self._notice = notice

    def _tick(self, tick: Tick) -> None:
        started = time.perf_counter()
        try:
            frame = self.game.show(tick.action)
        except Exception as error:
            self._tell(error)
            self._publish(None)
            return
        self._times.append(time.monotonic())
        self._frames += 1
        self._publish(tick.answers)
        try:
            self.game.commit()
        except Exception as error:
            self._tell(error)
        self._milliseconds = 1000 * (time.perf_counter() - started)
        if self._recorder.running:
            self._attempt(lambda: self._recorder.append(frame) or self._notice)

    def _publish(self, answers: tuple[Viewer, float] | None) -> None:
        encoded = io.BytesIO()
        Image.fromarray(self.game.frame).save(encoded, "png", compress_level=1)
        picture = Picture(self.game.frame, encoded.getvalue(), self._status(), self.game.place, answers)
        with self._changed:
            viewers = list(self._viewers)
        for viewer in viewers:
            viewer.put(picture)

    def _status(self) -> dict[str, Any]:
        game, times = self.game, self._times
        return {
            "frames": self._frames,
            "fps": round((len(times) - 1) / (times[-1] - times[0]), 2) if len(times) > 1 else 0.0,
            "milliseconds": round(self._milliseconds, 1),
            "state_bytes": game.state.nbytes,
            "frames_seen": game.state.frames_seen,
            "viewers": len(self._viewers),
            "steps": game.world.steps,
            "seed": game.seed,
            "cut_memory": game.cut_memory,
            "actions_only": game.actions_only,
            "recording": self._recorder.running,
            "spot": None if (spot := game.place.spot) is None else [round(value, 3) for value in spot],
            "scene": game.scene,
            "generated": game.generated,
            "certainty": None if game.certainty is None else round(game.certainty, 3),
            "slots": self._slots,
            "notice": self._notice,
        }
