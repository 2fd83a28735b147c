"""A recorded run that the console watches: as any other, but it can be taken to any step."""

from __future__ import annotations

from console.config import Settings
from console.replay.source import Position, Recording
from console.store.model import RunModel
from console.tui.watch import Watch
from driftline.rundir import RunDir


class ReplayWatch(Watch):
    """A recording. Its reader thread opens it, and makes another model where it is taken to another step."""

    def __init__(self, recording: Recording) -> None:
        super().__init__(recording, recording.directory)
        self.recording = recording

    def take(self) -> int:
        recording = self.recording
        try:
            if recording.timeline is None:
                self._put(recording.open())
            elif (step := recording.wanted()) is not None:
                self._put(recording.seek(step, self.model))
            return super().take()
        except OSError as error:
            # What is wrong first: a long path may be cut.
            recording.broken(f"{error.strerror or error}: {error.filename or 'the recording'}")
            return 0

    def _put(self, model: RunModel) -> None:
        if model is self.model:
            return
        with self.lock:
            self.model = model
            self.generation += 1

    def position(self) -> Position | None:
        return self.recording.position(self.model.step, self.model.last_time or 0.0)

    def replay(self, what: str) -> None:
        recording = self.recording
        match what:
            case "play":
                recording.play(not recording.playing)
            case "faster":
                recording.faster(1)
            case "slower":
                recording.faster(-1)
            case "on":
                self._step(1)
            case "back":
                self._step(-1)
            case _:
                raise ValueError(what)

    def _step(self, count: int) -> None:
        """To the step so many after this one (before it, where negative); it stands still there."""
        timeline = self.recording.timeline
        if timeline is not None:
            self.recording.play(False)
            self.recording.go(timeline.beside(self.model.step, count))


def run_replay(run: RunDir, *, start: int | None, speed: float, playing: bool, settings: Settings) -> int:
    """Play a recording on this terminal until the operator leaves; returns the exit code, not 0 after a crash."""
    from console.tui.app import ConsoleApp
    from console.tui.options import app_options

    watch = ReplayWatch(Recording(run, start=start, speed=speed, playing=playing))
    app = ConsoleApp(
        watch.source, marker=settings.marker, fps=settings.fps, watch=watch, **app_options(settings)
    )
    try:
        app.run(mouse=settings.mouse)
    finally:
        watch.close()
    return app.return_code or 0
