"""How long the registry takes to answer at 100,000 adapters and runs, beside MLflow's.

    python benchmarks/registry_scale.py [--chains 1000] [--rounds 100] [--repeats 5]
                                        [--folder DIR] [--mlflow-python PATH] [--json FILE]

Wall-clock seconds, medians. Cold: a new process each time, its start and its imports counted.
Warm: one process does it again and again. PATH is a Python with mlflow-skinny, sqlalchemy and
alembic; its registry has as many models as we have chains, as many versions as we have rounds, and
lies in an SQLite file. Without PATH only our side is measured. A registered adapter of ours is
written, hashed and durable in the store, MLflow's is a row that names a place.
With --folder, what was made there before is used again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _registered import make

from registry.catalog.catalog import Catalog
from registry.catalog.lists import adapters
from registry.lineage.graph import lineage
from registry.store.objects import Parent, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
HEAD = f"{'metric':<34}{'ours':>8}{'mlflow':>8}{'ratio':>8}{'target':>8}"
NEWEST = 20

# Each is the whole program of a cold process: the store's folder and an id are its arguments.
START = (
    "import json, sys; from pathlib import Path; from dataclasses import asdict\n"
    "from registry.catalog.catalog import Catalog\n"
    "root = Path(sys.argv[1]); catalog = Catalog(root)\n"
)
LIST = (
    START + "from registry.catalog.lists import adapters\n"
    "print(json.dumps(asdict(adapters(catalog))))"
)
BY_BASE = LIST.replace("adapters(catalog)", "adapters(catalog, base='base-3')")
MOVE = START + (
    "from registry.store.objects import Store; now = catalog.alias('champion')\n"
    "catalog.move_alias(Store(root), 'champion', sys.argv[2], expect=now, reason='bench')"
)
UP = START + (
    "from registry.lineage.graph import lineage\n"
    "print(json.dumps(asdict(lineage(catalog, sys.argv[2]))))"
)
DOWN = UP.replace("sys.argv[2])", "sys.argv[2], down=True)")


@dataclass(frozen=True)
class Figure:
    """One metric: ours in seconds, MLflow's where there is one, and what must be reached.

    `ratio` is MLflow's over ours and at least `target`; without it, ours is at most `target`.
    """

    metric: str
    ours: float
    peer: float | None
    ratio: float | None
    target: float
    holds: bool

    def line(self) -> str:
        """Return it as a line of the table."""
        peer = "-" if self.peer is None else f"{self.peer:.3f}"
        ratio = "-" if self.ratio is None else f"{self.ratio:.2f}"
        held = "holds" if self.holds else "missed"
        return f"{self.metric:<34}{self.ours:>8.3f}{peer:>8}{ratio:>8}{self.target:>8g}  {held}"


@dataclass(frozen=True)
class Bench:
    """A store of ours, ids to ask for, and the peer."""

    root: Path
    newest: tuple[str, str]  # two adapters that an alias moves between
    version: str
    repeats: int
    targets: dict[str, float]
    peer: Path | None
    database: Path

    def cold(self) -> Iterator[Figure]:
        """Measure the four operations, each in processes of its own."""
        root = str(self.root)
        moves = [[*command(MOVE), root, self.newest[n % 2]] for n in range(self.repeats)]
        for metric, target, calls in (
            ("ls, newest 20, s", "ls", [[*command(LIST), root]] * self.repeats),
            ("ls of a base, s", "ls", [[*command(BY_BASE), root]] * self.repeats),
            ("alias move, s", "alias", moves),
            ("lineage up, s", "lineage_up", [[*command(UP), root, self.newest[0]]] * self.repeats),
            (
                "lineage down, s",
                "lineage_down",
                [[*command(DOWN), root, self.version]] * self.repeats,
            ),
        ):
            took = statistics.median(seconds(call) for call in calls)
            limit = self.targets[f"{target}_seconds"]
            yield Figure(metric, took, None, None, limit, took <= limit)

    def beside(self) -> Iterator[Figure]:
        """Measure registering and searching beside MLflow, cold and warm, in turns."""
        root, database = str(self.root), str(self.database)
        for name in ("register", "search"):
            ours: list[float] = []
            peer: list[float] = []
            for _ in range(self.repeats):
                ours.append(seconds([sys.executable, __file__, f"--{name}", root]))
                peer.append(seconds([*self.theirs, name, database]))
            yield self._ratio(f"{name}, cold, s", ours, peer)
        output = subprocess.check_output([*self.theirs, "warm", database, str(self.repeats)])
        theirs: dict[str, list[float]] = json.loads(output)
        for name, act in (("register", register), ("search", search)):
            act(self.root)
            taken = [called(act, self.root) for _ in range(self.repeats)]
            yield self._ratio(f"{name}, warm, s", taken, theirs[name])

    @property
    def theirs(self) -> list[str]:
        """The peer's program."""
        return [str(self.peer), str(HERE / "_mlflow.py")]

    def _ratio(self, metric: str, ours: list[float], peer: list[float]) -> Figure:
        mine, other = statistics.median(ours), statistics.median(peer)
        target = self.targets["mlflow_times"]
        return Figure(metric, mine, other, other / mine, target, other / mine >= target)


