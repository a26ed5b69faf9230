"""Parts of a client that its user replaces: an adapter, or a handler beside dynpin's, does not avoid the pins."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
import requests

from dynpin import UnenforceableContext
from dynpin.clientstore.http_client import PinnedHTTPSHandler
from dynpin.clientstore.requests import PinnedSession

from .apart import assert_unheard
from .world import HOST, World


def _in_the_attribute(session: PinnedSession) -> None:
    session.adapters["https://"] = requests.adapters.HTTPAdapter()


def _mounted_after_the_pinned_one_was_removed(session: PinnedSession) -> None:
    session.adapters.pop("https://")
    session.mount("https://", requests.adapters.HTTPAdapter())


def _for_all_urls(session: PinnedSession) -> None:
    session.adapters.clear()
    session.mount("", requests.adapters.HTTPAdapter())


def _from_a_method_of_its_own(session: PinnedSession) -> None:
    setattr(session, "get_adapter", lambda url: requests.adapters.HTTPAdapter())  # noqa: B010 - a method


@pytest.mark.parametrize(
    "replace",
    [_in_the_attribute, _mounted_after_the_pinned_one_was_removed, _for_all_urls, _from_a_method_of_its_own],
    ids=lambda replace: replace.__name__,
)
def test_requests_an_adapter_without_pins_is_refused_however_it_got_there(
    world: World, replace: Callable[[PinnedSession], None]
) -> None:
    world.pin_site()
    with PinnedSession(world.store) as session:
        replace(session)
        with pytest.raises(UnenforceableContext, match=r"a HTTPAdapter for https://.*mount a PinnedAdapter"):
            session.get(world.attacker.url(HOST), verify=str(world.roots_file()))
    world.attacker.wait_idle()
    assert world.attacker.handshakes == 0


@pytest.mark.parametrize("pinned_first", [True, False])
def test_the_handler_with_pins_opens_the_url_even_beside_another(world: World, pinned_first: bool) -> None:
    world.pin_site()
    handlers = [
        PinnedHTTPSHandler(world.store, context=world.plain_context()),
        urllib.request.HTTPSHandler(context=world.plain_context()),
    ]
    opener = urllib.request.build_opener(*handlers[:: 1 if pinned_first else -1], urllib.request.ProxyHandler({}))
    with pytest.raises(urllib.error.URLError) as caught:
        opener.open(world.attacker.url(HOST), timeout=60)
    assert_unheard(world, caught.value)
