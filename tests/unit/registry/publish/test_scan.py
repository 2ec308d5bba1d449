"""Nothing secret leaves: the scan finds what is planted, wherever it is planted."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from registry.errors import UserError
from registry.models.base import nano_folder
from registry.publish.secrets import refuse_secrets, scan_files

HUB = "hf_" + "abcdefghijKLMNOPQRST"
AWS = "AKIA" + "IOSFODNN7EXAMPLA"
GITHUB = "ghp_" + "wWPw5k4aXcaT4fNP0UcnZwJUVFk6LO0pINUx"
KEY = "-----BEGIN " + "RSA PRIVATE KEY-----"


FORTY = "wJalrXUtnFEMIK7MDENGbPxRfiCYzEXAMPLEKEY0"
MIXED = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6"
PATH = "a path of some machine"
HERE = Path(__file__).resolve().parents[4]


def kinds(name: str, content: Path | bytes, *private: str) -> list[str]:
    return [finding.kind for finding in scan_files([(name, content)], private)]


@pytest.mark.parametrize("secret", [HUB, AWS, GITHUB, KEY])
def test_a_secret_is_found_in_text(secret: str) -> None:
    assert kinds("README.md", f"# A card\n\nuse {secret}\n".encode())
    assert not kinds("README.md", b"# A card\n\nuse nothing\n")


@pytest.mark.parametrize(
    "secret",
    [
        "github_" + "pat_11ABCDEFG0abcdefghijklmnop",
        "AI" + "zaSyA1234567890abcdefghijklmnopqrstuv",
        "sk-" + "ant-api03-abcdefghijklmnopqrstuvwxyz",
        "sk-" + "proj-abcdefghijklmnopqrstuvwxyz",
        "gs" + "k_abcdefghijklmnopqrstuvwxyz",
        "api_" + "org_abcdefghijklmnopqrstuvwxyz",
        "TOKEN_" + HUB,
        "aws_secret_access_key = " + "a1B2" * 10,
        "Authorization: Bearer " + "abcdefghijklmnop.qrstuv",
    ],
)
def test_keys_of_today_are_found(secret: str) -> None:
    assert kinds("README.md", f"ask `{secret}`\n".encode())


@pytest.mark.parametrize(
    "text",
    [
        *("`/home/alice/x`", "[/home/a]", ">/home/a", "{/home/a}", "|/srv/a", ";/Users/a"),
        *("file:///home/alice", "/var/lib/x", "/opt/models", "/data/x"),
        *("C:\\Users\\me", r"\\corp\share\x"),
    ],
)
def test_a_path_is_found_however_it_stands(text: str) -> None:
    assert kinds("README.md", text.encode()) == ["a path of some machine"]


@pytest.mark.parametrize(
    "text",
    ["https://huggingface.co/data/x", "a and/or b", "either/data/or", "data/train.parquet", "//"],
)
def test_what_is_no_path_is_let_be(text: str) -> None:
    assert not kinds("README.md", text.encode())


def test_the_built_in_base_is_clean() -> None:
    files = [(path.name, path) for path in sorted(nano_folder().iterdir()) if path.is_file()]
    assert not scan_files([one for one in files if one[0].endswith((".json", ".jinja"))], ())


@pytest.mark.parametrize(
    ("secret", "kind"),
    [
        ("TOKEN_" + HUB, "a Hugging Face token"),
        ("api_org_" + MIXED, "a Hugging Face token"),
        ("github_pat_" + "11ABCDEFG0" + MIXED + "_" + MIXED, "a GitHub token"),
        ("glpat-" + MIXED[:20], "a GitLab token"),
        ("AIza" + "SyD" + MIXED, "a Google key"),
        ("sk-" + "ant-api03-" + MIXED, "an OpenAI or Anthropic key"),
        ("sk-" + "proj-" + "_-".join([MIXED[:12]] * 4), "an OpenAI or Anthropic key"),
        ("sk-" + MIXED, "an OpenAI key"),
        ("sk-" + "team-" + "-".join([MIXED[:9]] * 4), "an OpenAI key"),
        ("gsk_" + MIXED, "a Groq key"),
        ("xai-" + MIXED, "an xAI key"),
        ("xoxb-" + "123456789012-" + MIXED, "a Slack token"),
        ("xapp-" + "1-A0B1C2D3-" + MIXED, "a Slack token"),
        ("sk_" + "live_" + MIXED[:24], "a Stripe key"),
        ("SG." + MIXED[:22] + "." + FORTY + "abc", "a SendGrid key"),
        ("npm_" + MIXED + "abcd", "an npm token"),
        ("aws_secret_access_key = " + FORTY, "an AWS secret key"),
        ("AWS_SECRET_ACCESS_KEY: '" + FORTY + "'", "an AWS secret key"),
        ("curl -H 'Authorization: Bearer " + MIXED + "'", "an authorization header"),
    ],
)
@pytest.mark.parametrize("name", ["README.md", "config.json"])
def test_our_own_forms_are_found(name: str, secret: str, kind: str) -> None:
    text = json.dumps({"text": f"a line\n{secret}"}) if name == "config.json" else f"x {secret}\n"
    assert kind in kinds(name, text.encode())


def test_a_secret_as_the_value_of_its_key_is_found() -> None:
    text = json.dumps({"env": {"aws_secret_access_key": FORTY}, "Authorization": f"Bearer {MIXED}"})
    assert kinds("a.json", text.encode()) == ["an AWS secret key", "an authorization header"]


@pytest.mark.parametrize(
    "text",
    [
        "risk-averse-behaviour-of-2024-customers and task-2024-ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "sk-estimator-doc-link and convert_hf_to_gguf_update.py, the hf_hub_download_function",
        "Authorization: Bearer $HF_TOKEN or Authorization: Bearer YOUR_ACCESS_TOKEN",
        "aws_secret_access_key = <the secret>",
        "the answer is in https://huggingface.co/data/x and http://host/tmp/y, s3://bucket/opt/z",
        "train: ../quickstart/data/jobs/a.jsonl, data/train.parquet, ./tmp/x, a/srv/b, **/data/*",
        "and/or, /data, 1/tmp/2 and \\n\\n, '\\\\n\\\\n' or x \\\\ \\hline",
        "{{ '<|im_start|>' + role + '\\n' + content | trim + '<|im_end|>\\n' }}",
    ],
)
def test_what_only_looks_like_one_is_left_alone(text: str) -> None:
    assert not kinds("README.md", text.encode())
    assert not kinds("a.json", json.dumps({"text": text}).encode())


@pytest.mark.parametrize("front", ["", " ", "`", "[", ">", "{", "|", ";", "file://", "在", "a\n"])
@pytest.mark.parametrize(
    "path",
    ["/home/me", "/var/lib/me", "/opt/me", "/data/me", "/tmp/me", "/srv/me", r"\\corp\share"],  # noqa: S108
)
def test_a_path_is_found_after(front: str, path: str) -> None:
    assert kinds("README.md", f"{front}{path}/x".encode()) == [PATH]
    assert kinds("a.json", json.dumps({"chat_template": f"{front}{path}/x"}).encode()) == [PATH]


def test_what_we_ship_is_clean() -> None:
    nano, examples = HERE / "registry" / "nano", HERE / "examples"
    files = [path for path in nano.iterdir() if path.is_file()]
    files += [*examples.glob("*/*.yaml"), *examples.glob("*/*.py")]
    files += examples.glob("*/data/*/dev.jsonl")
    assert {"tokenizer.json", "chat_template.jinja", "model.safetensors"} <= {p.name for p in files}
    assert scan_files([(path.name, path) for path in files], ()) == []


def test_an_allow_comment_does_not_hide_it() -> None:
    assert kinds("README.md", f"x = {GITHUB}  # pragma: allowlist secret".encode())


def test_an_escaped_path_is_found() -> None:
    assert kinds("config.json", rb'{"a": "\/home\/me\/model"}') == ["a path of some machine"]


def test_a_private_text_is_found() -> None:
    assert kinds("README.md", b"made in /mine/here", "/mine/here") == [
        "a path or token of this machine"
    ]


def test_a_long_line_is_looked_through_to_its_end() -> None:
    text = "x " * 100_000 + GITHUB
    assert kinds("tokenizer.json", text.encode())


def test_a_secret_on_the_cut_of_a_long_line_is_found() -> None:
    for shift in range(0, 60, 7):
        text = " " * ((1 << 16) - 20 - shift) + GITHUB + " " * 1000
        assert kinds("tokenizer.json", text.encode()), shift


def test_a_header_is_read(tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": {"format": "pt", "from": HUB}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    assert kinds("model.safetensors", path) == ["a Hugging Face token"]


def test_compressed_rows_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    halves = [f"this is {AWS[:10]} and " * 9, f"that is {AWS[10:]} and " * 9]  # what zstd refers to
    table = pa.table({"text": [*halves, f"my key is {AWS}"]})
    pq.write_table(table, path, compression="zstd", write_statistics=False)
    assert AWS.encode() not in path.read_bytes()
    (found,) = scan_files([("data/train.parquet", path)], ())
    assert (found.file, found.line) == ("data/train.parquet", 3)


def test_a_secret_on_a_new_line_of_a_row_is_found(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"text": [f"my token:\n{HUB}"], "n": [1]}), path)
    assert kinds("data/train.parquet", path) == ["a Hugging Face token"]


def test_rows_may_speak_of_folders(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"text": ["cd /home/alice"]}), path)
    assert not kinds("data/train.parquet", path)


def test_the_refusal_names_places_and_not_the_secret() -> None:
    with pytest.raises(UserError) as raised:
        refuse_secrets(scan_files([("README.md", f"a\nb {HUB}\n".encode())], ()))
    assert "README.md:2: a Hugging Face token" in str(raised.value)
    assert HUB not in str(raised.value)
