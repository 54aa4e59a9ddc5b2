"""Serve LocalStack on a free loopback port, print the URL, and exit at the end of stdin.

LocalStack handles requests at the same time although moto below it takes no locks, so
the tests send it one request at a time.
"""

import os
import socket
import sys
import tempfile
import threading

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = "127.0.0.1:%d" % free.getsockname()[1]

os.environ.update(
    GATEWAY_LISTEN=address,
    SERVICES="secretsmanager",
    DNS_ADDRESS="0",
    DISABLE_EVENTS="1",
    SKIP_SSL_CERT_DOWNLOAD="1",
    OVERRIDE_IN_DOCKER="0",
    FILESYSTEM_ROOT=tempfile.mkdtemp(),
)


def exit_with_stdin():
    sys.stdin.buffer.read()
    os._exit(0)


threading.Thread(target=exit_with_stdin, daemon=True).start()

from localstack.runtime import events, main  # noqa: E402 (reads the environment)


def announce():
    events.infra_ready.wait()
    print("http://" + address, file=out, flush=True)


out, sys.stdout = sys.stdout, sys.stderr
threading.Thread(target=announce, daemon=True).start()
main.main()
