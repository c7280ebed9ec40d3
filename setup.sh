#!/usr/bin/env bash
# Sets up Conch in .venv: a Python between 3.11 and 3.13, the pinned packages, the Triton server from its wheel.
# Run by `make setup`; safe to run again. Environment: PYTHON (interpreter), TORCH_INDEX (another wheel index for torch),
# RTX=1 (also TensorRT for RTX, 370 MB under NVIDIA's licence: `conch check-tensorrt`).
set -euo pipefail
cd "$(dirname "$0")"

fail() {
    printf 'setup: %s\n' "$1" >&2
    printf '  next: %s\n' "$2" >&2
    exit 2
}

usable() { # is $1 a Python that Triton's stubs know?
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

pick_python() {
    local name
    for name in ${PYTHON:-} python3.11 python3.12 python3 python3.13; do
        if usable "$name"; then
            echo "$name"
            return
        fi
    done
}

[ "$(uname -s)" = Linux ] || fail "Conch runs on Linux, this is $(uname -s)" "use a Linux machine, a container or WSL 2"
if [ -n "${PYTHON:-}" ] && ! usable "$PYTHON"; then
    fail "PYTHON=$PYTHON is not a Python 3.11, 3.12 or 3.13" "name another one, or leave PYTHON out"
fi
python=$(pick_python)
[ -n "$python" ] || fail "no Python 3.11, 3.12 or 3.13 found" \
    "install one, for example: sudo apt-get install python3.11 python3.11-venv libpython3.11, or name it: make setup PYTHON=/path/to/python3.11"

if [ ! -x .venv/bin/python ] || ! .venv/bin/python -c '' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make virtual environments" "sudo apt-get install python$version-venv"
    printf 'setup: making .venv with %s (%s)\n' "$python" "$("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
fi

printf 'setup: installing pinned packages (about 2 GB on disk; minutes on the first run)\n'
index=()
[ -z "${TORCH_INDEX:-}" ] || index=(--extra-index-url "$TORCH_INDEX")
extras=dev,bench,stream
[ -z "${RTX:-}" ] || extras=$extras,rtx
progress=off
[ -t 1 ] && progress=on
.venv/bin/python -m pip install --disable-pip-version-check --quiet --quiet --progress-bar "$progress" \
    "${index[@]}" -c constraints.txt -e ".[$extras]" ||
    fail "packages could not be installed" "read pip's message above; behind a proxy set PIP_INDEX_URL"

printf 'setup: installing the Triton server wheel\n'
.venv/bin/python -m serving.wheel
touch .venv/conch-setup
printf 'setup: done\n'
