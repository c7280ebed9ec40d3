#!/usr/bin/env bash
# Makes .venv-flower: Flower and numpy, which is all that federated clients and their server need. Flower wants older
# typer, rich and packaging than Conch, hence an environment of its own; Python is that of .venv. Run by
# `make setup-flower` after `make setup`; safe to run again.
set -euo pipefail
cd "$(dirname "$0")"

fail() {
    printf 'setup-flower: %s\n' "$1" >&2
    printf '  next: %s\n' "$2" >&2
    exit 2
}

[ -x .venv/bin/python ] || fail "no .venv" "run \`make setup\` first"
if [ ! -x .venv-flower/bin/python ] || ! .venv-flower/bin/python -c '' 2>/dev/null; then
    rm -rf .venv-flower
    .venv/bin/python -c 'import sys; print(sys._base_executable)' | {
        read -r python
        "$python" -m venv .venv-flower
    }
fi
.venv-flower/bin/python -m pip install --disable-pip-version-check --quiet --quiet -r training/federated/requirements.txt ||
    fail "packages could not be installed" "read pip's message above; behind a proxy set PIP_INDEX_URL"
.venv-flower/bin/python -c 'import flwr; print("setup-flower: Flower", flwr.__version__)'
