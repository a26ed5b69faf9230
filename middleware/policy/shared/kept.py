"""A site's shared state: the collector keeps it, changed by compare and set; a local copy is used if it is away."""

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
from dynpin.files import read_file

from ..atomic import write_atomically
from ..collector_api import Answer, CollectorAPI, Unusable
from .document import Sender, SiteDocument
from .sender import sender_of

__all__ = ["SharedState", "StateSource"]

logger = logging.getLogger("dynpin.middleware")

_ATTEMPTS = 10
# The longest pause before another try, in seconds, if several nodes change the state at the same time.
_PAUSE = 0.3
_TIME = "dynpin-time"


@dataclass(frozen=True, slots=True)
class StateSource:
    """How to reach the shared state of one site.

    Attributes:
        api: the collector.
        host: the first name of the site.
        node: the name of this node; each node of a site has another name.
        copy: the file of the local copy.
    """

    api: CollectorAPI
    host: str
    node: str
    copy: Path

    @property
    def path(self) -> str:
        """The path at the collector."""
        return f"/api/sites/{self.host}/state"


class _Kept(NamedTuple):
    """A document, and its ETag."""

    etag: str
    document: SiteDocument


_NOTHING = _Kept("", SiteDocument())


class SharedState:
    """The shared state of one site, for a node or a command.

    Reading the copy uses no network. :meth:`fetch` and :meth:`change` ask the collector: call them on a thread that no
    request waits for.

    Args:
        source: how to reach it.
    """

    def __init__(self, source: StateSource) -> None:
        self.source = source
        # How many seconds the collector's clock was ahead of this one at its last answer.
        self._ahead = 0.0

    def __str__(self) -> str:
        return f"the state of {self.source.host} at {self.source.api.url}"

    def now(self) -> float:
        """The time of the collector's clock, as far as it is known, so that all nodes have one time."""
        return time.time() + self._ahead

    @cached_property
    def sender(self) -> Sender:
        """The sender of this node's announcements. The file with its number is made if there is none.

        Raises:
            PolicyError: if that file can be neither read nor written.
        """
        return sender_of(self.source.copy)

    def copy(self) -> SiteDocument:
        """The last document that a process of this node has read; an empty document if there is none.

        Raises:
            PolicyError: if the copy cannot be read.
        """
        return self._read_copy().document

    def fetch(self) -> SiteDocument:
        """The current document from the collector. Updates the copy.

        Raises:
            PolicyError: if the collector cannot be asked, or the copy cannot be written.
        """
        return self._fetch().document

    def change(self, edit: Callable[[SiteDocument, float], SiteDocument]) -> SiteDocument:
        """Change the document. If another node changed it in the meantime, start again with the new one.

        Args:
            edit: gets the document and the time of the collector's clock, and gives the new document. It may be called
                several times.

        Raises:
            PolicyError: if the collector cannot be asked or refuses the change. As far as known, nothing has changed.
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
        raise PolicyError(f"{self} is changed by other nodes all the time: try again in a minute")

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
                f"{self} cannot be read ({error}): check that it is the address of a dynpin collector of this version"
            ) from None
        kept = _Kept(answer.fields.get("etag", ""), document)
        if document.revision < copy.document.revision:
            kept = self._restored(kept, copy.document)
        self._write_copy(kept)
        return kept

    def _restored(self, found: _Kept, copy: SiteDocument) -> _Kept:
        """Put this node's last document back, since the collector has lost changes (a new or an older database)."""
        logger.warning("%s has lost changes that this node has seen; this node puts its copy back", self)
        kept = self._put(found.etag, copy.with_changes(revision=copy.revision + 1))
        # If another node was first, it has done the same.
        return kept or self._fetch()

    def _put(self, etag: str, document: SiteDocument) -> _Kept | None:
        """Replace the document that has this ETag; None if there is a newer one."""
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
            raise PolicyError(f"{self} cannot be read: {error}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "strerror", None) or error or type(error).__name__
            raise PolicyError(
                f"{self} cannot be read: {reason}. Check that the collector runs and can be reached from here"
            ) from None
        try:
            self._ahead = float(answer.fields[_TIME]) - time.time()
        except (KeyError, ValueError):
            if answer.status in (http.HTTPStatus.OK, http.HTTPStatus.NOT_MODIFIED):
                raise PolicyError(f"{self} is not there: check that it is the address of a dynpin collector") from None
        return answer

    def _refused(self, answer: Answer) -> PolicyError:
        match answer.status:
            case 401 | 403:
                advice = (
                    f"; put a token of scope site:{self.source.host} (dynpin collect api-tokens add) into [site] "
                    "token_file or DYNPIN_COLLECTOR_TOKEN"
                )
            case 404:
                advice = "; check that it is the address of a dynpin collector of this version"
            case 503:
                advice = "; its storage cannot be used, and its log says why"
            case status if 300 <= status < 400:
                advice = "; dynpin follows no redirect, so give the new address"
            case _:
                advice = ""
        return PolicyError(f"{self.source.api.url}{self.source.path} answers {answer.status}{_said(answer)}{advice}")

    # -- the copy -----------------------------------------------------------------------------------------------------

    def _read_copy(self) -> _Kept:
        try:
            found = cast("dict[str, object]", json.loads(read_file(self.source.copy)))
            if found["host"] != self.source.host or found["collector"] != self.source.api.url:
                raise PolicyError(
                    f"{self.source.copy} is the copy of the state of {found['host']} at {found['collector']}. Name "
                    "another file, [site] copy, or remove this one"
                )
            return _Kept(str(found["etag"]), SiteDocument.from_json(json.dumps(found["state"])))
        except FileNotFoundError:
            return _NOTHING
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            why = getattr(error, "strerror", None) or error
            raise PolicyError(
                f"{self.source.copy}, the copy of {self}, cannot be read ({why}). If the collector has the state, "
                "remove the file: the node then starts without a header, and sends it again when the collector answers"
            ) from None

    def _write_copy(self, kept: _Kept) -> None:
        before = self._read_copy()
        # Another process of this node may have stored a later one in the meantime.
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
                "must be able to write to it and to its folder. Without it, the node would start without a header"
            ) from None


def _said(answer: Answer) -> str:
    """The message of the collector."""
    try:
        message = cast("dict[str, object]", json.loads(answer.body))["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return f" ({str(message)[:300]})" if isinstance(message, str) and message.isprintable() else ""
