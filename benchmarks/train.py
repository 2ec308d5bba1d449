"""How fast LoRA training is, beside LLaMA-Factory, TRL and transformers' own Trainer.

    python benchmarks/train.py --llamafactory-python PATH --trl-python PATH [--trainer-python PATH]
                               [--repeats 5] [--threads 1] [--only PART] [--quick] [--json FILE]

Real, unpadded tokens per CPU second (user and system, all threads) in optimizer steps after the
first; loading, tokenising and packing ahead are not counted. Same model, rows, LoRA (r = 16,
alpha = 32, all linear layers, no dropout), AdamW and threads, about the same tokens a step.
Every side is a process of its own that trains in turns (train_peers/_turns.py); medians of the
turns. Each peer runs at its defaults, with nothing set but what is trained, and at the quickest of
the settings that were tried for it (BEST). The loss of a peer's first step must be ours on the same
rows, or its figure is no comparison. A peer without an environment is not measured, which is said
and never counts as reached.

Memory is what the process grew by in training: its peak less what was resident after loading.
The share of this machine's matmul rate, and what is counted for it: _train_flops.py.
Rows are those of LLaMA-Factory's alpaca demo if GAPMEND_DATA is set, else generated.

The environments:

    python -m venv trl && trl/bin/pip install trl==1.16.0 peft torch==2.13.0
    python -m venv lf && lf/bin/pip install llamafactory==0.9.5 torch==2.13.0
    lf/bin/pip uninstall -y torchvision torchaudio      # built for another torch; not needed
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _train_cases
import _train_flops
from _train_figures import HEAD, Figure
from _train_ours import mean_loss
from _train_sides import HERE, PEERS, Outcome, Side, ours, race

from registry.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from _train_cases import Case

    from registry.models.load import LoadedModel

PARTS = ("small", "mid", "shared", "dpo")
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
ROWS = 256
# Tokens of a forward pass and passes of a step, ours as the packing peers'; 8 rows, the peers'
# default, have about 1,600 tokens.
BATCH = 1024
PASSES = 2
# Ours at its best: the same tokens a step; the small model in bf16 in one pass. (In one pass mid is
# no faster, and takes half as much memory again.)
_TWICE = {"batch_tokens": BATCH, "accumulation": PASSES}
_ONCE = {"batch_tokens": BATCH * PASSES, "accumulation": 1}
OURS: dict[tuple[str, str], dict[str, int]] = {
    ("small", "fp32"): _TWICE,
    ("small", "bf16"): _ONCE,
    ("mid", "fp32"): _TWICE,
    ("mid", "bf16"): _TWICE,
}
CLOSE = 1e-3

# Tried, on `small`: LLaMA-Factory's cutoff 1024 with batches of 1 (2 accumulated: 991 tokens/s) and
# 2 (995, and 1.8 times the memory), and 2048 (a quarter slower); TRL's max_length 1024 with batches
# of 1 and 2 (half as fast in fp32), bf16 weights with autocast and without (slower); the Trainer's
# likewise. LLaMA-Factory's pure_bf16 refuses to run on a CPU.
BEST: dict[str, dict[str, Any]] = {
    "llamafactory": {
        "neat_packing": True,
        "cutoff_len": 1024,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": PASSES,
        "disable_gradient_checkpointing": True,
    },
    "trl": {
        "packing": True,
        "max_length": 1024,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": PASSES,
        "gradient_checkpointing": False,
    },
    "trainer": {"train_sampling_strategy": "group_by_length"},
}
SCRIPTS = {"llamafactory": "llamafactory_sft.py", "trl": "trl_sft.py", "trainer": "hf_trainer.py"}


@dataclass(frozen=True)
class Race:
    """What a run of the benchmark is given."""

    pythons: Mapping[str, Path | None]
    repeats: int
    threads: int
    tokens: int
    logs: Path
    targets: Mapping[str, float]

    def sides(self, peers: Iterable[Side], case: Case) -> dict[str, Outcome]:
        """Let these sides train in turns."""
        return race(
            list(peers),
            case,
            threads=self.threads,
            repeats=self.repeats,
            tokens=self.tokens,
            logs=self.logs,
        )

    def best(self, dtype: str) -> list[Side]:
        """Return the peers at their best in this dtype."""
        made = []
        for peer, python in self.pythons.items():
            if python is not None:
                settings = BEST[peer] | {"bf16": dtype == "bf16"}
                side = Side(peer, python, PEERS / SCRIPTS[peer], DTYPES[dtype], settings)
                batches = settings.get("gradient_accumulation_steps", 1)
                made.append(replace(side, accumulation=batches))
        return made

    def defaults(self) -> list[Side]:
        """Return the peers as they come."""
        return [
            Side(peer, python, PEERS / SCRIPTS[peer], None, {})
            for peer, python in self.pythons.items()
            if python is not None
        ]

    def model(self, name: str, case: Case) -> Iterable[Figure]:
        """Compare on one model, in both dtypes and with the peers' defaults."""
        for dtype, full in DTYPES.items():
            share = Side(
                "rate", Path(sys.executable), HERE / "_train_flops.py", full, {"tokens": BATCH}
            )
            sides = [
                ours(dtype, **OURS[name, dtype], name="ours"),
                share,
                *self.best(dtype),
            ]
            found = self.sides(sides, case)
            mine = found["ours"]
            yield self._rate(f"{name}_{dtype}", case, mine, found["rate"])
            for peer in self.pythons:
                yield self._beside(name, dtype, peer, case, found)
            if name == "mid":
                for peer in ("llamafactory", "trl"):
                    yield self._memory(dtype, peer, mine, found.get(peer))
        yield from self._as_they_come(name, case)

    def _rate(self, name: str, case: Case, mine: Outcome, rate: Outcome) -> Figure:
        """Return our share of the machine's rate, in million operations a second."""
        per_token = _train_flops.training_flops(
            case.config,
            tokens=1,
            pairs=_train_flops.pairs_per_token(case.lengths),
            trained=sum(case.trained) / sum(case.lengths),
        )
        reached = mine.rate * per_token / _train_flops.MILLION
        return Figure(
            f"{name}_matmul_share",
            reached,
            rate.rate,
            self.targets[f"{name}_matmul_share"],
            note=f"MFLOP/s of CPU time; {mine.rate:.0f} tokens/s, {per_token / 1e6:.1f} MFLOP each",
        )

    def _beside(
        self, name: str, dtype: str, peer: str, case: Case, found: Mapping[str, Outcome]
    ) -> Figure:
        target = self.targets.get(f"{peer}_{dtype}")
        metric = f"{name}_{peer}_{dtype}"
        other = found.get(peer)
        if other is None:
            return Figure(metric, found["ours"].rate, None, target, note=f"{peer} was not measured")
        # Its loss is in bf16 where its weights are: ours stays fp32, and the bound is for fp32.
        differs = difference(case, other)
        if dtype == "fp32" and not differs < CLOSE:
            note = f"no comparison: first losses differ by {differs:.1g}"
            return Figure(metric, found["ours"].rate, None, target, note=note)
        note = f"first step's loss {other.loss:.4f}, {differs:.1g} from ours on its rows"
        return Figure(metric, found["ours"].rate, other.rate, target, note=note)

    def _memory(self, dtype: str, peer: str, mine: Outcome, other: Outcome | None) -> Figure:
        grown = None if other is None else other.grown
        return Figure(
            f"mid_memory_{peer}_{dtype}",
            mine.grown,
            grown,
            self.targets[f"memory_{peer}"],
            at_most=True,
            note="MiB grown in training",
        )

    def _as_they_come(self, name: str, case: Case) -> Iterable[Figure]:
        mine = [ours(dtype, **OURS[name, dtype]) for dtype in DTYPES]
        found = self.sides([*mine, *self.defaults()], case)
        for peer in self.pythons:
            metric = f"{name}_{peer}_default"
            other = found.get(peer)
            if other is None:
                note = f"{peer} was not measured"
                best = found["ours bf16"].rate
                yield Figure(metric, best, None, self.targets["default"], note=note)
                continue
            plain = found["ours fp32"].rate
            differs = difference(case, other)
            note = (
                f"ours in bf16; in fp32 {plain:.0f}, {plain / other.rate:.2f} times. "
                f"First step's loss {other.loss:.4f}, {differs:.1g} from ours on its rows"
            )
            best = found["ours bf16"].rate
            yield Figure(metric, best, other.rate, self.targets["default"], note=note)

    def shared(self, name: str, case: Case) -> Figure:
        """Compare rows that share a prompt with the same rows with prompts of their own."""
        loaded = load(case)
        rows = _train_cases.with_shared_prompts(loaded, prompts=ROWS // 4)
        written = {
            kind: _train_cases.write_rows(loaded, pairs, case.folder, case.config, f"-{kind}")
            for kind, pairs in rows.items()
        }
        side = ours("fp32", batch_tokens=BATCH, accumulation=PASSES)
        found = self.sides(
            [replace(side, name=kind, rows=made.rows) for kind, made in written.items()], case
        )
        lengths = written["shared"].lengths
        note = (
            f"trained tokens/s; rows of {min(lengths)} to {max(lengths)} tokens, 4 answers to a "
            f"prompt, beside the same rows with prompts that differ in their first token"
        )
        target = self.targets["shared_prompt"]
        sides = found["shared"].trained_rate, found["apart"].trained_rate
        return Figure(f"{name}_shared_prompt", *sides, target, note=note)

    def preference(self, case: Case) -> Figure:
        """Measure DPO by TRL's DPOTrainer on pairs of two answers to one prompt.

        Compared are trained tokens (those of both answers), which don't depend on whether a prompt
        goes through the model once or twice.
        """
        target, trl = self.targets["dpo"], self.pythons["trl"]
        if trl is None:
            return Figure("dpo", None, None, target, note="trl was not measured")
        settings = {"gradient_checkpointing": False, "bf16": False}
        side = Side("trl dpo", trl, PEERS / "trl_dpo.py", "float32", settings)
        mine = ours("fp32", batch_tokens=BATCH, accumulation=PASSES, name="ours", objective="dpo")
        pairs = self._pairs(case)
        found = self.sides([replace(mine, rows=pairs), replace(side, rows=pairs)], case)
        rate, peer = found["ours"].trained_rate, found["trl dpo"].trained_rate
        return Figure("dpo", rate, peer, target, note="trained tokens/s")

    @staticmethod
    def _pairs(case: Case) -> Path:
        """Write the rows of one prompt, two by two, as chosen and rejected."""
        rows = _train_cases.with_shared_prompts(load(case), prompts=ROWS // 2, answers=2)["shared"]
        pairs = [
            {"user": user, "chosen": chosen, "rejected": rejected}
            for (user, chosen), (_, rejected) in zip(rows[::2], rows[1::2], strict=True)
        ]
        path = case.folder / "pairs.json"
        path.write_text(json.dumps(pairs), "utf-8")
        return path


def load(case: Case) -> LoadedModel:
    """Load a case's model as gapmend does."""
    from registry.models.base import BaseSpec
    from registry.models.load import load_model

    return load_model(case.folder.name, BaseSpec(model=str(case.folder)), Path.cwd())


def difference(case: Case, other: Outcome) -> float:
    """Return how far a peer's loss of its first step is from ours on the same rows.

    Infinite if it was made of other rows than it was given.
    """
    rows = {tuple(row["input_ids"]): row for row in json.loads(case.rows.read_text("utf-8"))}
    batch = [rows.get(tuple(ids)) for ids in other.rows]
    known = [row for row in batch if row is not None]
    if not known or len(known) < len(batch):
        return math.inf
    return abs(other.loss - mean_loss(case.folder, known))


def main() -> None:
    """Measure, print the table and write the JSON."""
    given = arguments()
    targets = tomllib.loads((HERE / "targets.toml").read_text("utf-8"))["train"]
    pythons = {
        "llamafactory": given.llamafactory_python,
        "trl": given.trl_python,
        "trainer": given.trainer_python,
    }
    for peer, python in pythons.items():
        if python is None:
            print(f"{peer}: no --{peer}-python, so it is not measured")
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder, quiet_libraries():
        where = Path(folder)
        run = Race(
            pythons,
            2 if given.quick else given.repeats,
            given.threads,
            1 if given.quick else BATCH * PASSES,
            given.logs or where,
            targets,
        )
        source, pairs = _train_cases.texts(ROWS)
        print(f"{source}; {run.threads} threads, medians of {run.repeats} turns\n{HEAD}")
        for figure in measured(run, given, pairs, where):
            figures.append(figure)
            print(figure.line(), flush=True)
    if given.json:
        given.json.write_text(json.dumps([one.as_json() for one in figures], indent=2) + "\n")


def measured(
    run: Race, given: argparse.Namespace, pairs: list[tuple[str, str]], where: Path
) -> Iterable[Figure]:
    """Measure the parts that are asked for."""
    wanted = [given.only] if given.only else [p for p in PARTS if p != "mid" or not given.quick]
    for name in ("small", "mid"):
        parts = {name, "shared", "dpo"} if name == "small" else {name}
        if parts.isdisjoint(wanted):
            continue
        case = _train_cases.make_case(name, pairs, where / name)
        if name in wanted:
            yield from run.model(name, case)
        if name == "small" and "shared" in wanted:
            yield run.shared(name, case)
        if name == "small" and "dpo" in wanted:
            yield run.preference(case)


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--llamafactory-python", type=Path, help="of its environment")
    parser.add_argument("--trl-python", type=Path, help="of its environment")
    parser.add_argument(
        "--trainer-python", type=Path, default=Path(sys.executable), help="default: our own"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=PARTS, metavar="PART", help=" | ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="two short turns, the small model")
    parser.add_argument("--logs", type=Path, help="an existing folder that keeps what sides print")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
