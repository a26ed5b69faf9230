"""Programs that know nothing of pins, and how to start them: for the tests of injection."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dynpin.clientstore.injection import environment_for

from .world import World

__all__ = ["HTTPX", "NOTING", "OTHERS", "URLLIB", "Ground"]

URLLIB = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).status)"

# Programs on top of http.client, which also note pins. Each gets a URL, and ends with an error if it is refused.
NOTING = {
    "urllib": URLLIB,
    # With a response class of its own.
    "http.client": """
import http.client, sys, urllib.parse
class Response(http.client.HTTPResponse):
    def status_of_its_own(self):
        return self.status
class Connection(http.client.HTTPSConnection):
    response_class = Response
parts = urllib.parse.urlsplit(sys.argv[1])
connection = Connection(parts.hostname, parts.port)
connection.request("GET", "/", headers={"Connection": "close"})
print(connection.getresponse().status_of_its_own())
""",
    "urllib3": """
import ssl, sys, urllib3
manager = urllib3.PoolManager(ssl_context=ssl.create_default_context())
print(manager.request("GET", sys.argv[1], retries=False).status)
""",
    "requests": "import sys, requests; print(requests.get(sys.argv[1]).status_code)",
    "botocore": """
import sys, botocore.config, botocore.session
config = botocore.config.Config(retries={"total_max_attempts": 1})
secrets = {"aws_access_key_id": "id", "aws_secret_access_key": "secret"}
session = botocore.session.Session()
client = session.create_client("sqs", "eu-west-1", endpoint_url=sys.argv[1], config=config, **secrets)
print(client.list_queues()["ResponseMetadata"]["HTTPStatusCode"])
""",
    "truststore": f"import truststore; truststore.inject_into_ssl()\n{URLLIB}",
    # Each of a kind that a class attribute of ssl.SSLContext, or a hook on its constructor, would miss.
    "classes-of-its-own": """
import ssl, sys, urllib.request
class Socket(ssl.SSLSocket): pass
class Context(ssl.SSLContext):
    sslsocket_class = Socket
context = Context(ssl.PROTOCOL_TLS_CLIENT)
context.load_default_certs()
print(urllib.request.urlopen(sys.argv[1], context=context).status)
""",
    "class-that-is-assigned": """
import ssl, sys, urllib.request
class Socket(ssl.SSLSocket): pass
context = ssl.create_default_context()
context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="other.test")
context.sslsocket_class = Socket
print(urllib.request.urlopen(sys.argv[1], context=context).status)
""",
    "subprocess": f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {URLLIB!r}, sys.argv[1]]))",
    **{
        method: f"""
import multiprocessing, sys, urllib.request
def visit(url):
    print(urllib.request.urlopen(url).status, flush=True)
if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    process = context.Process(target=visit, args=(sys.argv[1],))
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""
        for method in ("fork", "spawn", "forkserver")
    },
    # The parent's connection has opened the store, and the child must not use the open connection.
    "fork-after-a-visit": f"""
import os, ssl, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of each fork where a thread has been
ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="other.test")
if (child := os.fork()) == 0:
    {URLLIB}
    sys.stdout.flush()
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""",
}
HTTPX = "import sys, httpx; print(httpx.get(sys.argv[1]).status_code)"
# Programs with HTTP code of their own: pins are enforced but not noted.
OTHERS = {
    "httpx": HTTPX,
    "httpx-async": """
import asyncio, sys, httpx
async def main():
    async with httpx.AsyncClient() as client:
        print((await client.get(sys.argv[1])).status_code)
asyncio.run(main())
""",
    "aiohttp": """
import asyncio, sys, aiohttp
async def main():
    async with aiohttp.ClientSession() as session, session.get(sys.argv[1]) as response:
        print(response.status)
asyncio.run(main())
""",
    "asyncio": """
import asyncio, sys, urllib.parse
async def main():
    parts = urllib.parse.urlsplit(sys.argv[1])
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=True)
    writer.write(b"GET / HTTP/1.1\\r\\nConnection: close\\r\\n\\r\\n")
    print((await reader.readline()).split()[1].decode())
    writer.close()
asyncio.run(main())
""",
    # ssl accepts a name as bytes too.
    "sockets": """
import socket, ssl, sys, urllib.parse
parts = urllib.parse.urlsplit(sys.argv[1])
with socket.create_connection((parts.hostname, parts.port)) as raw:
    tls = ssl.create_default_context().wrap_socket(raw, server_hostname=parts.hostname.encode())
    tls.sendall(b"GET / HTTP/1.1\\r\\nConnection: close\\r\\n\\r\\n")
    print(tls.recv(12).split()[1].decode())
""",
    "websockets": """
import sys, websockets.sync.client
try:
    websockets.sync.client.connect(sys.argv[1].replace("https:", "wss:"))
except websockets.InvalidStatus as error:
    print(error.response.status_code)
""",
}


@dataclass
class Ground:
    """A folder with a store, and the environment in which a program finds the test's names and roots."""

    world: World
    folder: Path
    python: Path = Path(sys.executable)
    environment: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        roots, names = self.world.roots_file(), self.folder / "names"
        names.mkdir()
        # Hidden by the bootstrap, which must run it nevertheless.
        (names / "sitecustomize.py").write_text(
            "import socket\n"
            "real = socket.getaddrinfo\n"
            "def getaddrinfo(host, *args, **options):\n"
            "    host = host.decode() if isinstance(host, bytes) else host\n"
            "    return real('127.0.0.1' if host and host.rstrip('.').endswith('.test') else host, *args, **options)\n"
            "socket.getaddrinfo = getaddrinfo\n"
        )
        kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        self.environment = {
            **kept,
            "PYTHONPATH": str(names),
            **dict.fromkeys(["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"], str(roots)),
        }

    @property
    def store(self) -> Path:
        return self.folder / "run.sqlite"

    def start(
        self, *arguments: str, audit: bool = False, reports: bool = False, more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run Python as `dynpin run` does, until it ends."""
        environment = environment_for(str(self.store), audit=audit, reports=reports, environment=self.environment)
        return self.plainly([str(self.python), *arguments], {**environment, **(more or {})})

    def script(self, code: str, *arguments: str, audit: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a script from a file, which multiprocessing needs."""
        file = self.folder / "script.py"
        file.write_text(code)
        return self.start(str(file), *arguments, audit=audit)

    def plainly(
        self, command: Iterable[str], environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            list(command),
            env=dict(environment or self.environment),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
