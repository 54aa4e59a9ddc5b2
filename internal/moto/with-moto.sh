#!/usr/bin/env bash
# Run a command beside moto, an emulator of AWS, and end with its status:
#
#	internal/moto/with-moto.sh go test -race ./...
#
# The AWS SDK of the command finds moto through the environment. moto is
# installed into .venv at the root of the repository when it is missing.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=$here/../../.venv
stamp=$venv/.requirements.txt
if ! cmp -s "$here/requirements.txt" "$stamp"; then
	python3 -m venv "$venv"
	"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
	cp "$here/requirements.txt" "$stamp"
fi

scratch=$(mktemp -d)
"$venv/bin/python" "$here/serve.py" >"$scratch/url" 2>"$scratch/log" &
moto=$!
finish() {
	kill "$moto" 2>/dev/null || true
	wait "$moto" 2>/dev/null || true
	rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

for _ in $(seq 300); do
	[ -s "$scratch/url" ] && break
	kill -0 "$moto" 2>/dev/null || break
	sleep 0.1
done
if [ ! -s "$scratch/url" ]; then
	echo "with-moto.sh: moto did not start:" >&2
	cat "$scratch/log" >&2
	exit 1
fi

AWS_ENDPOINT_URL_SECRETS_MANAGER=$(cat "$scratch/url")
export AWS_ENDPOINT_URL_SECRETS_MANAGER
export AWS_ACCESS_KEY_ID=moto AWS_SECRET_ACCESS_KEY=moto AWS_REGION=eu-west-1
export AWS_EC2_METADATA_DISABLED=true FLEETKEY_REQUIRE=1
unset AWS_SESSION_TOKEN AWS_PROFILE AWS_IGNORE_CONFIGURED_ENDPOINT_URLS
"$@"
