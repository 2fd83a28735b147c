#!/usr/bin/env bash
# Folders with released frameworks for tests/adapters: .venv-adapters/NAME-VERSION, and .venv-adapters/needs with what
# they import beside .venv. A test puts two of them before .venv's own packages.
set -eu
to=${TO:-.venv-adapters}
pip=(.venv/bin/python -m pip --disable-pip-version-check install -q --no-deps --no-compile --upgrade)
if ! [ -e "$to/needs/.installed" ]; then
    echo "adapters: making $to/needs with what the frameworks import (2 minutes)"
    rm -rf "$to/needs"
    # deepspeed and antlr4 have no wheel: torch and setuptools of .venv build them, without kernels.
    DS_BUILD_OPS=0 "${pip[@]}" --no-build-isolation --target "$to/needs" -r tests/adapters/requirements.txt
    touch "$to/needs/.installed"
fi
for release in "$@"; do
    [ -e "$to/$release/.installed" ] && continue
    echo "adapters: making $to/$release"
    rm -rf "${to:?}/$release"
    # SkyRL 0.4.0 asks for Python 3.12; what the tests use of it runs on 3.11 too.
    "${pip[@]}" --no-build-isolation --ignore-requires-python --target "$to/$release" "${release%-*}==${release##*-}"
    touch "$to/$release/.installed"
done