def command(code: str) -> list[str]:
    """Return how a cold process runs a program."""
    return [sys.executable, "-c", code]


def seconds(call: list[str]) -> float:
    """Return the wall-clock seconds of a process."""
    began = time.perf_counter()
    subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def called(act: Callable[[Path], None], root: Path) -> float:
    """Return the wall-clock seconds of a call."""
    began = time.perf_counter()
    act(root)
    return time.perf_counter() - began


def register(root: Path) -> None:
    """Put a small adapter with two files into the store and acknowledge it."""
    store, catalog = Store(root), Catalog(root)
    run = adapters(catalog, limit=1).rows[0]["adapter_id"]
    with store.draft() as draft:
        (draft / "adapter_config.json").write_text('{"r": 16}')
        (draft / "adapter_model.safetensors").write_bytes(bytes(65_536))
        identity = {"base": "base-3", "made": time.time_ns()}
        meta = {"base": "base-3", "method": "lora", "rank": 16}
        parents = [Parent(run, "start")]
        ref = store.put("adapter", draft, identity=identity, parents=parents, meta=meta)
    catalog.commit([ref])


def search(root: Path) -> None:
    """Find the newest adapters of one base."""
    assert len(adapters(Catalog(root), base="base-3").rows) == NEWEST


def prepare(folder: Path, chains: int, rounds: int, peer: Path | None) -> tuple[Path, Path]:
    """Make both registries unless they are there; returns ours and MLflow's."""
    root, database = folder / ".gapmend", folder / "mlflow.db"
    if not root.is_dir():
        began = time.perf_counter()
        make(root, chains, rounds)
        print(f"indexed in {time.perf_counter() - began:.0f} s")
    if peer is not None and not database.exists():
        fill = [str(peer), str(HERE / "_mlflow.py"), "fill", str(database)]
        subprocess.run([*fill, str(chains), str(rounds)], check=True)
    return root, database


def measure(given: argparse.Namespace, folder: Path) -> list[Figure]:
    """Measure all and print the table."""
    root, database = prepare(folder, given.chains, given.rounds, given.mlflow_python)
    catalog = Catalog(root)
    page = adapters(catalog, limit=2)
    newest = [row["adapter_id"] for row in page.rows]
    up = lineage(catalog, newest[0])
    version = next(node.id for node in up.nodes if node.kind == "dataset_version")
    down = lineage(catalog, version, down=True)
    print(
        f"{page.total:,} adapters; lineage up {len(up.nodes):,}, down {len(down.nodes):,} objects"
    )
    targets: dict[str, Any] = tomllib.loads((HERE / "targets.toml").read_text("utf-8"))
    bench = Bench(
        root=root,
        newest=(newest[0], newest[1]),
        version=version,
        repeats=given.repeats,
        targets=targets["registry"],
        peer=given.mlflow_python,
        database=database,
    )
    print(HEAD)
    figures = []
    for part in (bench.cold, bench.beside) if given.mlflow_python else (bench.cold,):
        for figure in part():
            figures.append(figure)
            print(figure.line(), flush=True)
    return figures


def main() -> None:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chains", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="make, or find, both registries here")
    parser.add_argument("--mlflow-python", type=Path, metavar="PATH", help="a Python with MLflow")
    parser.add_argument("--json", type=Path, help="write the figures here")
    for act in (register, search):  # one cold process of ours
        parser.add_argument(f"--{act.__name__}", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.register or given.search:
        register(given.register) if given.register else search(given.search)
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(given, given.folder or Path(folder))
    if given.json:
        given.json.write_text(json.dumps([asdict(one) for one in figures], indent=2) + "\n")


if __name__ == "__main__":
    main()
