"""A training as a stage in a process of its own, to be looked at: BASE WORKSPACE.

It stands still at a step while there is a file `hold` in the workspace.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from pipeline.training.fit import StepMetrics, fit
from pipeline.workspace import bars
from pipeline.workspace.stage import StageContext, StageOutput, run_stage
from pipeline.workspace.store import WorkspaceStore
from pipeline.workspace.ui import Ui
from registry.catalog.catalog import Catalog
from registry.models.load import BaseSpec, load_model
from registry.store.objects import Store
from tests.integration.pipeline.training.resume_program import SPEC, rows

HELD_AT = 9
_STEP_S = 0.08  # so that it is longer than the second in which its file is written


def kept_in(root: Path) -> WorkspaceStore:
    """Return what a workspace in this folder keeps."""
    state = root / ".gapmend"
    return WorkspaceStore(root, Store(state), Catalog(state, wait_s=30))


def train(base: Path, root: Path) -> int | None:
    """Train; return from which step it went on."""
    torch.set_num_threads(1)
    loaded = load_model("tiny", BaseSpec(model=str(base), dtype="fp32"), base)

    def work(ctx: StageContext) -> StageOutput:
        with ctx.ui.progress("train · tiny") as bar:

            def show(step: StepMetrics) -> None:
                bar.update(step.step, step.steps)
                bar.note(f"loss {step.loss:.3f}")
                time.sleep(_STEP_S)
                while step.step == HELD_AT and (root / "hold").exists():
                    time.sleep(_STEP_S)

            fitted = fit(loaded, rows(), SPEC, ctx.workdir, on_step=show)
        return StageOutput({"resumed_from": fitted.resumed_from})

    return run_stage(kept_in(root), Ui(), "train", {"n": 1}, work, version=1).result["resumed_from"]


if __name__ == "__main__":
    bars.LOG_EVERY_S = 1.0
    sys.stdout.write(f"resumed {train(Path(sys.argv[1]), Path(sys.argv[2]))}\n")
