"""The sweep behind the defaults of `train:`, one setting after the other, in pieces.

    python benchmarks/defaults.py [--base nano] [--rows 110,500] [--seeds 0] [--only KEY …]
                                  [--items 100] [--seconds 3600] [--file build/defaults.jsonl]
    python benchmarks/defaults.py --table            the table of what is in the file

Every piece trains the base on rows of its gap and a fifth of guards' rows, with one setting other
than the defaults, and asks it items that it hasn't seen: labels of the gap by their likelihood,
guards by whether the answer has what is expected. Its line is in the file at once; what is there
is not done again, so a run that was ended, or had no more `--seconds`, is just started again.

nano learns the quickstart's sentiment and intents; any other base (a folder) twelve intents of
banking77, which is read from GAPMEND_DATA. The guards are the quickstart's jobs and days.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _defaults_side import Ground, ground, measured

from pipeline.spec.train import TrainSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# One after the other; a factor of the rate that is usual for the base, or a value of the key.
SWEEP: dict[str, tuple[Any, ...]] = {
    "learning_rate": (0.25, 0.5, 2, 4),
    "min_steps": (1, 30, 120, 240),
    "batch_rows": (4, 8, 32, 64),
    "epochs": (1, 1.5, 3, 4),
    "warmup": (0.0, 0.1, 0.2),
    "schedule": ("linear", "constant"),
    "weight_decay": (0.01, 0.1),
    "max_grad_norm": (0.3, None),
    "dropout": (0.05, 0.1),
}


def settings(only: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the defaults, and each setting beside them."""
    yield {}
    for key, values in SWEEP.items():
        if not only or key in only:
            yield from ({key: value} for value in values)


def spec_of(given: Mapping[str, Any], width: int | None, seed: int) -> TrainSpec:
    """Return the spec of a piece; its rate is a factor."""
    usual = TrainSpec(base="bench", seed=seed)
    wanted = dict(given)
    if "learning_rate" in wanted:
        wanted["learning_rate"] *= usual.usual_rate(width)
    return TrainSpec.model_validate({**usual.model_dump(), **wanted})


def pieces(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield what is to be measured; its `key` is where it stands in the file."""
    for rows in args.rows:
        for given in settings(args.only):
            for seed in args.seeds:
                piece = {"base": args.base, "rows": rows, "given": given, "seed": seed}
                piece["items"] = args.items
                said = json.dumps(piece, sort_keys=True).encode()
                yield piece | {"key": hashlib.sha256(said).hexdigest()[:12]}


def done(file: Path) -> list[dict[str, Any]]:
    """Return the file's lines; one that was cut off by a kill is left out."""
    if not file.exists():
        return []
    lines = file.read_text("utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def run(args: argparse.Namespace) -> None:
    """Measure what isn't in the file yet, as long as there is time."""
    known = {one["key"] for one in done(args.file)}
    left = [piece for piece in pieces(args) if piece["key"] not in known]
    if not left:
        return
    found: Ground = ground(args.base, args.items)
    args.file.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    for piece in left:
        if args.seconds is not None and time.monotonic() - began > args.seconds:
            break
        spec = spec_of(piece["given"], found.loaded.identity.width, piece["seed"])
        with tempfile.TemporaryDirectory() as workdir:
            outcome = measured(found, spec, piece["rows"], Path(workdir))
        with args.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(piece | outcome) + "\n")
        print(line(piece | outcome), flush=True)


def line(one: Mapping[str, Any]) -> str:
    """Return a line of the table."""
    given = ", ".join(f"{key} {_shown(key, value)}" for key, value in one["given"].items())
    return (
        f"|{Path(one['base']).name}|{one['rows']}|{given or 'defaults'}|{one['steps']}"
        f"|{one['gap']:.3f}|{one['guards']:.3f}|{one['loss']:.3f}|{one['seconds']:.0f}|"
    )


def _shown(key: str, value: Any) -> str:
    if value is None:
        return "off"
    return f"x {value:g}" if key == "learning_rate" else str(value)


def table(file: Path) -> Iterator[str]:
    """Yield the table, seeds averaged, in the order in which they were measured."""
    yield "|base|rows|setting|steps|gap|guards|held-out loss|CPU s|"
    yield "|---|---|---|---|---|---|---|---|"
    groups: dict[str, list[dict[str, Any]]] = {}
    for one in done(file):
        name = json.dumps([one["base"], one["rows"], one["given"], one["items"]])
        groups.setdefault(name, []).append(one)
    for group in groups.values():
        keys = ("gap", "guards", "loss", "seconds")
        means = {key: sum(one[key] for one in group) / len(group) for key in keys}
        yield line(group[0] | means)


def main() -> None:
    """Parse the arguments; measure, or show the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", default="nano", help="nano, or the folder of a base")
    parser.add_argument("--rows", type=_numbers, default=[110, 500])
    parser.add_argument("--seeds", type=_numbers, default=[0])
    parser.add_argument("--only", nargs="*", default=[], choices=SWEEP, metavar="KEY")
    parser.add_argument("--items", type=int, default=100, help="asked of each kind")
    parser.add_argument("--seconds", type=float, help="no piece is begun after so many")
    parser.add_argument("--file", type=Path, default=Path("build/defaults.jsonl"))
    parser.add_argument("--table", action="store_true", help="print the table of the file")
    args = parser.parse_args()
    if not args.table:
        run(args)
    print("\n".join(table(args.file)))


def _numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


if __name__ == "__main__":
    main()
