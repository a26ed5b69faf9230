"""An agent under test: a command, described by a TOML file or on the command line, that does one task at a time."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import dynpin
from dynpin.lab.agents.namespace import in_namespace, missing
from dynpin.lab.residents import Answer, Task
from dynpin.lab.score.process import Child, Children
from dynpin.lab.score.rules import DATA
from dynpin.middleware.policy import read_file

__all__ = ["Agent", "Description", "built_in", "described"]

PLACEHOLDERS = ("url", "host", "store", "ca", "hosts", "pins", "now", "ahead", "seconds", "python", "folder")
# A name in braces. Doubled braces stand for braces.
_PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}|\{([a-z_]+)\}")
_DESCRIBED = Path(DATA / "agents")
_ROOT = Path(dynpin.__file__).resolve().parents[1]
# The client resolves names in its own way.
_OWN_NAMES = "own"


class Description(BaseModel):
    """The description of an agent; ``docs/how-to/score.md`` lists all its tables."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field(description="For people.")
    command: tuple[str, ...] = Field(min_length=1, description="The program and its arguments, with placeholders.")
    resident: bool = Field(
        default=False, description="It stays, reads a line of JSON for each task and answers with one line."
    )
    names: Literal["namespace", "own"] = Field(
        default="namespace", description="namespace: /etc/hosts maps the names to loopback; own: the command does."
    )
    served: tuple[int, ...] = Field(default=(0,), description="Exit codes after a response.")
    refused: tuple[int, ...] = Field(default=(), description="Exit codes after a refusal; empty: every other one.")
    forget: tuple[str, ...] = Field(default=(), description="The command that forgets {host}.")
    preload: tuple[str, ...] = Field(default=(), description="The command that sets static {pins} for {host}.")
    age: tuple[str, ...] = Field(default=(), description="The command that makes the store {seconds} older.")
    environment: dict[str, str] = Field(default_factory=dict, description="More variables; with placeholders.")
    notes: bool = Field(default=True, description="False for a client that reads no header.")
    model: bool = Field(default=False, description="True for a model of a client that is not here.")
    about: str = Field(default="", description="More for people.")

    @property
    def takes_pins(self) -> bool:
        """Whether the command itself contains static pins."""
        return any("{pins}" in part for part in self.command)

    @property
    def takes_time(self) -> bool:
        """Whether its clock can be set."""
        return any("{now}" in part or "{ahead}" in part for part in (*self.command, *self.environment.values()))

    def check(self) -> None:
        """Refuse a description that can never run, or that is ambiguous.

        Raises:
            ValueError: if a placeholder is unknown, the command has no program or no {url}, an argument or a variable
                is impossible on any system, or an exit code is both served and refused.
        """
        parts = (*self.command, *self.forget, *self.preload, *self.age, *self.environment.values())
        if not self.command[0]:
            raise ValueError("the command names no program")
        if any("\0" in part for part in (*parts, *self.environment)):
            raise ValueError("an argument or a variable contains the character NUL, which no system allows")
        for name in self.environment:
            if not name or "=" in name:
                raise ValueError(f"environment: {name!r} is not a valid name of a variable")
        for code in self.refused:
            if code in self.served:
                raise ValueError(f"exit code {code} cannot be both served and refused; a .toml file can name others")
        for found in (found for part in parts for found in _PLACEHOLDER.finditer(part)):
            if found[2] is not None and found[2] not in PLACEHOLDERS:
                known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
                raise ValueError(
                    f"there is no placeholder {found[0]}; there are {known}; for the text write {{{found[0]}}}"
                )
        if not self.resident and not any("{url}" in part for part in self.command):
            raise ValueError(f"{shlex.join(self.command)}: the command needs {{url}}, the URL that it visits")


_OUTCOMES = ("served", "refused", "failed", "done", "unsupported")


def built_in() -> Mapping[str, Path]:
    """The descriptions that dynpin ships, by name."""
    return {path.stem: path for path in sorted(_DESCRIBED.glob("*.toml"))}


def described(agent: str) -> Description:
    """The agent with this name, from this ``.toml`` file, or with this command.

    Raises:
        ValueError: if there is none, or if its description is wrong.
        OSError: if its file cannot be read.
    """
    known = built_in()
    if agent in known or agent.endswith(".toml"):
        description = _read(known.get(agent, Path(agent)))
    elif agent.strip() and ("{" in agent or " " in agent):
        try:
            command = tuple(shlex.split(agent))
            description = Description(title=command[0], command=command)
            description.check()
        except ValueError as error:
            raise ValueError(f"{agent}: {error}") from error
    else:
        unknown = f"there is no agent {agent!r}" if agent.strip() else "no --agent"
        raise ValueError(f"{unknown}: give {', '.join(known)}, a .toml file, or a command with {{url}}")
    program, *arguments = description.command
    # A relative path counts from the user's folder; the agent runs in a folder of its own.
    return description.model_copy(
        update={"command": (str(Path(program).absolute()) if "/" in program else program, *arguments)}
    )


def _read(path: Path) -> Description:
    try:
        description = Description.model_validate(tomllib.loads(read_file(path).decode("utf-8")))
        description.check()
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path}: {place}: {first['msg']}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply to be read") from None
    return description


