"""Where a site's state is kept: with the collector, by compare and set; a local copy serves while it is away."""

from __future__ import annotations

import http.client
import json
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, cast

from dynpin.errors import PolicyError

from ..atomic import write_atomically
from ..collector_api import Answer, CollectorAPI, Unusable
from ..files import read_file
from .document import SiteDocument, Speaker
from .speaker import speaker_of

__all__ = ["SharedState", "StateSource"]

logger = logging.getLogger("dynpin.middleware")

_ATTEMPTS = 10
# In seconds, at most: of many nodes that change it at the same time one comes first.
_PAUSE = 0.3
_TIME = "dynpin-time"


@dataclass(frozen=True, slots=True)
class StateSource:
    """Where the state of one site is kept.

    Attributes:
        api: the collector.
        host: the site, by the first of its names.
        node: what this node is called; every node of a site has a name of its own.
        copy: the file of the local copy.
    """

    api: CollectorAPI
    host: str
    node: str
    copy: Path

    @property
    def path(self) -> str:
        """Where the collector has it."""
        return f"/api/sites/{self.host}/state"


class _Kept(NamedTuple):
    """A document, and the ETag by which the collector knows it."""

    etag: str
    document: SiteDocument


_NOTHING = _Kept("", SiteDocument())


class SharedState:
    """The state of one site, as a node or a command sees it.

    Reading the copy costs no network; :meth:`fetch` and :meth:`change` ask the collector, and belong on a thread that
    nobody waits for.

    Args:
        source: where it is kept.
        clock: seconds since the epoch, UTC.
    """

    def __init__(self, source: StateSource, clock: Callable[[], float] = time.time) -> None:
        self.source, self.clock = source, clock
        # By how many seconds the collector's clock is ahead of this one, as it said last.
        self._ahead = 0.0

    def __str__(self) -> str:
        return f"the state of {self.source.host} at {self.source.api.url}"

    def now(self) -> float:
        """The time by the collector's clock, as far as it is known: the nodes of a site have one time."""
        return self.clock() + self._ahead

    @cached_property
    def speaker(self) -> Speaker:
        """As whom this node speaks; the file with its number is made where there is none.

        Raises:
            PolicyError: if that file can be neither read nor written.
        """
        return speaker_of(self.source.copy)

    def copy(self) -> SiteDocument:
        """What was seen last, by any process of this node; an empty document where nothing was.

        Raises:
            PolicyError: if the copy cannot be read.
        """
        return self._read_copy().document

    def fetch(self) -> SiteDocument:
        """What is kept now. The copy is brought up to it.

        Raises:
            PolicyError: if the collector cannot be asked, or the copy cannot be written.
        """
        return self._fetch().document

    def change(self, edit: Callable[[SiteDocument, float], SiteDocument]) -> SiteDocument:
        """Change what is kept, where nobody else has done so meanwhile; else begin again with what they wrote.

        Args:
            edit: gets the document and the time by the collector's clock, and gives the new one. It may be called
                several times.

        Raises:
            PolicyError: if the collector cannot be asked or refuses it; nothing was changed, as far as it is known.
        """
        for _ in range(_ATTEMPTS):
            before = self._fetch()
            after = edit(before.document, self.now())
            if after == before.document:
                return after
            kept = self._put(before.etag, after.with_changes(revision=before.document.revision + 1))
            if kept is not None:
                self._write_copy(kept)
                return kept.document
            time.sleep(random.uniform(0, _PAUSE))  # noqa: S311 - no secret
        raise PolicyError(f"{self} is changed by others all the time: try again in a minute")

    # -- the collector ------------------------------------------------------------------------------------------------

    def _fetch(self) -> _Kept:
        copy = self._read_copy()
        answer = self._ask("GET", {"If-None-Match": copy.etag} if copy.etag else {})
        if answer.status == http.HTTPStatus.NOT_MODIFIED and copy.etag:
            return copy
        if answer.status != http.HTTPStatus.OK:
            raise self._refused(answer)
        try:
            state = cast("dict[str, object]", json.loads(answer.body))["state"]
            document = SiteDocument() if state is None else SiteDocument.from_json(json.dumps(state))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise PolicyError(
                f"{self} cannot be read ({error}): is it the address of a dynpin collector of this version?"
            ) from None
        kept = _Kept(answer.fields.get("etag", ""), document)
        if document.revision < copy.document.revision:
            kept = self._restored(kept, copy.document)
        self._write_copy(kept)
        return kept

    def _restored(self, found: _Kept, copy: SiteDocument) -> _Kept:
        """What this node saw last, put back: the collector has lost changes (is its database new, or an older one?)."""
        logger.warning("%s has lost changes that this node has seen; its copy is put back", self)
        kept = self._put(found.etag, copy.with_changes(revision=copy.revision + 1))
        # Where another node was first, it has done the same.
        return kept or self._fetch()

    def _put(self, etag: str, document: SiteDocument) -> _Kept | None:
        """Keep a document in place of the one with this ETag; None if there is another by now."""
        fields = {"If-Match": etag, "Content-Type": "application/json"}
        answer = self._ask("PUT", fields, document.to_json().encode())
        if answer.status == http.HTTPStatus.PRECONDITION_FAILED:
            return None
        if answer.status != http.HTTPStatus.OK:
            raise self._refused(answer)
        return _Kept(answer.fields.get("etag", ""), document)

    def _ask(self, method: str, fields: dict[str, str], body: bytes | None = None) -> Answer:
        try:
            answer = self.source.api.ask(self.source.path, method, fields, body)
        except Unusable as error:
            raise PolicyError(f"{self} cannot be asked for: {error}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "strerror", None) or error or type(error).__name__
            raise PolicyError(
                f"{self} cannot be asked for: {reason}. Look whether the collector runs and can be reached from here"
            ) from None
        try:
            self._ahead = float(answer.fields[_TIME]) - self.clock()
        except (KeyError, ValueError):
            if answer.status in (http.HTTPStatus.OK, http.HTTPStatus.NOT_MODIFIED):
                raise PolicyError(f"{self} is not kept there: is it the address of a dynpin collector?") from None
        return answer

    def _refused(self, answer: Answer) -> PolicyError:
        match answer.status:
            case 401 | 403:
                advice = (
                    f"; a token of scope site:{self.source.host} (dynpin collect api-tokens add) stands in [site] "
                    "token_file or DYNPIN_COLLECTOR_TOKEN"
                )
            case 404:
                advice = "; is it the address of a dynpin collector of this version?"
            case 503:
                advice = "; its storage cannot be used, and its log says why"
            case status if 300 <= status < 400:
                advice = "; a redirect is not followed, so give the address that it leads to"
            case _:
                advice = ""
        return PolicyError(f"{self.source.api.url}{self.source.path} answers {answer.status}{_said(answer)}{advice}")

    # -- the copy -----------------------------------------------------------------------------------------------------

    def _read_copy(self) -> _Kept:
        try:
            found = cast("dict[str, object]", json.loads(read_file(self.source.copy)))
            if found["host"] != self.source.host or found["collector"] != self.source.api.url:
                raise PolicyError(
                    f"{self.source.copy} is the copy of what {found['host']} shares at {found['collector']}. Name "
                    "another file, [site] copy, or remove this one"
                )
            return _Kept(str(found["etag"]), SiteDocument.from_json(json.dumps(found["state"])))
        except FileNotFoundError:
            return _NOTHING
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            why = getattr(error, "strerror", None) or error
            raise PolicyError(
                f"{self.source.copy}, the copy of {self}, cannot be read ({why}). If the collector has the state, "
                "remove the file: the node then starts without a header, and has it back once the collector answers"
            ) from None

    def _write_copy(self, kept: _Kept) -> None:
        before = self._read_copy()
        # Another process of this node may have seen a later one meanwhile.
        if kept == before or kept.document == _NOTHING.document or kept.document.revision < before.document.revision:
            return
        text = json.dumps(
            {
                "host": self.source.host,
                "collector": self.source.api.url,
                "etag": kept.etag,
                "state": json.loads(kept.document.to_json()),
            }
        )
        try:
            write_atomically(self.source.copy, text + "\n")
        except OSError as error:
            raise PolicyError(
                f"{self.source.copy}, the copy of {self}, cannot be written ({error.strerror or error}). The server "
                "needs to write to it and to its folder; without it the node would start without a header"
            ) from None


def _said(answer: Answer) -> str:
    """The collector's own message."""
    try:
        message = cast("dict[str, object]", json.loads(answer.body))["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return f" ({str(message)[:300]})" if isinstance(message, str) and message.isprintable() else ""
