"""Serve moto on a free loopback port, print the URL, and exit at the end of stdin.

Stdin is a pipe from the test binary, which closes when that process dies.

moto looks first and inserts later, without a lock. So requests are handled one at
a time. Connections are not: a client may open one and stay silent.
"""

import io
import logging
import os
import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

one_at_a_time = threading.Lock()
moto = DomainDispatcherApplication(create_backend_app)


def app(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    with one_at_a_time:
        return list(moto(environ, start_response))


def exit_with_stdin():
    sys.stdin.buffer.read()
    os._exit(0)


threading.Thread(target=exit_with_stdin, daemon=True).start()
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = make_server("127.0.0.1", 0, app, threaded=True)
print(f"http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
