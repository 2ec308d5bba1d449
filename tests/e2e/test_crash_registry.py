"""kill -9 inside pull, import, merge, sign and export: the same call again ends with the same."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from registry.catalog.catalog import Catalog
from registry.publish.signing import make_key
from registry.store.hashing import file_digest
from registry.store.objects import Store
from registry.upkeep.fsck import fsck
from tests.e2e.conftest import nano_adapter
from tests.e2e.crash.harness import Call, points, record, run_killed, run_killed_at_time
from tests.loopback_hub import Hub, serving
from tests.support.called import MAIN, Called, fork, forked
from tests.support.loaded import Loaded, light, with_models

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.xdist_group("with models")
STARTER = Path(__file__).resolve().parents[2] / "pipeline" / "workspace" / "starter"
TOKEN = "hf_" + "aTokenOfTheLoopbackHub00"
_AFTER_MARK = 0.7  # of a call's time, about; the rest is its start
# `rows` objects and runs are left out: uids and times are in their ids.
KINDS = ("dataset_version", "adapter", "model", "merge", "signature", "export")


@dataclass(frozen=True)
class Verb:
    """A call that is killed, and how it goes where it isn't.

    Attributes:
        words: of the command line; it runs in a copy of the folder `ready`, its workspace.
        mark: what it prints where its work begins.
        key: of its answer: the id of what it made.
        calls: that can be hit.
        seconds: that it takes.
        done: the workspace at its end.
        kept: kind -> ids in the catalog at its end.
        out: the files that it wrote outside of the store.
    """

    words: tuple[str, ...]
    ready: Path
    mark: str
    key: str
    calls: list[Call]
    seconds: float
    done: Path
    kept: dict[str, set[str]]
    out: dict[str, str]


def kept(folder: Path) -> dict[str, set[str]]:
    catalog = Catalog(folder / ".gapmend")
    return {kind: {one.id for one in catalog.committed(kind)} for kind in KINDS}


def written(folder: Path) -> dict[str, str]:
    """What stands under the name of an export's folder."""
    out = folder / "out"
    return {path.name: file_digest(path) for path in out.iterdir()} if out.exists() else {}


