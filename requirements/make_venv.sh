#!/bin/sh
# Make .venv with a Python that can run Safelight, or keep the one that is there if it is whole.
# $PYTHON is tried first. Called by the Makefile, from the repository's root.
set -eu

fits='import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'

if [ ! -e .venv/.unfinished ] && .venv/bin/python -c "$fits; import pip" 2>/dev/null; then
    exit 0
fi

without_venv=
for python in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
    "$python" -c "$fits" 2>/dev/null || continue
    # Debian and Ubuntu ship Python without this part.
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        without_venv=${without_venv:-$python}
        continue
    fi
    # An interrupted installation may have left half a package behind: begin again.
    rm -rf .venv
    echo "Making .venv with $("$python" --version)"
    exec "$python" -m venv .venv
done

if [ -n "$without_venv" ]; then
    package=$("$without_venv" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    echo "$without_venv cannot make a virtual environment: install it with 'apt install $package', then try again." >&2
else
    echo "Safelight needs Python 3.11, 3.12 or 3.13, and found none (tried ${PYTHON:-python3}, python3.13, python3.12," \
        "python3.11). Install one, or name it: make demo PYTHON=/path/to/python3.12" >&2
fi
exit 1
