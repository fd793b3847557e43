"""Runs that end between two steps, as a signal would end them."""

from unfreeze.events import BetweenSteps, CellResumed, Event, Warned


class Stopped(BaseException):
    """What ends a run, as a signal would."""


class Stops:
    """Ends a run after so many steps, and notes what it was told."""

    def __init__(self, after: int | None = None) -> None:
        self.after, self.steps, self.events = after, 0, list[Event]()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, BetweenSteps):
            if self.steps == self.after:
                raise Stopped
            self.steps += 1

    @property
    def warnings(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Warned) and "state" in event.text]

    @property
    def resumed(self) -> list[str]:
        return [event.cell for event in self.events if isinstance(event, CellResumed)]
