"""A Hugging Face Hub on the loopback device, for tests: real HTTP, real history, strict.

    with serving(tmp_path, tokens={"hf_x": "me:write"}) as hub:   # or, as a process of its own:
        ...                                       # python -m tests.loopback_hub ROOT --faults 0.3

`hub.endpoint` is what clients get as HF_ENDPOINT. Everything is kept in the folder, so that
`Hub(root)` reads it after the server is gone: `files`, `head`, `contents` (every byte kept),
`texts` (messages and comments), `requests` (the log). `hub.faults` says what goes wrong.

**As on the Hub.** A new repository has one commit with `.gitattributes`. Absent and private look
the same: 404 to another's token, 401 without one, both RepoNotFound. A token of scope read, or of
another user, gets 403; anyone may open a pull request. `create_repo` of what is there is 409 and
changes nothing, its visibility neither. Large files lie on a second origin, with signed addresses,
where a token is refused (400). What was uploaded to one repository is unknown in another. A
commit's `parentCommit` that isn't the branch's head is 412. Bytes of another SHA-256 or size than
announced are refused, as are LFS pointers to what was never uploaded, paths that leave the
repository, cards with broken metadata, and bodies without Content-Length.

**Moving main once.** Three ways, each one commit on `main`: `preupload_lfs_files` and then one
`create_commit(parent_commit=...)`; commits on a branch, then `create_commit` with a
`CommitOperationCopy(..., src_revision=branch)` for each file (large files are not sent again, small
ones are); commits on `refs/pr/N`, then `change_discussion_status(N, "open")` (a request opened by
program is a draft) and `merge_pull_request(N)`, which squashes. The npm client can also set a
branch: `createBranch({branch: "main", revision, overwrite: true})`; huggingface_hub can't.

**Retries of huggingface_hub 2.4.** Preupload, LFS batch, parts, completion and verify are retried
(5 times, after 1, 2, 4, 8, 8 s; after 429 Retry-After and 1 s more). The commit of `create_commit`
is not, nor are create_repo, settings, branches, tags and merges. With xet on, `upload_folder` sends
its commit again after a lost answer (with `parent_commit` that is then 412), and above some 250
files or 100 MB of small ones it makes several commits.

**xet.** With hf_xet installed and HF_HUB_DISABLE_XET unset, huggingface_hub never asks the LFS
endpoints: it gets a token from `xet-write-token` and uploads xorbs and shards. There is no fallback
on its side: where the Hub has no such token (`hub.xet = False`, `--no-xet`) a commit with large
files fails with that 404; only files given as open file objects go by LFS even then. So it is
served here, for hf_xet and for the npm client: xorbs, shards, reconstructions. A file is put
together when its shard comes, compared with its SHA-256, and is an LFS object like any other. Xet's
own hashes are not computed again, and no chunk is offered for reuse from other files. Files that
came by xet are also downloaded by it (X-Xet-Hash), others by redirect alone. npm falls back to LFS
by itself when the batch endpoint doesn't choose xet.

**Not there**: spaces, organisations, collections, webhooks, resource groups, moving repositories,
copies of large files between repositories, search.
"""

from tests.loopback_hub.faults import Fault, Faults, Rule
from tests.loopback_hub.hub import Hub, Stored
from tests.loopback_hub.server import serving

__all__ = ["Fault", "Faults", "Hub", "Rule", "Stored", "serving"]
