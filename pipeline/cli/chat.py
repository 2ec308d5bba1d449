"""The verb `chat`: on a terminal a talk, in a pipe a question a line."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from pipeline.cli import signals
from pipeline.cli.verb import HERE, Answer, WorkspaceOption, in_workspace, json_line
from pipeline.workspace.inert import inert
from registry.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.api.workspace import Workspace
    from pipeline.talk.talk import Talk
    from pipeline.verbs.chat import Commands, Line

_FAILED = 2


def chat(  # noqa: PLR0913 - a command's arguments are its options
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="A base, `champion` or another alias, or the id of an adapter or merged model; by "
            "default the champion, else the base that is trained.",
        ),
    ] = None,
    *,
    against: Annotated[
        str | None, typer.Option("--against", help="Another one, who is asked the same.")
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", help="Ask by one that the gap measured, such as few_shot_5."),
    ] = None,
    capability: Annotated[
        str | None,
        typer.Option("--capability", help="Whose prompt, where several have one of that name."),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=1, help="The longest answer.")
    ] = 512,
    temperature: Annotated[
        float,
        typer.Option("--temperature", min=0, max=2, help="0: the likeliest token each time."),
    ] = 0.0,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Draw the same again, above temperature 0.")
    ] = None,
    workspace: WorkspaceOption = HERE,
    as_json: Annotated[
        bool, typer.Option("--json", help="Answer each line of stdin with a line of JSON.")
    ] = False,
) -> None:
    """Talk to the base, an adapter or a merged model, or to two side by side; keep answers as rows.

    Where stdin is no terminal, each of its lines is a question by itself.

    Example: `gapmend chat champion --against nano -C examples/quickstart`
    """
    out, on_terminal = sys.stdout, sys.stdin.isatty() and sys.stdout.isatty() and not as_json

    def work(ws: Workspace) -> Answer:
        from pipeline.talk.talk import Drawing

        drawing = Drawing(max_tokens, temperature, seed=seed)
        asked = {"against": against, "prompt": prompt, "capability": capability}
        with ws.chat(model, **asked, drawing=drawing) as talk:
            if on_terminal:
                _talk(talk)
                return Answer(None)
            try:
                code = _answer_lines(talk, out, as_json=as_json)
            except BrokenPipeError:  # who reads has enough, as `head` does
                os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
                code = 0
            return Answer(None, code=code, is_written=True)

    in_workspace(workspace, work, as_json=as_json)


def _talk(talk: Talk) -> None:
    """Ask what is typed, until Ctrl-D, or Ctrl-C where nothing is being answered."""
    import readline  # noqa: F401 - input() then edits lines and knows the ones before

    from pipeline.verbs.chat import Commands
    from pipeline.workspace.console import open_console

    console = open_console()
    names = " and ".join(side.who.name for side in talk.sides)
    console.print(
        f"{names}; /help says what else can be done", style="dim", markup=False, highlight=False
    )
    commands = Commands(talk)
    with signals.answered():
        while True:
            try:
                line = input("> ")
            except (EOFError, KeyboardInterrupt):
                console.file.write("\n")
                return
            if line.strip() and not _answered(console, commands, line):
                return


def _answered(console: Console, commands: Commands, line: str) -> bool:
    """Do what a line says, or answer it; whether to go on."""
    from pipeline.report.chat import ask_shown

    try:
        if not line.startswith("/"):
            ask_shown(console, commands.talk, line)
            return True
        said = commands.run(line)
    except UserError as error:
        _say(console, f"gapmend: {error}", "red")
        return True
    except KeyboardInterrupt:  # a second one, while an answer is ended
        return False
    if said is False:
        return False
    _say(console, str(said), "dim")
    return True


def _say(console: Console, text: str, style: str) -> None:
    """Write a line that stays one where it is copied."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _answer_lines(talk: Talk, out: TextIO, *, as_json: bool) -> int:
    """Answer each line of stdin by itself; returns the exit code."""
    from pipeline.verbs.chat import Lines, answered

    code = 0
    for line in answered(talk, Lines(sys.stdin.fileno())):
        failed = _failed(line)
        if failed:
            code = _FAILED
        if as_json:
            out.write(json_line(line) + "\n")
        else:
            sys.stderr.write(inert("".join(f"gapmend: {one}\n" for one in failed)))
            out.write(inert("".join(f"{one}\n" for one in _plain(line))))
        out.flush()
    return code


def _failed(line: Line) -> list[str]:
    """Return why there is no answer, or none of a model that is named."""
    from pipeline.talk.reply import Failed

    if line.error is not None:
        return [line.why]
    return [f"{one.model}: {one.error}" for one in line.answers if isinstance(one, Failed)]


def _plain(line: Line) -> list[str]:
    """Return the answers as texts; of two models each with its name before it."""
    from pipeline.talk.reply import Said

    said = [one for one in line.answers if isinstance(one, Said)]
    if len(line.answers) == 1:
        return [one.text for one in said]
    return [f"{one.model}: {one.text}" for one in said]
