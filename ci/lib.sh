# Sourced by the commands in ci/: goes to the repository's root and makes virtual environments.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export MPLBACKEND=Agg PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

heading() { printf '\n==== %s\n' "$*"; }

# The first Python that is 3.11 or newer; PYTHON=/path/to/python overrides the search. Inside a virtual
# environment, the interpreter that it was made from: the environment may be one that is made anew.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3 python; do
        if "$candidate" - 2>/dev/null <<'PY'; then
import sys, venv

if sys.version_info < (3, 11):
    sys.exit(1)
print(getattr(sys, "_base_executable", sys.executable))
PY
            return
        fi
    done
    echo "xappa needs Python 3.11 or newer, and none was found (looked for python3.11, python3.12," \
        "python3.13, python3). Install one, or set PYTHON=/path/to/python." >&2
    return 1
}

# What an environment depends on: the requirements, not the settings of ruff or pytest.
requirements_hash() { # python extras
    "$1" - "$2" <<'PY'
import hashlib, json, pathlib, sys, tomllib

pyproject = tomllib.loads(pathlib.Path("pyproject.toml").read_text())
constraints = pathlib.Path("ci/constraints.txt").read_text()
parts = [pyproject["build-system"], pyproject["project"], constraints]
parts += [sys.argv[1], sys.version, str(pathlib.Path.cwd())]
print(hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest())
PY
}

# Make .venv/NAME with xappa[EXTRAS], editable, unless it is there and up to date; then put it first on PATH.
use_environment() { # name extras
    local env=.venv/$1 extras=$2 python wanted
    python=$(find_python)
    wanted=$(requirements_hash "$python" "$extras")
    if [ "$(cat "$env/requirements.sha256" 2>/dev/null)" != "$wanted" ]; then
        heading "environment $env: xappa[$extras] for $("$python" --version)"
        rm -rf "$env"
        if "$python" -c 'import ensurepip' 2>/dev/null; then
            "$python" -m venv "$env"
        else # Debian ships venv without ensurepip
            "$python" -m venv --without-pip "$env"
            "$python" -m pip --python "$env/bin/python" install --quiet pip
        fi
        "$env/bin/python" -m pip install -qq -c ci/constraints.txt -e ".[$extras]"
        printf '%s\n' "$wanted" >"$env/requirements.sha256"
    fi
    export VIRTUAL_ENV=$PWD/$env PATH=$PWD/$env/bin:$PATH
    hash -r
}
