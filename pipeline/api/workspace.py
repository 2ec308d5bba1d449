"""The workspace as a Python object: each verb is a method and returns its report.

`gapmend VERB` calls the method of the same name and prints what it returns.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pipeline.api.records import Records
from pipeline.workspace.store import CHAMPION, WorkspaceStore, adapter_named

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.forget import ChangedItem, ForgetReport
    from pipeline.gap import GapReport
    from pipeline.ingest import IngestReport
    from pipeline.mend import MendReport
    from pipeline.merge import MergeReport
    from pipeline.promote import PromoteReport
    from pipeline.run import RunReport
    from pipeline.select import SelectReport
    from pipeline.spec.spec import Spec
    from pipeline.talk.talk import Drawing, Talk
    from pipeline.train import TrainReport
    from pipeline.training.preview.dry_run import DryRun
    from pipeline.verbs.check import CheckReport
    from pipeline.verbs.compare import CompareReport
    from pipeline.verbs.ingest_dry import DatasetLook
    from pipeline.verbs.leaks import LeaksReport
    from pipeline.verbs.pull import TakeReport
    from pipeline.verbs.push import PushReport
    from pipeline.verbs.reproduce import ReproduceReport
    from pipeline.verbs.serve import ServeReport
    from pipeline.workspace.stage import PlanStep
    from pipeline.workspace.ui import Ui
    from pipeline.workspace.workspace import OpenWorkspace


class Workspace(Records):
    """A folder with `gapmend.yaml`, and everything that can be done with it.

    Each call reads the spec again, so it may be edited between two, and lets go of the base that
    it has loaded. Every method raises the errors of `registry.errors`, whose text is the line that
    the command line prints.
    """

    @classmethod
    def open(cls, folder: Path | str = ".", *, ui: Ui | None = None) -> Self:
        """Open the workspace in a folder; its spec isn't read yet.

        Args:
            folder: where `gapmend.yaml` is.
            ui: where progress and tables go; by default progress goes to stderr, and tables
                nowhere, since the methods return what is in them.

        Raises:
            UserError: there is no `gapmend.yaml`.
        """
        return cls(WorkspaceStore.open(Path(folder)), ui)

    @classmethod
    def init(cls, folder: Path | str) -> Self:
        """Make a workspace to start from, as `gapmend init` does, and open it.

        Raises:
            UserError: one of its files is there already.
        """
        from pipeline.workspace.init import init

        init(Path(folder))
        return cls.open(folder)

    @property
    def spec(self) -> Spec:
        """The spec as `gapmend.yaml` says it now.

        Raises:
            SpecError: it isn't valid.
        """
        with self._opened() as ws:
            return ws.spec

    def check(self) -> CheckReport:
        """Validate the spec, find what would stop a run late, and compare sizes with this machine.

        Raises:
            UserError: something would stop it, at its file, line and key.
        """
        from pipeline.verbs.check import check

        with self._opened() as ws:
            return check(ws, self._ui)

    def plan(self) -> list[PlanStep]:
        """Say what `run` would do, what is up to date and why, and what it will take.

        Raises:
            UserError: something would stop it, before any model is asked.
        """
        from pipeline.run import plan

        with self._opened() as ws:
            return plan(ws, self._ui)

    def run(self, *, until: str | None = None, start: str | None = None) -> RunReport:
        """Run the loop; what is up to date is found in the store.

        Args:
            until: the last stage that is run.
            start: the first one; those before it are only looked up.

        Raises:
            UserError: no such stage, or one before `start` is not up to date.
        """
        from pipeline.run import run

        with self._opened() as ws:
            return run(ws, self._ui, until=until, start=start)

    def ingest(self, names: Sequence[str] | None = None) -> IngestReport:
        """Turn the named datasets of the spec, or all, into versions."""
        from pipeline.ingest import ingest

        with self._opened() as ws:
            return ingest(ws, self._ui, names)

    def ingest_dry(self, names: Sequence[str] | None = None) -> tuple[DatasetLook, ...]:
        """Look at formats, rejects and three rows of the named datasets, and keep nothing."""
        from pipeline.verbs.ingest_dry import look

        with self._opened() as ws:
            return look(ws, self._ui, names)

    def gap(self, base: str | None = None, *, early: bool = False) -> GapReport:
        """Measure what a base of the spec lacks; by default `train.base`.

        With `early`, no more items are asked where the verdict is clear.
        """
        from pipeline.gap import gap

        with self._opened() as ws:
            return gap(ws, self._ui, base, early=early)

    def select(self) -> SelectReport:
        """Let the gap choose the rows that are trained on.

        Raises:
            GateRefusedError: no gap is real; nothing should be trained.
        """
        from pipeline.select import select

        with self._opened() as ws:
            return select(ws, self._ui)

    def train(self, selection: str | None = None) -> TrainReport:
        """Train an adapter on a selection (by id), or on the one that the gap leads to."""
        from pipeline.run import train_selection

        with self._opened() as ws:
            return train_selection(ws, self._ui, selection)

    def train_dry(self, selection: str | None = None) -> DryRun:
        """Look at three rows as they would be trained on, and at what it would take."""
        from pipeline.run import train_dry

        with self._opened() as ws:
            return train_dry(ws, self._ui, selection)

    def follow_training(self) -> None:
        """Take part in `train` in a process that a launcher started beside the first."""
        from pipeline.train import follow

        with self._opened() as ws:
            follow(ws, self._ui)

    def compare(
        self,
        *,
        methods: Sequence[str] | None = None,
        sweep: str | None = None,
        selection: str | None = None,
    ) -> CompareReport:
        """Train on one selection by several methods, or with several values of a setting.

        Args:
            methods: such as `["lora", "full"]`.
            sweep: such as `rank=8,16`, instead.
            selection: by id; by default the one that the gap leads to.
        """
        from pipeline.run import compare_on

        with self._opened() as ws:
            return compare_on(ws, self._ui, selection, methods, sweep)

    def forget(
        self, adapter: str | None = None, *, against: str | None = None, base: str | None = None
    ) -> ForgetReport:
        """Measure, item by item, what an adapter made the base forget.

        Args:
            adapter: id or alias; by default the newest one.
            against: compare with this adapter, not with the base.
            base: measure no adapter, but another base of the spec.
        """
        from pipeline.forget import forget, other_base, tuned

        with self._opened() as ws:
            other = None if against is None else tuned(ws, against)
            what = tuned(ws, adapter) if base is None else other_base(ws, base)
            return forget(ws, self._ui, what, other)

    def changed_items(
        self, report: ForgetReport, which: Literal["lost", "gained"] = "lost"
    ) -> tuple[ChangedItem, ...]:
        """Return the items that `forget` found lost or gained, with both answers."""
        from pipeline.forget import changed_items

        with self._opened() as ws:
            return changed_items(ws, self._ui, report, which)

    def mend(self) -> MendReport:
        """Fill in what training lost, round by round, until gaps are closed and guards kept."""
        from pipeline.run import mend_first

        with self._opened() as ws:
            return mend_first(ws, self._ui)

    def promote(self, adapter: str | None = None) -> PromoteReport:
        """Score test once, and make an adapter champion if every gate says yes.

        By default it is the adapter that `mend` came to.
        """
        from pipeline.run import promote_mended

        with self._opened() as ws:
            return promote_mended(ws, self._ui, adapter)

    def merge(
        self,
        *adapters: str,
        method: str | None = None,
        weights: Sequence[float | str] | Literal["search"] | None = None,
        density: float | None = None,
        rank: int | None = None,
        seed: int | None = None,
    ) -> MergeReport:
        """Merge adapters into their base, with proof that the logits are what they should be.

        Args:
            adapters: ids or aliases; by default the champion.
            method: how several are put together, as the other settings; by default as the spec
                says under `merge`.
            weights: one an adapter, or `search`: found on dev.
            density: what ties, dare and such keep of a delta.
            rank: what svd cuts to.
            seed: what dare and della draw by.

        Raises:
            GateRefusedError: the merged model doesn't answer as it should.
        """
        from pipeline.merge import merge, merge_as, settings

        over = {
            "method": method, "weights": weights, "density": density, "rank": rank, "seed": seed
        }  # fmt: skip
        with self._opened() as ws:
            if len(adapters) <= 1:
                name = adapters[0] if adapters else CHAMPION
                return merge(ws, self._ui, adapter_named(ws, name))
            chosen = settings(ws.spec, over)
            return merge_as(ws, self._ui, [adapter_named(ws, name) for name in adapters], chosen)

    def leaks(self, thing: str | None = None) -> LeaksReport:
        """List what is trained on and measured by at once; of a selection or adapter, or of all."""
        from pipeline.verbs.leaks import leaks

        with self._opened() as ws:
            return leaks(ws, self._ui, thing)

    def push(
        self,
        thing: str | None = None,
        *,
        repo: str | None = None,
        private: bool | None = None,
        as_request: bool = False,
        dry: bool = False,
    ) -> PushReport:
        """Push an adapter, a merged model or a dataset to the Hub; by default the champion.

        Args:
            thing: an id, an alias or a dataset's name.
            repo: owner/name; by default `hub.repo` of the spec.
            private: what the repository must be.
            as_request: leave a pull request open; main stays where it is.
            dry: say what would be sent, and send nothing.
        """
        from pipeline.verbs.push import push

        with self._opened() as ws:
            return push(
                ws, self._ui, thing, repo=repo, private=private, as_request=as_request, dry=dry
            )

    def pull(
        self,
        source: str,
        *,
        revision: str | None = None,
        base: str | None = None,
        key: Path | None = None,
    ) -> TakeReport:
        """Take in an adapter, a merged model or a dataset, from the Hub or a folder.

        Args:
            source: owner/name, datasets/owner/name, or a folder.
            revision: of a Hub id: a branch, a tag or a commit.
            base: the base an adapter is for, whatever it says itself.
            key: a public key that its signature must fit.
        """
        from pipeline.verbs.pull import take

        with self._opened() as ws:
            return take(ws, self._ui, source, revision=revision, base=base, key=key)

    def serve(
        self,
        names: Sequence[str] = (),
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        token: bool = False,
        log: bool = False,
    ) -> ServeReport:
        """Serve the models by OpenAI's API until Ctrl-C or SIGTERM.

        Args:
            names: what is served; by default every base, adapter and merged model.
            host: where to listen; other than loopback wants a token.
            port: 0 takes a free one.
            token: want one on loopback too.
            log: a line on stderr for each request.

        Raises:
            UserError: the port is in use, a name isn't there, or the base can't be loaded.
        """
        from pipeline.verbs.serve import serve

        with self._opened() as ws:
            return serve(ws, self._ui, names, host=host, port=port, token=token, log=log)

    def reproduce(self, adapter: str = CHAMPION) -> ReproduceReport:
        """Train an adapter again from its lineage and compare the two, byte for byte."""
        from pipeline.verbs.reproduce import reproduce

        with self._opened() as ws:
            return reproduce(ws, self._ui, adapter_named(ws, adapter))

    @contextmanager
    def chat(
        self,
        model: str | None = None,
        *,
        against: str | None = None,
        prompt: str | None = None,
        capability: str | None = None,
        drawing: Drawing | None = None,
    ) -> Iterator[Talk]:
        """Talk to a model, or to two that are asked the same; see `gapmend chat`.

        Args:
            model: a base, an alias, or the id of an adapter or merged model; by default the
                champion, and the base that is trained where there is none.
            against: another one.
            prompt: one that the gap measured, such as `few_shot_5`.
            capability: whose prompt.
            drawing: how answers are chosen; by default the likeliest token each time.

        Raises:
            UserError: nobody has that name, there is no such prompt, or it can't be loaded.
        """
        from pipeline.talk.talk import open_talk

        with self._opened() as ws:
            asked = {"against": against, "prompt": prompt, "capability": capability}
            with open_talk(ws, self._ui, model, **asked, drawing=drawing) as talk:
                yield talk

    @contextmanager
    def _opened(self) -> Iterator[OpenWorkspace]:
        """Give one call a workspace of its own: nothing is left of one that was stopped."""
        from pipeline.workspace.workspace import OpenWorkspace

        ws = OpenWorkspace.open(self.folder)
        try:
            yield ws
        finally:
            ws.models.close()
