"""What a person sees of predictions being made."""

from __future__ import annotations

from rich.console import Console

from flexgnn.console import RunDisplay
from flexgnn.core.runtime.events import Event, PredictionsConverted, PredictionsSaved
from flexgnn.core.sizes import format_size


class PredictionDisplay(RunDisplay):
    """A listener that shows a progress bar, and what was saved."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, epochs=1)

    def __call__(self, event: Event) -> None:
        """Show ``event``, if it is worth it."""
        if isinstance(event, PredictionsConverted):
            self._progress.update(self._task, description="writing", completed=event.rows, total=event.num_rows)
        elif isinstance(event, PredictionsSaved):
            size = format_size(event.size_bytes)
            line = f"{event.num_rows:,} nodes x {event.width} values ({size}) saved to {event.path}"
            self._console.print(line, markup=False)
        else:
            super().__call__(event)

    def _begin(self) -> None:
        self._progress.update(self._task, description="predicting")
