"""bench-method: what each part of the method is worth, arm by arm, at equal training tokens.

    python benchmarks/method.py [--base smollm2] [--seeds 0,1,2] [--arms random,nearest]
                                [--seconds 3600] [--folder build/method/results]
    python benchmarks/method.py --table [--plots docs/guide]

Every base and seed has a workspace with a pool of 5,000 rows that nobody labelled, beside the
folder of results. An arm chooses rows of it, trains as many tokens as any other arm, and is asked
test items; its figures are in one file, and what is there isn't done again, so that a run that was
ended, or had no more `--seconds`, is just started again. By default it is all of it: three seeds of
SmolLM2 and five of nano.

nano learns the quickstart's capabilities; any other base intents, orders and dates.
GAPMEND_DATA is a folder with banking77/ and llamafactory/.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _method_arms import ARMS, COMPOSED, SELECTED, changed, composed
from _method_figures import epochs_for, moved
from _method_measures import chosen, scores, tokens_of, trained
from _method_pool import make
from _method_report import check, plots, report

from pipeline.gap import gap
from pipeline.ingest import resolve
from pipeline.mend import mend
from pipeline.select import select
from pipeline.train import train
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace

if TYPE_CHECKING:
    from pipeline.workspace.resolved import Resolved

SEEDS = {"smollm2": 3, "nano": 5}


class Bench:
    """One base and seed: its workspace, and the tokens that every arm trains."""

    def __init__(self, base: str, seed: int, folder: Path) -> None:
        """Make the workspace, if it isn't there, and measure the gaps."""
        if not (folder / "gapmend.yaml").exists():
            folder.mkdir(parents=True, exist_ok=True)
            make(base, seed, folder)
        self._ui = Ui(as_json=True)
        self._ws: Resolved = changed(resolve(OpenWorkspace.open(folder), self._ui), seed=seed)
        self._found = gap(self._ws, self._ui)

    def measured(self, arm: str) -> dict[str, Any]:
        """Choose, train and measure one arm."""
        began = time.monotonic()
        ws = changed(self._ws, **SELECTED.get(arm, {}))
        selection, deciding = self._selection(ws, arm)
        tokens = tokens_of(ws, self._ui, selection)
        ws = changed(ws, epochs=epochs_for(self._tokens(), tokens))
        made = train(ws, self._ui, selection)
        adapters, adapter = [made.adapter_id], made.adapter_id
        mended: dict[str, Any] = {}
        if arm == "mended":
            outcome = mend(ws, self._ui, adapter, selection)
            adapters = [one.adapter_id for one in outcome.rounds]
            adapter = outcome.adapter_id
            used = next((one for one in outcome.rounds if one.adapter_id == adapter), None)
            selection = (used or outcome.rounds[-1]).selection_id
            mended = {"mended": outcome.mended, "scale": outcome.scale}
            deciding = None  # that of its last round
        came = scores(ws, self._ui, adapter)
        return {
            "adapter": adapter,
            "selection": selection,
            "selected_tokens": tokens,
            "epochs": ws.spec.train.epochs,
            "steps": made.steps,
            **chosen(ws, selection, deciding),
            **trained(ws, adapters),
            **came,
            "replayed_moved": moved(came["replayed"]),
            "witnesses_moved": moved(came["witnesses"]),
            **mended,
            "seconds": time.monotonic() - began,
        }

    def _selection(self, ws: Resolved, arm: str) -> tuple[str, dict[str, int] | None]:
        """Return an arm's selection, and what its own run read to decide, where `select` did."""
        if arm in COMPOSED:
            return composed(ws, self._ui, self._found, arm), None
        made = select(ws, self._ui)
        return made.selection_id, made.deciding_tokens

    def _tokens(self) -> int:
        """Return the tokens of every arm: so many passes as are usual over the balanced rows."""
        file = self._ws.root / "tokens.json"
        if not file.exists():
            selection = composed(self._ws, self._ui, self._found, "balanced")
            once = tokens_of(self._ws, self._ui, selection)
            file.write_text(json.dumps(round(self._ws.spec.train.epochs * once)))
        return int(json.loads(file.read_text()))


def run(args: argparse.Namespace) -> None:
    """Measure what has no file yet, as long as there is time."""
    began = time.monotonic()
    for base in [args.base] if args.base else SEEDS:
        name = Path(base).name
        for seed in args.seeds or range(SEEDS.get(name, 3)):
            files = {arm: args.folder / f"{name}-{seed}-{arm}.json" for arm in args.arms}
            left = {arm: file for arm, file in files.items() if not file.exists()}
            if not left or _late(args, began):
                continue
            bench = Bench(base, seed, args.folder.parent / f"{name}-{seed}")
            for arm, file in left.items():
                if _late(args, began):
                    return
                found = {"base": name, "seed": seed, "arm": arm, **bench.measured(arm)}
                _write(file, found)
                print(_line(found), flush=True)


def _write(file: Path, found: dict[str, Any]) -> None:
    """Write a result whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    part.replace(file)


def _late(args: argparse.Namespace, began: float) -> bool:
    return args.seconds is not None and time.monotonic() - began > args.seconds


def _line(one: dict[str, Any]) -> str:
    scored = {name: round(found["mean"], 3) for name, found in one["capabilities"].items()}
    return (
        f"{one['base']} {one['seed']} {one['arm']}: {scored}, witnesses lost "
        f"{one['witnesses_moved']['lost']:.3f}, {one['tokens']} tokens, {one['seconds']:.0f} s"
    )


def main() -> int:
    """Parse the arguments; measure, and show the tables of what is in the folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", help="smollm2, nano or a folder; by default the first two")
    parser.add_argument("--seeds", type=_numbers, help="by default 0,1,2, and for nano 0,1,2,3,4")
    parser.add_argument("--arms", type=_arms, default=list(ARMS), help=", ".join(ARMS))
    parser.add_argument("--seconds", type=float, help="no arm is begun after so many")
    parser.add_argument("--folder", type=Path, default=Path("build/method/results"))
    parser.add_argument("--table", action="store_true", help="only show what is in the folder")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write the plots there")
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if not args.table:
        run(args)
    results = [json.loads(file.read_text("utf-8")) for file in sorted(args.folder.glob("*.json"))]
    missed = list(check(results))
    print("\n".join([*missed, *report(results)]))  # what is missed is said first
    if args.plots:
        plots(results, args.plots)
    return 1 if missed else 0


def _numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


def _arms(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(ARMS):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: no arm; {', '.join(ARMS)}")
    return names


if __name__ == "__main__":
    raise SystemExit(main())
