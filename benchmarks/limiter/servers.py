"""nginx and HAProxy on loopback, real servers to measure beside their emulations."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.limiter.referees import REQUESTS, SECONDS

_PATIENCE = 10.0

_NGINX = """
daemon off; master_process off; pid {directory}/pid; error_log /dev/null crit;
events {{ worker_connections 1024; }}
http {{
    access_log off; keepalive_requests 1000000;
    client_body_temp_path {directory}/a; proxy_temp_path {directory}/b; fastcgi_temp_path {directory}/c;
    uwsgi_temp_path {directory}/d; scgi_temp_path {directory}/e;
    limit_req_status 429;
    limit_req_zone $arg_key zone=b4:1m rate={rate}r/s;
    limit_req_zone $arg_key zone=b0:1m rate={rate}r/s;
    server {{
        listen 127.0.0.1:{port};
        root {directory};
        location = /b4 {{ limit_req zone=b4 burst=4 nodelay; }}
        location = /b0 {{ limit_req zone=b0; }}
    }}
}}
"""

_HAPROXY = """
defaults
    mode http
    timeout client 1m
    timeout connect 1m
    timeout server 1m
    timeout http-keep-alive 1m
frontend counting
    bind 127.0.0.1:{port}
    stick-table type string len 64 size 10k expire 1m store http_req_rate({seconds}s)
    http-request track-sc0 url_param(key)
    http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {requests} }}
    http-request return status 200
"""


@contextmanager
def running() -> Iterator[dict[str, str]]:
    """Start what is installed: the name of each way of counting, and its URL, to which ``?key=`` adds a
    counter of one's own."""
    urls: dict[str, str] = {}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if nginx := _found("nginx"):
            for name in ("b4", "b0"):
                (directory / name).write_text("")
            port = _free_port()
            config = directory / "nginx.conf"
            rate = round(REQUESTS / SECONDS)
            config.write_text(_NGINX.format(directory=directory, port=port, rate=rate))
            stack.enter_context(_server(port, nginx, "-p", str(directory), "-c", str(config)))
            urls |= {f"nginx {name}": f"http://127.0.0.1:{port}/{name}" for name in ("b4", "b0")}
        if haproxy := _found("haproxy"):
            port = _free_port()
            config = directory / "haproxy.cfg"
            config.write_text(_HAPROXY.format(port=port, requests=REQUESTS, seconds=round(SECONDS)))
            stack.enter_context(_server(port, haproxy, "-db", "-f", str(config)))
            urls["HAProxy"] = f"http://127.0.0.1:{port}/"
        yield urls


def versions() -> dict[str, str]:
    """What is installed, by name."""
    asked = {"nginx": "-v", "haproxy": "-v"}
    found = {name: program for name in asked if (program := _found(name))}
    texts = {
        name: subprocess.run([program, asked[name]], check=True, capture_output=True, text=True)
        for name, program in found.items()
    }
    return {name: (run.stdout or run.stderr).splitlines()[0] for name, run in texts.items()}


def _found(name: str) -> str | None:
    return shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


@contextmanager
def _server(port: int, *command: str) -> Iterator[None]:
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_until_it_listens(process, port)
            yield
        finally:
            process.terminate()


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"{process.args!r} does not listen on port {port}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
