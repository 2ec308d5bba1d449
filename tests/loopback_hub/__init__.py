"""A Hugging Face Hub on the loopback device, for tests: real HTTP, real history, strict.

    with serving(tmp_path, tokens={"hf_x": "me:write"}) as hub:   # or, as a process of its own:
        ...                                       # python -m tests.loopback_hub ROOT --faults 0.3

`hub.endpoint` is what clients get as HF_ENDPOINT. Everything is kept in the folder, so that
`Hub(root)` reads it after the server is gone: `files`, `head`, `contents` (every byte kept),
`texts` (messages and comments), `requests` (the log). `hub.faults` says what goes wrong.

README.md, beside this file, says what it speaks, where it is as strict as the Hub, what goes wrong
on purpose, and how it is held to the real clients.
"""

from tests.loopback_hub.faults import Fault, Faults, Rule
from tests.loopback_hub.hub import Hub, Stored
from tests.loopback_hub.server import serving

__all__ = ["Fault", "Faults", "Hub", "Rule", "Stored", "serving"]
