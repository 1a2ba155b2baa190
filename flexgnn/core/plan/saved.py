"""Plans in files: what :meth:`Plan.save` wrote, to be followed again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from flexgnn.core.errors import PlanError
from flexgnn.core.plan.decisions import Decisions, Recomputed
from flexgnn.core.plan.plan import FORMAT_VERSION
from flexgnn.core.plan.problem import PlanningProblem


@dataclass(frozen=True, kw_only=True)
class SavedPlan:
    """The content of a plan's file that matters for following it."""

    path: Path
    planner: str
    """The name of the planner that made it."""
    budget_bytes: int
    """Of the compute tier."""
    graph: str
    program: str
    storage_dtype: str
    """Of the values and gradients of the run."""
    tile_rows: int
    """Of what is computed at once: devices differ in it."""
    decisions: Decisions

    @classmethod
    def load(cls, path: str | Path) -> SavedPlan:
        """Read a plan's file.

        Raises:
            PlanError: if it is not one, or of another version.
        """
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
            version = document["flexgnn_plan"]
            if version != FORMAT_VERSION:
                raise PlanError(
                    f"{path} has plan format {version}; this version of FlexGNN reads format {FORMAT_VERSION}."
                )
            decisions = document["decisions"]
            return cls(
                path=Path(path),
                planner=str(document["planner"]),
                budget_bytes=int(document["budget_bytes"]),
                graph=document["graph"],
                program=document["program"],
                storage_dtype=document["storage_dtype"],
                tile_rows=int(document["tile_rows"]),
                decisions=Decisions(
                    **{
                        **decisions,
                        "kept": frozenset((name, block, step) for name, block, step in decisions["kept"]),
                        "recomputed": Recomputed(
                            **{kind: frozenset(found) for kind, found in decisions["recomputed"].items()}
                        ),
                        "placed": {part: tuple(tiers) for part, tiers in decisions["placed"].items()},
                    }
                ),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PlanError(f"{path} is not a plan that FlexGNN saved: {error}.") from error

    def decisions_for(self, problem: PlanningProblem) -> Decisions:
        """The decisions, if they are for ``problem``.

        Raises:
            PlanError: if they were made for another graph, model, storage dtype or kind of device.
        """
        if self.graph != problem.store.fingerprint:
            raise PlanError(f"{self.path} was made for another graph than {problem.store.path}; make a new plan.")
        if self.program != problem.program.signature:
            raise PlanError(f"{self.path} was made for another model, or other rewrites; make a new plan.")
        if self.storage_dtype != problem.storage_dtype:
            raise PlanError(
                f"{self.path} was made for --storage-dtype {self.storage_dtype}, not {problem.storage_dtype}: "
                "ask for that, or make a new plan."
            )
        if self.tile_rows != problem.tile_rows:
            raise PlanError(
                f"{self.path} was made for {self.tile_rows} rows computed at once, not {problem.tile_rows} as here: "
                "make a new plan for this device."
            )
        return self.decisions