def fresh(ready: Path, folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Copy a workspace; its calls have a cache of the Hub of their own."""
    shutil.copytree(ready, folder)
    patch.setenv("HF_HOME", str(folder / "cache"))
    return folder


def uninterrupted(
    words: tuple[str, ...], ready: Path, mark: str, key: str, at: Path, loaded: Loaded = light
) -> Verb:
    with pytest.MonkeyPatch.context() as patch:
        folder = fresh(ready, at, patch)
        forked("--version", loaded=loaded)  # what it loads isn't in the time that follows
        began = time.monotonic()
        calls = record([MAIN, *words], cwd=folder, loaded=loaded)
        seconds = time.monotonic() - began
    return Verb(words, ready, mark, key, calls, seconds, folder, kept(folder), written(folder))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def start(place: Path) -> Path:
    """A workspace with nothing in it yet; beside its spec an adapter by others, and keys."""
    folder = Path(shutil.copytree(STARTER, place / "start"))
    nano_adapter(folder / "theirs", with_models)
    (folder / "theirs" / "README.md").write_text("---\nlicense: mit\n---\n")
    make_key(folder / "keys")
    return folder


@pytest.fixture(scope="module")
def hub(place: Path) -> Iterator[Hub]:
    """A Hub whose answers take their time, so that there is time between them."""
    with (
        serving(place / "hub", tokens={TOKEN: "me:write"}) as served,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in (("HF_ENDPOINT", served.endpoint), ("HF_TOKEN", TOKEN)):
            patch.setenv(name, value)
        patch.setenv("HF_HUB_OFFLINE", "0")
        served.faults.add("slow", seconds=0.03, count=10**6)
        yield served


def push(hub: Hub, ready: Path, folder: Path, thing: str, repo: str) -> None:
    shutil.copytree(ready, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.endpoint)
        patch.setenv("HF_HOME", str(folder / "cache"))
        done = forked("push", thing, "--repo", repo, "-C", folder, HF_HUB_OFFLINE="0")
    assert done.code == 0, done.err


@pytest.fixture(scope="module")
def pulled_rows(place: Path, start: Path, hub: Hub) -> Verb:
    sender = Path(shutil.copytree(start, place / "ingested"))
    assert forked("ingest", "-C", sender).code == 0
    push(hub, sender, place / "pushed-rows", "tickets", "me/rows")
    words = ("pull", "datasets/me/rows")
    return uninterrupted(words, start, "import ·", "object_id", place / "pulled-rows")


@pytest.fixture(scope="module")
def pulled_adapter(place: Path, start: Path, imported: Verb, hub: Hub) -> Verb:
    (thing,) = imported.kept["adapter"]
    push(hub, imported.done, place / "pushed-adapter", thing, "me/adapter")
    words = ("pull", "me/adapter")
    return uninterrupted(words, start, "import ·", "object_id", place / "pulled-adapter")


@pytest.fixture(scope="module")
def imported(place: Path, start: Path) -> Verb:
    words = ("adapter", "import", "theirs")
    return uninterrupted(words, start, "import ·", "object_id", place / "imported", with_models)


@pytest.fixture(scope="module")
def merged(place: Path, imported: Verb) -> Verb:
    words = ("merge", "--adapter", *imported.kept["adapter"])
    return uninterrupted(words, imported.done, "merge ·", "model_id", place / "merged")


@pytest.fixture(scope="module")
def signed(place: Path, imported: Verb) -> Verb:
    words = ("sign", *imported.kept["adapter"], "--key", "keys/gapmend-signing.key")
    return uninterrupted(words, imported.done, "sign ·", "signature_id", place / "signed")


@pytest.fixture(scope="module")
def copied(place: Path, imported: Verb) -> Verb:
    words = ("adapter", "export", *imported.kept["adapter"], "out")
    return uninterrupted(words, imported.done, "export ·", "export_id", place / "copied")


@pytest.fixture(scope="module")
def exported(place: Path, merged: Verb) -> Verb:
    words = ("adapter", "export", *merged.kept["model"], "out", "--form", "gguf")
    return uninterrupted(words, merged.done, "export ·", "export_id", place / "exported")


def kill(verb: Verb, tmp_path: Path, *, at_times: int, at_calls: int) -> None:
    """Kill a verb at random instants of its time, and at calls; each leaves what can go on."""
    draw = random.Random(verb.mark)
    told: Counter[str] = Counter()
    for number in range(at_times):
        seconds = draw.uniform(0, verb.seconds * _AFTER_MARK)
        code, tried = 0, 0
        while code != -9:  # the machine's load has changed, and it came to its end
            with pytest.MonkeyPatch.context() as patch:
                folder = fresh(verb.ready, tmp_path / f"time-{number}-{tried}", patch)
                command = [MAIN, *verb.words]
                ended = run_killed_at_time(command, mark=verb.mark, seconds=seconds, cwd=folder)
                code, tried, seconds = ended.code, tried + 1, seconds / 2
                assert code in (0, -9), ended.errors
                told[check(verb, folder)] += 1
    killed = 0
    for number, point in enumerate(points(verb.calls, kills=3 * at_calls, seed=17)):
        if killed < at_calls:  # how often the catalog is opened depends on the time that it takes
            with pytest.MonkeyPatch.context() as patch:
                folder = fresh(verb.ready, tmp_path / f"call-{number}", patch)
                killed += run_killed([MAIN, *verb.words], point, cwd=folder).code == -9
                told[check(verb, folder)] += 1
    assert killed == at_calls
    print(f"{' '.join(verb.words[:2])}: {verb.seconds:.1f} s, what kills left: {dict(told)}")


def check(verb: Verb, folder: Path) -> str:
    """Look at what a kill has left, call the verb again and look at the end of it."""
    root = folder / ".gapmend"
    report = fsck(Store(root), Catalog(root))
    assert report.clean, report.findings
    found, before, out = kept(folder), kept(verb.ready), written(folder)
    for kind in KINDS:
        assert before[kind] <= found[kind] <= verb.kept[kind]
    assert out in ({}, verb.out)  # whole, or not there
    again = call(folder, verb)
    if out:  # its folder had its name already, and whoever has that has all of it
        assert again.code == 2
        assert "there is something already" in again.err
        shutil.rmtree(folder / "out")
        again = call(folder, verb)
    assert again.code == 0, again.err
    assert kept(folder) == verb.kept
    assert again.json()[verb.key] in set().union(*verb.kept.values())
    assert written(folder) == verb.out
    told = forked("fsck", "--json", "-C", folder)
    assert told.code == 0, told.out
    assert {finding["problem"] for finding in told.json()["findings"]} <= {"orphan"}
    return "nothing yet" if found == before else "all of it"


def call(folder: Path, verb: Verb) -> Called:
    """Run the verb to its end, in its workspace."""
    return fork([MAIN, *verb.words, "--json"], cwd=folder, timeout=300)


# The rest is alike in how it ends, and starts slower libraries: in the long test alone.
SHORT = {"signed": 1, "copied": 1}  # and kills at a call
VERBS = (*SHORT, "pulled_rows", "merged", "pulled_adapter", "imported", "exported")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("verb", SHORT)
def test_a_killed_verb_is_finished_by_the_same_again(
    request: pytest.FixtureRequest, tmp_path: Path, verb: str
) -> None:
    kill(request.getfixturevalue(verb), tmp_path, at_times=1, at_calls=SHORT[verb])


@pytest.mark.soak
@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("verb", VERBS)
def test_ten_kills_of_a_verb(request: pytest.FixtureRequest, tmp_path: Path, verb: str) -> None:
    kill(request.getfixturevalue(verb), tmp_path, at_times=6, at_calls=4)
