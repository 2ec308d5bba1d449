"""The Hub as a process of its own: `python -m tests.loopback_hub ROOT`; ends with SIGTERM.

Prints its endpoint as the first line.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
from pathlib import Path

from tests.loopback_hub.faults import Faults
from tests.loopback_hub.server import serving


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.loopback_hub", description=__doc__)
    parser.add_argument("root", type=Path, help="the folder that keeps everything")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--faults", type=float, default=0.0, help="probability for a request")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--rule", action="append", default=[], help='a fault: {"kind": "lost", "path": "/commit/"}'
    )
    parser.add_argument(
        "--token", action="append", default=[], help="user:scope:value, scope read or write"
    )
    parser.add_argument("--no-xet", action="store_true", help="give out no xet tokens")
    asked = parser.parse_args()
    faults = Faults(probability=asked.faults, seed=asked.seed)
    for rule in asked.rule:
        faults.add(**json.loads(rule))
    tokens = {}
    for text in asked.token:
        user, scope, value = text.split(":", 2)
        tokens[value] = f"{user}:{scope}"
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with serving(asked.root, faults=faults, tokens=tokens, port=asked.port) as hub:
        hub.xet = not asked.no_xet
        print(hub.endpoint, flush=True)
        ended.wait()


if __name__ == "__main__":
    main()
