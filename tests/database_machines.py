"""The two database machines of docs/how-to/collector-pair.md: its commands are run on private servers of PostgreSQL."""

from __future__ import annotations

import re
import subprocess
import time
from contextlib import ExitStack

from tests.postgres import ROLE, Cluster, running

__all__ = ["DatabaseMachines"]

_PASSWORDS = {"standby": "another-long-random-text", ROLE: "a-long-random-text"}
_PATIENCE = 120.0


class DatabaseMachines:
    """The machines db1 and db2, each with a server as Debian's package makes one, from when it is first asked for."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._clusters: dict[str, Cluster] = {}

    def __getitem__(self, name: str) -> Cluster:
        if name not in self._clusters:
            cluster = self._stack.enter_context(running())
            with cluster.admin() as connection:
                connection.execute(f"DROP ROLE {ROLE}")
            self._clusters[name] = cluster
        return self._clusters[name]

    @property
    def address(self) -> str:
        """What a collector has in place of the page's address."""
        for name in ("db1", "db2"):
            self[name].password = _PASSWORDS[ROLE]
        return self["db1"].dsn("dynpin", self["db2"], target_session_attrs="read-write")

    def sql(self, text: str) -> str:
        """Have psql run what stands below ``-- on db1``, as the administrator; what it prints."""
        (name,) = _machines(text, "--")
        cluster = self[name]
        return self._run(
            cluster, f"psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --host {cluster.folder} -d postgres", text
        )

    def shell(self, text: str) -> None:
        """Run what stands below ``# on db1``, line by line: systemctl by hand, all else by bash."""
        for name in _machines(text, "#"):
            cluster = self[name]
            for line in text.splitlines()[1:]:
                if service := re.fullmatch(r"systemctl (.+) postgresql", line):
                    assert service[1] in ("stop", "restart", "start", "enable --now"), line
                    if service[1] in ("stop", "restart"):
                        cluster.stop()
                    if service[1] != "stop":
                        cluster.start()
                else:
                    self._run(cluster, self._here(cluster, line))

    def until(self, name: str, query: str, answer: str) -> None:
        """Wait for the answer to a question that has one value."""
        deadline = time.monotonic() + _PATIENCE
        with self[name].admin() as connection:
            while connection.execute(query).fetchall() != [(answer,)]:
                assert time.monotonic() < deadline, f"{query} on {name}: {self[name].log}"
                time.sleep(0.02)

    def _here(self, cluster: Cluster, line: str) -> str:
        """A line of the page, with the places and addresses of the servers of this test."""
        places = {
            "runuser -u postgres -- ": "",
            "/var/lib/postgresql/15/main": str(cluster.data),
            "/etc/postgresql/15/main/pg_hba.conf": str(cluster.data / "pg_hba.conf"),
            "/etc/postgresql/15/main/conf.d/dynpin.conf": str(cluster.folder / "dynpin.conf"),
            "10.0.0.0/24": "127.0.0.1/32",
        }
        for before, after in places.items():
            line = line.replace(before, after)
        return re.sub(r"host=(db\d)", lambda found: f"host=127.0.0.1 port={self[found[1]].port}", line)

    def _run(self, cluster: Cluster, command: str, text: str = "") -> str:
        passwords = cluster.folder / "pgpass"
        if not passwords.exists():
            passwords.write_text("".join(f"*:*:*:{role}:{word}\n" for role, word in _PASSWORDS.items()))
            passwords.chmod(0o600)
            cluster.own(passwords)
        ways = cluster.ways()
        ways["env"] |= {
            "PATH": f"{cluster.programs}:{ways['env']['PATH']}",
            "PGPASSFILE": str(passwords),
            "PGPORT": str(cluster.port),
            "PGUSER": "postgres",
        }
        done = subprocess.run(
            ["bash", "-c", command], **ways, input=text, capture_output=True, text=True, check=False, timeout=_PATIENCE
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return str(done.stdout)


def _machines(text: str, comment: str) -> list[str]:
    first = re.match(rf"{comment} on (db\d)(?: and (db\d))?\n", text)
    assert first, f"the first line says where it is run, as in  {comment} on db1"
    return [name for name in first.groups() if name]
