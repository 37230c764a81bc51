#!/bin/sh
# Installs kosoku, which runs Autobahn's own case files, into a virtual environment, and
# compares its verdicts with the suite's. The arguments go to main.go: -short leaves out
# the long messages of groups 12 and 13, -only server/ws runs a part.
set -eu
cd "$(dirname "$0")/../../.."
venv=${AUTOBAHN_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/noria/kosoku-0.1.0}
if ! "$venv/bin/python" -c 'import kosoku' 2>/dev/null; then
	python3 -m venv "$venv"
	"$venv/bin/pip" install --quiet --disable-pip-version-check kosoku==0.1.0
fi
exec go run ./conformance/websocket/autobahn -python "$venv/bin/python" "$@"
