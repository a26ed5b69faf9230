"""The thread of an event loop never waits for the store, and a client that is closed leaves nothing open."""

from __future__ import annotations

import threading
from collections.abc import Callable

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from dynpin import PublicKeyPins
from dynpin.clientstore import PinStore

from .held import write_lock_held
from .inbox import Inbox
from .opened import open_files
from .ways import Way, custom, every_loop, every_way
from .world import HOST, World, leaf_pin

_TIMEOUT = 30.0


# More steps of the event loop than a request needs between its response and the end of its noting.
_STEPS = 500


async def _steps_then(release: Callable[[], None], begin: anyio.Event | None = None) -> None:
    if begin is not None:
        await begin.wait()
    for _ in range(_STEPS):
        await anyio.lowlevel.checkpoint()
    release()


def _get_while_the_lock_is_held(world: World, way: Way) -> None:
    """Hold the lock from before the request until the loop has run for a while after the response."""

    async def main() -> None:
        answered = anyio.Event()

        async def trace(event: str, info: object) -> None:
            if event == "http11.receive_response_headers.complete":
                answered.set()

        async with way.client(world) as client, anyio.create_task_group() as group:
            group.start_soon(_steps_then, release, answered)
            assert (await client.get(world.site.url(HOST), extensions={"trace": trace})).status_code == 200

    with write_lock_held(world.store.path) as release:
        way.run(main)


@every_loop
def test_a_noting_that_waits_for_the_lock_does_not_stop_the_loop(world: World, way: Way) -> None:
    _get_while_the_lock_is_held(world, way)
    # If the loop had stood still, the lock would never have been released, and the noting would have failed.
    assert world.store.known_host(HOST) is not None


@every_loop
def test_a_report_that_waits_for_the_lock_does_not_stop_the_loop(world: World, way: Way) -> None:
    with Inbox() as inbox:
        report_uri, pins = f"http://reports.test:{inbox.port}/", (leaf_pin(world.stolen_name), leaf_pin(world.backup))
        policy = PublicKeyPins(pins, max_age=None, report_uri=report_uri, report_only=True)
        world.site.headers = [("Public-Key-Pins-Report-Only", str(policy))]
        _get_while_the_lock_is_held(world, way)
        assert inbox.next_report()["hostname"] == HOST


@every_loop
def test_a_request_that_is_cancelled_does_not_wait_for_its_noting(
    world: World, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with way.client(world, limits=way.library.Limits(max_connections=1)) as client:
            with anyio.CancelScope() as scope:

                async def trace(event: str, info: object) -> None:
                    if event == "http11.receive_response_headers.complete":
                        group.start_soon(_steps_then, scope.cancel)

                async with anyio.create_task_group() as group:
                    await client.get(world.site.url(HOST), extensions={"trace": trace})
            assert scope.cancelled_caught
            assert world.store.known_host(HOST) is None  # it still waits
            release()
            # The one connection of the pool is free again.
            assert (await client.get(world.site.url(HOST), timeout=_TIMEOUT)).status_code == 200

    with write_lock_held(world.store.path) as release:
        way.run(main)
    assert world.store.known_host(HOST) is not None
    assert "could not be noted" not in caplog.text  # the noting did not time out


@every_loop
def test_a_transport_that_is_closed_does_not_stop_the_loop(
    world: World, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DYNPIN_STORE", str(world.folder / "own.sqlite"))
    begun, release = threading.Event(), threading.Event()

    def job(connection: object) -> None:
        begun.set()
        release.wait(_TIMEOUT)

    async def main() -> None:
        transport = way.transport(world, store=None)
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, transport.pin_store.database.write, job)
            while not begun.is_set():
                await anyio.lowlevel.checkpoint()
            group.start_soon(_steps_then, release.set)
            await transport.aclose()  # waits for the job
            assert release.is_set()

    way.run(main)
    assert open_files(world.folder / "own.sqlite") == []


@every_way
def test_clients_that_are_closed_leave_no_file_open(world: World, way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNPIN_STORE", str(world.folder / "own.sqlite"))

    clients = [way.client(world, store=None) for _ in range(30)]
    others = [way.client(world, store=None, transport=custom(way)) for _ in range(2)]
    clients.append(others[0])
    assert way.visit(others[1], "https://other.test/") == [204]
    assert way.visit(clients[0], world.site.url(HOST)) == [200]
    assert open_files(world.folder / "own.sqlite")

    async def close() -> None:
        for client in clients[1:]:
            await client.aclose()

    if way.loop is None:
        for client in clients[1:]:
            client.close()
    else:
        way.run(close)
    assert open_files(world.folder / "own.sqlite") == []
    with PinStore() as store:
        assert store.known_host(HOST) is not None
