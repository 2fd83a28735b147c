"""A recorded run that the console watches: as any other, but it can be taken to any step."""

from __future__ import annotations

from console.process import fast_start
from console.replay.source import Position, Recording
from console.settings.file import Settings
from console.store.model import RunModel
from console.tui.watch.guard import Guards
from console.tui.watch.watched_run import Watch
from driftline.rundir import RunDir


class ReplayWatch(Watch):
    """A recording. Its reader thread opens it, and makes another model where it is taken to another step.

    With another model the sentinels begin anew: alarms are those that the run would have had up to there.
    """

    def __init__(self, recording: Recording, guards: Guards | None = None) -> None:
        super().__init__(recording, recording.directory, guards(recording.run) if guards is not None else None)
        self.recording = recording
        self._guards = guards
        self._fresh = False
        """Whether the sentinels have not looked yet since the recording was taken to where it is."""
        self._drawn = True
        """Whether the screens have drawn that first: the sentinels' look over a long history takes half a second."""

    def take_frames(self) -> int:
        recording = self.recording
        try:
            if recording.timeline is None:
                self._put(recording.open())
            elif (step := recording.take_target()) is not None:
                self._put(recording.seek(step, self.model))
            return super().take_frames()
        except OSError as error:
            # What is wrong first: a long path may be cut.
            recording.stop_with_error(f"{error.strerror or error}: {error.filename or 'the recording'}")
            return 0

    def _put(self, model: RunModel) -> None:
        if model is self.model:
            return
        with self.lock:
            self.model = model
            self.generation += 1
            self.guard = self._guards(self.recording.run) if self._guards is not None else None
            self._fresh, self._drawn = True, False
        self.diagnosing.restart()

    def check_alarms(self, now: float, *, settled: bool) -> None:  # noqa: ARG002  a recording has a time of its own
        guard = self.guard
        if guard is None or self.recording.timeline is None:
            return  # nothing is open yet
        if not self._drawn:
            self._drawn = True
            return
        link = self.source.link()
        with self.lock:
            # By the hub's clock of then: what stood still there for a minute did so however fast it is played.
            guard.check(self.model, self.model.last_time or 0.0, link, settled=settled and not self._fresh)
            if self._fresh:
                self._fresh = False
                guard.discard_past(link)

    def position(self) -> Position | None:
        return self.recording.position(self.model.step, self.model.last_time or 0.0)

    def replay(self, what: str) -> None:
        recording = self.recording
        match what:
            case "play":
                recording.play(not recording.playing)
            case "faster":
                recording.change_speed(1)
            case "slower":
                recording.change_speed(-1)
            case "on":
                self._step(1)
            case "back":
                self._step(-1)
            case _:
                raise ValueError(what)

    def go(self, step: int) -> bool:
        timeline = self.recording.timeline
        if timeline is not None:
            self.recording.request_step(max(step, timeline.first_step))
        return True

    def _step(self, count: int) -> None:
        """To the step so many after this one (before it, where negative); it stands still there."""
        timeline = self.recording.timeline
        if timeline is not None:
            self.recording.play(False)
            self.recording.request_step(timeline.neighbour(self.model.step, count))


def run_replay(
    run: RunDir, *, start: int | None, speed: float, playing: bool, settings: Settings, guards: Guards | None = None
) -> int:
    """Play a recording on this terminal until the operator leaves; returns the exit code, not 0 after a crash.

    `guards` makes the sentinels that look at what is played.
    """
    from console.tui.app import ConsoleApp
    from console.tui.options import app_options

    watch = ReplayWatch(Recording(run, start=start, speed=speed, playing=playing), guards)
    app = ConsoleApp(
        watch.source,
        marker=settings.marker,
        fps=settings.fps,
        watch=watch,
        opening=lambda _watches: fast_start.settle(),
        **app_options(settings),
    )
    try:
        app.run(mouse=settings.mouse)
    finally:
        watch.close()
    return app.return_code or 0
