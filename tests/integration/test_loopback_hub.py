"""The loopback Hub through the real client: every endpoint, what it refuses, what goes wrong."""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    constants,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils._xet import abort_xet_session

from tests.loopback_hub import Faults, Hub, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

# The client hands files to httpx2 in the way of requests.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

TOKENS = {"hf_me": "me:write", "hf_reads": "me:read", "hf_other": "other:write"}
CARD = "---\nlicense: mit\ntags: [lora]\n---\n# A card\n"
LARGE = random.Random(0).randbytes(11_000_000)  # in parts
SMALL = random.Random(1).randbytes(3_000)


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def _xet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Let the client use xet, with a cache of its own: a port may come twice, its chunks not."""
    pytest.importorskip("hf_xet")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setenv("HF_XET_CACHE", str(tmp_path / "xet"))
    abort_xet_session()
    yield
    abort_xet_session()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with serving(tmp_path / "hub", tokens=TOKENS) as served:
        yield served


@pytest.fixture
def api(hub: Hub) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token="hf_me")


def add(path: str, content: bytes | str) -> CommitOperationAdd:
    return CommitOperationAdd(path, content.encode() if isinstance(content, str) else content)


def status(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return int(error.value.response.status_code)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pushed"
    (made / "deep" / "er").mkdir(parents=True)
    (made / "README.md").write_text(CARD)
    (made / "deep" / "er" / "notes.txt").write_text("notes")
    (made / "small.safetensors").write_bytes(SMALL)
    (made / "large.safetensors").write_bytes(LARGE)
    return made


def test_a_folder_goes_up_and_comes_down_the_same(
    hub: Hub, api: HfApi, folder: Path, tmp_path: Path
) -> None:
    assert api.create_repo("me/model", private=True).repo_id == "me/model"
    first = hub.head("me/model")
    told = api.upload_folder(repo_id="me/model", folder_path=folder, commit_message="All of it")
    assert told.oid == hub.head("me/model")
    assert hub.repository("me/model").resolve("main").parents == [first]
    wanted = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}
    kept = hub.files("me/model")
    assert kept == wanted | {".gitattributes": kept[".gitattributes"]}
    parts = [one for one in hub.requests if one["path"].startswith("/upload/")]
    assert len(parts) == 3 + 1  # 11 MB in parts of 5 MiB, and the small one whole
    assert all(one["origin"] == "storage" and one["token"] is None for one in parts)
    assert any("complete-multipart" in one for one in hub.asked)
    assert sum("objects/verify" in one for one in hub.asked) == 2
    got = snapshot_download(
        "me/model", endpoint=hub.endpoint, token="hf_me", cache_dir=tmp_path / "cache"
    )
    assert {name: (Path(got) / name).read_bytes() for name in wanted} == wanted
    assert Path(got).name == told.oid


def test_uploading_again_sends_and_commits_nothing(hub: Hub, api: HfApi, folder: Path) -> None:
    api.create_repo("me/model")
    first = api.upload_folder(repo_id="me/model", folder_path=folder)
    before = len(hub.requests)
    again = api.upload_folder(repo_id="me/model", folder_path=folder)
    assert again.oid == first.oid == hub.head("me/model")
    assert not any("/upload/" in one or "/commit/" in one for one in hub.asked[before:])


def test_who_am_i(hub: Hub) -> None:
    told = HfApi(endpoint=hub.endpoint).whoami(token="hf_reads")
    assert (told["name"], told["auth"]["accessToken"]["role"]) == ("me", "read")
    with pytest.raises(HfHubHTTPError) as refused:
        HfApi(endpoint=hub.endpoint).whoami(token="hf_unknown")
    assert status(refused) == 401
    assert [one["token"] for one in hub.requests] == ["me-read", "unknown"]
    assert "hf_unknown" not in hub.log_file.read_text()


def test_a_repository_is_made_once_and_keeps_its_visibility(api: HfApi) -> None:
    api.create_repo("me/model")
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_repo("me/model", private=True)
    assert status(refused) == 409
    assert api.create_repo("me/model", private=True, exist_ok=True).repo_id == "me/model"
    assert api.model_info("me/model").private is False  # the trap: it stays public
    api.update_repo_settings("me/model", private=True)
    assert api.model_info("me/model").private is True
    api.create_repo("me/model", repo_type="dataset")  # another kind, another repository
    assert api.dataset_info("me/model").id == "me/model"
    api.delete_repo("me/model")
    assert not api.repo_exists("me/model")
    assert api.repo_exists("me/model", repo_type="dataset")


def test_private_looks_absent_without_the_right_token(hub: Hub, api: HfApi) -> None:
    api.create_repo("me/hidden", private=True)
    assert api.repo_exists("me/hidden", token="hf_reads")
    for token, expected in (("hf_other", 404), (False, 401)):
        seen = []
        for name in ("me/hidden", "me/absent"):
            with pytest.raises(RepositoryNotFoundError) as refused:
                api.model_info(name, token=token)
            with pytest.raises(RepositoryNotFoundError):
                hf_hub_download(name, "x", endpoint=hub.endpoint, token=token)
            answer = refused.value.response
            seen.append((answer.status_code, answer.text, answer.headers["X-Error-Code"]))
        assert seen[0] == seen[1]
        assert seen[0][0] == expected
    with pytest.raises(RepositoryNotFoundError):
        api.upload_file(
            path_or_fileobj=b"x", path_in_repo="x", repo_id="me/hidden", token="hf_other"
        )


def test_only_its_owner_with_a_write_token_writes(hub: Hub, api: HfApi) -> None:
    api.create_repo("me/model")
    for token in ("hf_reads", "hf_other"):
        for attempt in (
            lambda: api.create_commit("me/model", [add("x", "x")], commit_message="x", token=token),  # noqa: B023
            lambda: api.create_tag("me/model", tag="t", token=token),  # noqa: B023
            lambda: api.update_repo_settings("me/model", private=True, token=token),  # noqa: B023
            lambda: api.create_repo("me/another", token=token),  # noqa: B023
        ):
            with pytest.raises(HfHubHTTPError) as refused:
                attempt()
            assert status(refused) == 403
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_tag("me/model", tag="t", token=False)
    assert status(refused) == 401
    assert not hub.repository("me/model").tags
    told = api.create_commit(
        "me/model", [add("x", "x")], commit_message="x", token="hf_other", create_pr=True
    )
    assert told.pr_num == 1  # but anyone may propose
    assert "x" not in hub.files("me/model")


def test_a_gated_repository_is_seen_and_not_read(hub: Hub, api: HfApi, tmp_path: Path) -> None:
    api.create_repo("me/gated")
    api.update_repo_settings("me/gated", gated="auto")
    assert api.model_info("me/gated", token="hf_other").gated == "auto"
    with pytest.raises(GatedRepoError):
        hf_hub_download("me/gated", ".gitattributes", endpoint=hub.endpoint, token="hf_other")
    got = hf_hub_download(
        "me/gated", ".gitattributes", endpoint=hub.endpoint, token="hf_reads", cache_dir=tmp_path
    )
    assert Path(got).read_bytes() == hub.files("me/gated")[".gitattributes"]


def test_the_tree_in_pages(hub: Hub, api: HfApi) -> None:
    hub.page_size = 3
    api.create_repo("me/model")
    files = {f"a/{n}.txt": str(n).encode() for n in range(5)} | {"b/w.bin": SMALL}
    told = api.create_commit(
        "me/model", [add(path, content) for path, content in files.items()], commit_message="files"
    )
    tree = {one.path: one for one in api.list_repo_tree("me/model", recursive=True, expand=True)}
    assert set(tree) == {*files, "a", "b", ".gitattributes"}
    assert sum("/tree/" in one for one in hub.asked) == 3
    large: Any = tree["b/w.bin"]
    assert large.lfs.sha256 == hashlib.sha256(SMALL).hexdigest()
    assert large.last_commit.oid == told.oid
    attributes: Any = tree[".gitattributes"]
    assert attributes.last_commit.title == "initial commit"
    assert [one.path for one in api.list_repo_tree("me/model", "b")] == ["b/w.bin"]
    assert {one.path for one in api.list_repo_tree("me/model")} == {"a", "b", ".gitattributes"}
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree("me/model", "absent"))
    found = api.get_paths_info("me/model", ["a/1.txt", "a", "absent"], expand=True)
    assert [one.path for one in found] == ["a/1.txt", "a"]
    told_files = api.model_info("me/model", files_metadata=True).siblings or []
    assert {one.rfilename: one.size for one in told_files}["b/w.bin"] == len(SMALL)
    assert len(api.list_repo_commits("me/model")) == 2


def test_ids_are_those_of_git(hub: Hub, api: HfApi, tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    api.create_repo("me/model")
    api.create_commit("me/model", [add("a/b/c", "c"), add("a.b", "d")], commit_message="files")
    repository = hub.repository("me/model")
    commit = repository.resolve("main")
    for path, content in hub.files("me/model").items():
        (tmp_path / "git" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "git" / path).write_bytes(content)

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        where = tmp_path / "git"
        return subprocess.run(command, cwd=where, capture_output=True, text=True, check=True).stdout

    git("init", "-q")
    git("add", ".")
    tree = git("write-tree")
    assert tree.strip() == commit.tree


def test_a_commit_whose_parent_moved_is_refused(hub: Hub, api: HfApi) -> None:
    api.create_repo("me/model")
    start = hub.head("me/model")
    moved = api.create_commit("me/model", [add("a", "1")], commit_message="one")
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_commit("me/model", [add("a", "2")], commit_message="two", parent_commit=start)
    assert status(refused) == 412
    assert hub.head("me/model") == moved.oid
    api.create_commit("me/model", [add("a", "2")], commit_message="two", parent_commit=moved.oid)
    assert hub.files("me/model")["a"] == b"2"


def test_branches_tags_and_moving_main_once(hub: Hub, api: HfApi, tmp_path: Path) -> None:
    api.create_repo("me/model")
    start = hub.head("me/model")
    api.create_branch("me/model", branch="push")
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_branch("me/model", branch="push")
    assert status(refused) == 409
    api.create_branch("me/model", branch="push", exist_ok=True)
    for n in range(2):
        files = [add(f"{n}.txt", str(n)), add(f"{n}.bin", SMALL + bytes([n]))]
        api.create_commit("me/model", files, commit_message=str(n), revision="push")
    assert hub.head("me/model") == start
    # The branch's content into main, in one commit; large files are copied by the server.
    names = ["0.txt", "1.txt", "0.bin", "1.bin"]
    copies = [CommitOperationCopy(name, name, src_revision="push") for name in names]
    api.create_commit("me/model", copies, commit_message="all", parent_commit=start)
    assert hub.files("me/model") == hub.files("me/model", "push")
    assert hub.repository("me/model").resolve("main").parents == [start]
    api.create_tag("me/model", tag="v1", revision="push", tag_message="first")
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_tag("me/model", tag="v1")
    assert status(refused) == 409
    refs = api.list_repo_refs("me/model")
    assert {one.name: one.target_commit for one in refs.tags} == {"v1": hub.head("me/model", "v1")}
    assert {one.name for one in refs.branches} == {"main", "push"}
    api.delete_branch("me/model", branch="push")
    tagged = hf_hub_download(
        "me/model", "1.bin", revision="v1", endpoint=hub.endpoint, cache_dir=tmp_path
    )
    assert Path(tagged).read_bytes() == SMALL + b"\1"
    api.delete_tag("me/model", tag="v1")
    for revision in ("push", "v1", "0" * 40):
        with pytest.raises(RevisionNotFoundError):
            api.model_info("me/model", revision=revision)
    with pytest.raises(HfHubHTTPError):
        api.delete_branch("me/model", branch="main")
    api.super_squash_history("me/model")
    assert len(api.list_repo_commits("me/model")) == 1


def test_a_pull_request_is_merged_in_one_commit(hub: Hub, api: HfApi) -> None:
    api.create_repo("me/model")
    start = hub.head("me/model")
    opened = api.create_pull_request("me/model", title="Push")
    assert (opened.status, opened.git_reference) == ("draft", "refs/pr/1")
    for n in range(2):
        api.create_commit(
            "me/model", [add(f"{n}", "x")], commit_message=str(n), revision="refs/pr/1"
        )
    with pytest.raises(BadRequestError):
        api.merge_pull_request("me/model", 1)  # still a draft
    api.change_discussion_status("me/model", 1, "open")
    assert hub.head("me/model") == start
    api.merge_pull_request("me/model", 1)
    merged = api.get_discussion_details("me/model", 1)
    assert (merged.status, merged.merge_commit_oid) == ("merged", hub.head("me/model"))
    assert hub.repository("me/model").resolve("main").parents == [start]
    assert {"0", "1"} <= set(hub.files("me/model"))
    refs = api.list_repo_refs("me/model", include_pull_requests=True).pull_requests or []
    assert [one.ref for one in refs] == ["refs/pr/1"]


def test_a_pull_request_that_conflicts_is_not_merged(hub: Hub, api: HfApi) -> None:
    api.create_repo("me/model")
    told = api.create_commit("me/model", [add("a", "1")], commit_message="pr", create_pr=True)
    api.create_commit("me/model", [add("a", "2")], commit_message="main")
    assert told.pr_revision == "refs/pr/1"
    assert api.get_discussion_details("me/model", 1).conflicting_files == ["a"]
    with pytest.raises(HfHubHTTPError) as refused:
        api.merge_pull_request("me/model", 1)
    assert status(refused) == 409
    assert hub.files("me/model")["a"] == b"2"
    assert [one.num for one in api.get_repo_discussions("me/model")] == [1]


def test_files_are_deleted(hub: Hub, api: HfApi) -> None:
    api.create_repo("me/model")
    api.create_commit("me/model", [add("a/x", "1"), add("b", "2")], commit_message="files")
    gone = [CommitOperationDelete("a/"), CommitOperationDelete("b")]
    api.create_commit("me/model", gone, commit_message="gone")
    assert set(hub.files("me/model")) == {".gitattributes"}
    with pytest.raises(EntryNotFoundError):
        api.create_commit("me/model", [CommitOperationDelete("b")], commit_message="again")


def test_large_files_are_redirected_without_the_token(hub: Hub, api: HfApi, tmp_path: Path) -> None:
    api.create_repo("me/model", private=True)
    told = api.create_commit(
        "me/model", [add("w.bin", SMALL), add("t.txt", "text")], commit_message="x"
    )
    got = hf_hub_download(
        "me/model", "w.bin", endpoint=hub.endpoint, token="hf_me", cache_dir=tmp_path
    )
    assert Path(got).read_bytes() == SMALL
    head, fetched = hub.requests[-2:]
    assert (head["method"], head["status"], head["token"]) == ("HEAD", 302, "me-write")
    assert (fetched["origin"], fetched["status"], fetched["token"]) == ("storage", 200, None)
    with httpx2.Client(headers={"Authorization": "Bearer hf_me"}) as client:
        where = f"{hub.endpoint}/me/model/resolve/main"
        answer = client.head(f"{where}/w.bin")
        sha256 = hashlib.sha256(SMALL).hexdigest()
        named = ("X-Repo-Commit", "X-Linked-ETag", "X-Linked-Size")
        assert [answer.headers[key] for key in named] == [told.oid, f'"{sha256}"', "3000"]
        for range_, wanted in (("0-0", SMALL[:1]), ("10-19", SMALL[10:20]), ("-5", SMALL[-5:])):
            part = client.get(
                f"{where}/w.bin", headers={"Range": f"bytes={range_}"}, follow_redirects=True
            )
            assert (part.status_code, part.content) == (206, wanted)
        beyond = client.get(f"{where}/t.txt", headers={"Range": "bytes=9-"})
        assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, "bytes */4")
        there = client.get(answer.headers["Location"])
        assert (there.status_code, there.json()["error"]) == (
            400,
            "Only one auth mechanism allowed",
        )
        missing = client.head(f"{where}/absent")
        assert missing.headers["X-Error-Code"] == "EntryNotFound"
        assert missing.headers["X-Repo-Commit"] == told.oid
        raw = client.get(f"{hub.endpoint}/me/model/raw/main/w.bin")
        assert f"oid sha256:{sha256}" in raw.text
    forged = answer.headers["Location"].replace(sha256, "0" * 64)
    assert httpx2.get(forged).status_code == 403


@pytest.mark.parametrize("path", ["../x", "/x", "a/../x", "a//x", ".git/config", "a\0b", "."])
def test_a_path_that_escapes_is_refused(hub: Hub, api: HfApi, path: str) -> None:
    api.create_repo("me/model")
    answer = send_commit(hub, {"path": path, "content": "eA==", "encoding": "base64"}, "file")
    assert answer.status_code == 400
    assert set(hub.files("me/model")) == {".gitattributes"}


def send_commit(hub: Hub, value: dict[str, Any], key: str) -> httpx2.Response:
    lines = [{"key": "header", "value": {"summary": "x"}}, {"key": key, "value": value}]
    return httpx2.post(
        f"{hub.endpoint}/api/models/me/model/commit/main",
        content="\n".join(json.dumps(line) for line in lines),
        headers={"Authorization": "Bearer hf_me", "Content-Type": "application/x-ndjson"},
    )


def test_what_was_not_uploaded_is_not_committed(hub: Hub, api: HfApi) -> None:
    api.create_repo("me/model")
    oid = hashlib.sha256(SMALL).hexdigest()
    pointer = {"path": "w.bin", "algo": "sha256", "oid": oid, "size": len(SMALL)}
    assert send_commit(hub, pointer, "lfsFile").status_code == 400
    api.create_repo("me/other")
    api.create_commit("me/other", [add("w.bin", SMALL)], commit_message="x")
    assert send_commit(hub, pointer, "lfsFile").status_code == 400  # uploaded elsewhere
    api.preupload_lfs_files("me/model", [add("w.bin", SMALL)])
    assert send_commit(hub, pointer | {"size": 1}, "lfsFile").status_code == 400
    kept = [one for one in hub.contents() if one.revision == "uncommitted"]
    assert SMALL not in {one.content for one in kept}  # the other repository committed them
    assert send_commit(hub, pointer, "lfsFile").status_code == 200
    as_text = {"path": "x.bin", "content": "AAE=", "encoding": "base64"}
    assert send_commit(hub, as_text, "file").status_code == 400  # belongs to LFS


@pytest.mark.parametrize("size", [3_000, 11_000_000])
def test_other_bytes_than_announced_are_refused(hub: Hub, api: HfApi, size: int) -> None:
    api.create_repo("me/model")
    oid = hashlib.sha256(b"another").hexdigest()
    asked = {
        "operation": "upload",
        "transfers": ["basic", "multipart"],
        "objects": [{"oid": oid, "size": size}],
    }
    token = {"Authorization": "Bearer hf_me"}
    where = f"{hub.endpoint}/me/model.git/info/lfs/objects"
    told = httpx2.post(f"{where}/batch", json=asked, headers=token).json()["objects"][0]
    upload = told["actions"]["upload"]
    assert httpx2.put(upload["href"], content=b"short").status_code in {400, 404, 405}
    if size == len(SMALL):
        assert httpx2.put(upload["href"], content=SMALL).status_code == 400
    else:
        header, part = upload["header"], int(upload["header"]["chunk_size"])
        urls = [header[key] for key in sorted(header) if key.isdigit()]
        assert httpx2.put(urls[0], content=LARGE[:100]).status_code == 400
        tags = []
        for n, url in enumerate(urls):
            sent = httpx2.put(url, content=LARGE[n * part : (n + 1) * part])
            tags.append({"partNumber": n + 1, "etag": sent.headers["ETag"]})
        wrong = [{**tags[0], "etag": '"0"'}, *tags[1:]]
        for parts, why in ((tags[:-1], "parts"), (wrong, "parts"), (tags, "SHA-256")):
            done = httpx2.post(upload["href"], json={"oid": oid, "parts": parts})
            assert (done.status_code, why in done.json()["error"]) == (400, True)
    checked = httpx2.post(f"{where}/verify", json={"oid": oid, "size": size}, headers=token)
    assert checked.status_code == 404
    assert hub.repository("me/model").uploaded == {}


def test_a_card_with_broken_metadata_is_refused(hub: Hub, api: HfApi) -> None:
    api.create_repo("me/model")
    with pytest.raises(ValueError, match="base_model_relation"):
        api.create_commit(
            "me/model", [add("README.md", "---\nbase_model_relation: x\n---\n")], commit_message="x"
        )
    broken = {"path": "README.md", "content": "---\ntags: [1]\n---\n"}
    assert send_commit(hub, broken, "file").status_code == 400
    api.create_commit("me/model", [add("README.md", CARD)], commit_message="x")
    card: Any = api.model_info("me/model").card_data
    assert (card.license, card.tags) == ("mit", ["lora"])


def test_statuses_are_retried(hub: Hub, api: HfApi) -> None:
    api.create_repo("me/model")
    hub.faults.add("status", "POST", "/preupload/", status=503)
    hub.faults.add("status", "PUT", "/upload/", status=429, retry_after=0)
    hub.faults.add("drop", "POST", "/batch")
    api.create_commit("me/model", [add("w.bin", SMALL)], commit_message="x")
    assert hub.files("me/model")["w.bin"] == SMALL
    faults = [(one["fault"], one["status"]) for one in hub.requests if "fault" in one]
    assert faults == [("status 503", 503), ("drop", None), ("status 429", 429)]


def test_a_commit_whose_answer_is_lost_was_carried_out(hub: Hub, api: HfApi) -> None:
    api.create_repo("me/model")
    hub.faults.add("lost", "POST", "/commit/")
    start = hub.head("me/model")
    with pytest.raises(httpx2.TransportError):
        api.create_commit("me/model", [add("a", "1")], commit_message="x", parent_commit=start)
    assert hub.files("me/model")["a"] == b"1"
    hub.faults.add("drop", "POST", "/commit/")
    with pytest.raises(httpx2.TransportError):
        api.create_commit("me/model", [add("a", "2")], commit_message="x")
    assert hub.files("me/model")["a"] == b"1"  # dropped before it was done


def test_a_download_that_breaks_off_goes_on(hub: Hub, tmp_path: Path) -> None:
    wanted = LARGE * 2  # half of it is more than the 10 MiB that the client writes at once
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "w.bin").write_bytes(wanted)
    hub.add_folder("me/model", tmp_path / "made")
    hub.faults.add("cut", "GET", "/cdn/")
    got = hf_hub_download("me/model", "w.bin", endpoint=hub.endpoint, cache_dir=tmp_path / "c")
    assert Path(got).read_bytes() == wanted
    first, second = [one for one in hub.requests if "/cdn/" in one["path"]]
    assert first["fault"] == "cut"
    assert second["headers"]["range"] == f"bytes={10 << 20}-"
    assert second["status"] == 206


def test_the_same_seed_draws_the_same_faults() -> None:
    drawn = [
        [str(faults.draw("GET", "/")) for _ in range(200)]
        for faults in (Faults(probability=0.3, seed=1), Faults(probability=0.3, seed=1))
    ]
    assert drawn[0] == drawn[1]
    assert 40 < sum(one != "None" for one in drawn[0]) < 80
    assert len(set(drawn[0])) == 9  # each kind, and none
    rules = Faults()
    rules.add("drop", "GET", "/x$", count=2, skip=1)
    assert [str(rules.draw("GET", "/x")) for _ in range(4)] == ["None", "drop", "drop", "None"]
    assert rules.draw("POST", "/x") is None


def test_everything_kept_is_found_again_after_the_server(tmp_path: Path) -> None:
    with serving(tmp_path, tokens=TOKENS) as hub:
        api = HfApi(endpoint=hub.endpoint, token="hf_me")
        api.create_repo("me/data", repo_type="dataset", private=True)
        data = "dataset"
        api.create_commit("me/data", [add("a", "planted")], commit_message="m", repo_type=data)
        api.create_commit("me/data", [add("a", "b")], commit_message="said", repo_type=data)
        api.preupload_lfs_files("me/data", [add("w.bin", SMALL)], repo_type=data)
        api.create_tag("me/data", tag="t", tag_message="of a tag", repo_type=data)
        api.create_discussion("me/data", "asked", description="why", repo_type=data)
    again = Hub(tmp_path)
    found = {(one.repo, one.path): one.content for one in again.contents() if one.path != "a"}
    assert found["me/data", f"blobs/{hashlib.sha256(SMALL).hexdigest()}"] == SMALL
    of_a = [one.content for one in again.contents() if one.path == "a"]
    assert of_a == [b"planted", b"b"]
    said = "\n".join(text for _, _, text in again.texts())
    assert all(text in said for text in ("said", "of a tag", "asked", "why"))
    for file in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert not any(token.encode() in file.read_bytes() for token in TOKENS)
    with serving(tmp_path) as later:
        info = HfApi(endpoint=later.endpoint, token="hf_reads").dataset_info("me/data")
        assert (info.private, info.sha) == (True, again.head("me/data", kind="dataset"))


@pytest.mark.usefixtures("_xet")
def test_xet_reaches_the_same_bytes(hub: Hub, api: HfApi, folder: Path, tmp_path: Path) -> None:
    zeros = bytes(200_000) + SMALL  # packs well: LZ4
    floats = b"".join(bytes([n % 251, n % 7, 1, 63]) for n in range(60_000))  # by four
    (folder / "zeros.bin").write_bytes(zeros)
    (folder / "floats.bin").write_bytes(floats)
    api.create_repo("me/model")
    api.upload_folder(repo_id="me/model", folder_path=folder)
    kept = hub.files("me/model")
    assert (kept["large.safetensors"], kept["zeros.bin"]) == (LARGE, zeros)
    assert kept["floats.bin"] == floats
    assert any(one.startswith("POST /v1/xorbs/") for one in hub.asked)
    assert not any("/upload/" in one or "/batch" in one for one in hub.asked)
    got = snapshot_download("me/model", endpoint=hub.endpoint, token="hf_me", cache_dir=tmp_path)
    assert {path: (Path(got) / path).read_bytes() for path in kept} == kept
    for path in ("/v2/reconstructions/", "/xorb/"):
        assert any(path in one for one in hub.asked)
    assert not any("/cdn/" in one for one in hub.asked)


@pytest.mark.usefixtures("_xet")
def test_with_xet_a_folder_is_committed_again_after_a_lost_answer(
    hub: Hub, api: HfApi, tmp_path: Path
) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "w.bin").write_bytes(SMALL)
    api.create_repo("me/model")
    start = hub.head("me/model")
    hub.faults.add("lost", "POST", "/commit/")
    with pytest.raises(HfHubHTTPError) as refused:
        api.upload_folder(repo_id="me/model", folder_path=tmp_path / "made", parent_commit=start)
    assert status(refused) == 412  # by its own first attempt
    assert hub.files("me/model")["w.bin"] == SMALL
    told = api.upload_folder(
        repo_id="me/model", folder_path=tmp_path / "made", path_in_repo="in", create_pr=True
    )
    assert told.pr_num == 1
    assert hub.files("me/model", "refs/pr/1")["in/w.bin"] == SMALL


@pytest.mark.usefixtures("_xet")
def test_other_bytes_than_announced_are_refused_by_xet_too(hub: Hub, api: HfApi) -> None:
    api.create_repo("me/model")
    file = add("w.bin", SMALL)
    file.upload_info.sha256 = bytes(32)
    with pytest.raises(Exception, match="400"):
        api.create_commit("me/model", [file], commit_message="x")
    assert any(one.startswith("POST /v1/shards") for one in hub.asked)
    assert hub.repository("me/model").uploaded == {}


@pytest.mark.usefixtures("_xet")
def test_without_xet_on_the_server_the_client_fails_and_says_so(hub: Hub, api: HfApi) -> None:
    hub.xet = False
    api.create_repo("me/model")
    with pytest.raises(Exception, match="404"):
        api.create_commit("me/model", [add("w.bin", SMALL)], commit_message="x")
    # Only what has no path or bytes to hand over goes the old way by itself.
    file = CommitOperationAdd("w.bin", io.BytesIO(SMALL))
    api.create_commit("me/model", [file], commit_message="x")
    assert hub.files("me/model")["w.bin"] == SMALL