@dataclass(slots=True)
class Agent:
    """An agent that is tested with one rule after another; not for two threads at a time.

    Args:
        description: its description.
        children: takes the processes that it starts.
        folder: for its files, and its HOME: the user's own files are never changed.
        timeout: seconds for each task.
    """

    description: Description
    children: Children
    folder: Path
    timeout: float
    hosts: tuple[str, ...] = ()
    hangs: int = 0
    _resident: Child | None = field(default=None, init=False)

    def check(self) -> None:
        """Refuse an agent that cannot run on this machine.

        Raises:
            ValueError: if there is no such program, or if its names cannot resolve to loopback.
        """
        program = self.description.command[0].replace("{python}", sys.executable)
        if shutil.which(program) is None:
            raise ValueError(f"{program}: no such program is installed")
        why = missing() if self.description.names == "namespace" else None
        if why is not None:
            raise ValueError(f'{self.description.title}: {why}; its names cannot resolve to loopback (names = "own")')

    def do(self, task: Task) -> Answer:
        """Do a task."""
        if self.description.resident:
            return self._ask(task)
        match task.do:
            case "visit":
                return self._run(self.description.command, task)
            case "preload" if self.description.takes_pins:
                return Answer("done")
            case _:
                command: Sequence[str] = getattr(self.description, task.do)
                if not command:
                    return Answer("unsupported", f"its description has no command for {task.do}")
                answer = self._run(command, task)
                return Answer("done") if answer.outcome == "served" else answer

    def restart(self) -> None:
        """End its process, if it has one that stays. The next task starts another."""
        if self._resident is not None:
            self._resident.finish(self.timeout)
            self._drop()

    def _drop(self) -> None:
        if self._resident is not None:
            self.children.reap(self._resident)
            self._resident = None

    def _run(self, command: Sequence[str], task: Task) -> Answer:
        try:
            child = self.children.start(
                self._command(command, task), folder=self.folder, environment=self._environment(task)
            )
        except OSError as error:
            return Answer("failed", f"{command[0]} cannot be run: {error.strerror or error}")
        try:
            code = child.wait(self.timeout)
        finally:
            self.children.reap(child)
        said = _last_line(child.said)
        if child.problem:
            self.hangs += 1
            return Answer("failed", child.problem)
        if code < 0:
            return Answer("failed", f"it was ended by signal {-code}: {said}")
        if code in self.description.served:
            return Answer("served", f"exit code {code}")
        if self.description.refused and code not in self.description.refused:
            return Answer("failed", f"exit code {code}: {said}")
        return Answer("refused", f"exit code {code}: {said}")

    def _ask(self, task: Task) -> Answer:
        line = json.dumps({name: getattr(task, name) for name in Task.__dataclass_fields__})
        try:
            if self._resident is None:
                command, environment = self._command(self.description.command, task), self._environment(task)
                self._resident = self.children.start(command, folder=self.folder, environment=environment, answers=True)
            answer = json.loads(self._resident.ask(line, self.timeout))
            # JSON can contain half of a surrogate pair, which files and terminals reject.
            said = str(answer.get("detail", "")).encode(errors="replace").decode()
            outcome, detail = answer["outcome"], said.replace("\n", " ")[:300]
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            outcome = detail = ""
        except OSError as error:
            self.hangs += 1
            self._drop()
            return Answer("failed", str(error))
        if outcome not in _OUTCOMES or (task.do == "visit" and outcome == "done"):
            self._drop()
            return Answer("failed", "its answer is not a line of JSON with an outcome")
        return Answer(outcome, detail)

    def _command(self, command: Sequence[str], task: Task) -> list[str]:
        filled = [self._filled(part, task) for part in command]
        return filled if self.description.names == _OWN_NAMES else in_namespace(self._hosts_file(), filled)

    def _environment(self, task: Task) -> dict[str, str]:
        """No proxy, setting or language of the person who runs it; PYTHONPATH for agents that are Python programs."""
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        if "{python}" in self.description.command:
            # This dynpin, even if another one is installed.
            kept["PYTHONPATH"] = os.pathsep.join([str(_ROOT), *filter(None, [kept.get("PYTHONPATH")])])
        more = {name: self._filled(value, task) for name, value in self.description.environment.items()}
        return {"PATH": os.defpath, "HOME": str(self.folder), "LC_ALL": "C"} | kept | more

    def _filled(self, part: str, task: Task) -> str:
        values = {
            "url": task.url,
            "host": task.host,
            "store": task.store,
            "ca": task.ca,
            "hosts": self._hosts_file(),
            # In the form that curl takes.
            "pins": ";".join(f"sha256//{pin}" for pin in task.pins),
            "now": str(int(task.now)),
            "ahead": str(task.ahead),
            "seconds": str(task.seconds),
            "python": sys.executable,
            "folder": str(self.folder),
        }
        return _PLACEHOLDER.sub(lambda found: values[found[2]] if found[2] else f"{{{found[1]}}}", part)

    def _hosts_file(self) -> str:
        path = self.folder / "hosts"
        if not path.exists():
            path.write_text("".join(f"127.0.0.1 {name}\n" for name in ("localhost", *self.hosts)))
        return str(path)


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"
