"""Check a chain before its deployment, for one site: first certificate and private key, then the pins."""

from __future__ import annotations

import ssl
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dynpin.errors import PolicyError
from dynpin.header import PublicKeyPins
from dynpin.hosts import canonical_host
from dynpin.middleware.policy import (
    Built,
    Chain,
    Inventory,
    certain_pins,
    chain_faults,
    covers,
    is_address,
    load_certificate,
    public_key,
    read_chain,
    read_file,
    trust_anchors,
    without_root,
)
from dynpin.pins import Pin

from .guard import Reason, Verdict, guard
from .handshake import refusal
from .keys import key_type
from .rotation import History

__all__ = ["Candidate", "belongs_elsewhere", "examine", "key_fault", "made_now"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chain before its deployment.

    Attributes:
        path: its file.
        data: its content, read once.
        chain: the certificates in it.
        key: the file of its private key, or None.
    """

    path: Path
    data: bytes
    chain: Chain
    key: Path | None

    @classmethod
    def read(cls, path: Path, key: Path | None = None) -> Candidate:
        """Read the chain. The key is the given one, else privkey.pem if that is beside fullchain.pem.

        Raises:
            PolicyError: if there is no certificate in the file, or its key cannot be pinned.
            OSError: if the file cannot be read.
        """
        beside = path.with_name("privkey.pem")
        if key is None and path.name == "fullchain.pem" and beside.exists():
            key = beside
        for file in filter(None, (path, key)):
            if file.is_fifo():  # OpenSSL would wait for more
                raise PolicyError(f"{file} is a pipe, and it is read several times: name the file that it comes from")
        data = read_file(path)
        if key is not None:
            read_file(key)  # OpenSSL's error would not name it
        chain = read_chain(data, str(path))
        if not chain.certificates:
            raise PolicyError(
                f"{path}: it has a key and no certificate: name the chain that is to be deployed, leaf first"
            )
        return cls(path, data, chain, key)

    def is_of_another_site(self, hosts: Sequence[str], keys: Collection[Pin]) -> bool:
        """Whether the certificate is for none of these hosts, for no name below one of their wildcards, and of no key.

        A certificate without alternative names, or of a key of this site but without its hosts, is a fault, and not
        another site.

        Args:
            hosts: the names of the site.
            keys: the pins of its own keys, as far as they are known.
        """
        names = self.chain.names
        if names is None or self.chain.pins[0] in keys:
            return False
        return not any(covers(names, host) for host in hosts) and not any(covers(hosts, name) for name in names)


def examine(
    candidate: Candidate,
    history: History,
    now: float,
    *,
    hosts: Sequence[str] = (),
    built: Built | None = None,
    makes: PublicKeyPins | None = None,
    is_recorded: bool = True,
    max_max_age: int | None = None,
) -> Verdict:
    """Everything that is wrong with a chain: names, dates, order and issuers of its certificates, its key, its pins.

    Args:
        candidate: the chain.
        history: what the site has sent so far.
        now: seconds since the epoch, UTC.
        hosts: the names of the site; empty if they are unknown.
        built: what the site's inventory makes, if there is one.
        makes: its header, if it is to be checked against the history; see :func:`~dynpin.deploy.guard.guard`.
        is_recorded: whether the history was kept. If not, only a deployed key passes: nobody knows since when the other
            keys are pinned.
        max_max_age: the cap on max-age of all clients in seconds, if it is known.

    Raises:
        OSError: if a file cannot be read.
    """
    roots = () if built is None else built.inventory.roots
    pins = certain_pins(candidate.chain, roots)
    verdict = guard(history, pins, now, max_max_age=max_max_age, makes=makes)
    present = () if built is None else built.chains
    needed = _needed(candidate.chain, hosts, present)
    reasons, warnings = _certificate_faults(candidate.chain, needed, present, now)
    unseen: list[str] = []
    if not hosts:
        unseen.append("whether the certificate is for the right hosts: name the site's dynpin.toml with --inventory")
    if candidate.key is None:
        unseen.append("whether its private key belongs to it: name it with --key")
    elif (fault := key_fault(candidate.path, candidate.key)) is not None:
        reasons.append(fault)
    if built is not None and (why := without_root(candidate.chain, built.chains, roots, now=now)) is not None:
        reasons.append(Reason("chain-without-root", why))
    if candidate.key is not None and not reasons:
        refused = _refused(candidate, candidate.key, needed, present, roots)
        reasons += [] if refused is None else [refused]
        warnings += [] if reasons else _refused_strictly(candidate, candidate.key, needed, roots)
    if verdict.ok and built is not None and not is_recorded:
        reasons += _key_without_history(pins, built)
    if verdict.ok and not reasons and built is not None:
        warnings += _unmade_with(built.inventory, candidate.data, now)
    return replace(
        verdict,
        reasons=(*reasons, *verdict.reasons),
        warnings=(*warnings, *verdict.warnings),
        unseen=tuple(unseen),
        ready_at=None if reasons else verdict.ready_at,
    )


def _key_without_history(pins: Sequence[Pin], built: Built) -> list[Reason]:
    if any(set(shown) & set(built.header.pins) & set(pins) for shown in built.shown):
        return []
    return [
        Reason(
            "key-without-history",
            f"no history says since when {pins[0]} is pinned, if it is. This is not the deployed key, and clients "
            "with an earlier header may not know it. Renew with the deployed key. If no other pins were sent for "
            "as long as max-age, record that and ask again: dynpin rotate record",
        )
    ]


def _certificate_faults(
    chain: Chain, needed: Sequence[str], present: Sequence[Chain], now: float
) -> tuple[list[Reason], list[str]]:
    """What is wrong with the certificates of a new chain: reasons and warnings."""
    found = dict.fromkeys(chain_faults(chain, now=now, beside=present))
    found |= dict.fromkeys(chain_faults(chain, needed, now=now))
    return (
        [Reason(fault.code, fault.message) for fault in found if fault.refused],
        [fault.message for fault in found if not fault.refused],
    )


def _needed(chain: Chain, hosts: Sequence[str], present: Sequence[Chain]) -> list[str]:
    """The hosts of a new chain: every host of the chain that it replaces, and hosts that no other chain is for."""
    replaced = _replaced(chain, present)
    others = [each for each in present if each is not replaced]
    return [
        host
        for host in hosts
        if (replaced is not None and covers(replaced.names or (), host))
        or not any(covers(each.names or (), host) for each in others)
    ]


def _refused(
    new: Candidate, key: Path, hosts: Sequence[str], present: Sequence[Chain], roots: Sequence[Path]
) -> Reason | None:
    """Why TLS clients refuse a chain that has no fault that this program knows itself; None if they accept it."""
    anchors = trust_anchors(new.chain, roots)
    for host in hosts:
        if is_address(host):
            continue  # as in chain_faults: clients pin no address
        refused = refusal(new.path, key, canonical_host(host.replace("*", "any", 1)), anchors)
        # If a key of this kind is deployed, client and server have the settings for it.
        if refused is not None and (refused.of_certificates or _kind(new.chain) not in map(_kind, present)):
            return Reason(
                "clients-refuse-the-chain",
                f"a TLS client refuses {new.path} for {host} (OpenSSL: {refused.reason}). Have the CA issue another "
                "certificate or chain",
            )
    return None


def _refused_strictly(new: Candidate, key: Path, hosts: Sequence[str], roots: Sequence[Path]) -> list[str]:
    """Why clients on Python 3.13 or later refuse a chain that others accept; empty if they accept it."""
    # What they check besides does not depend on the name.
    host = next((host for host in hosts if not is_address(host)), None)
    if host is None:
        return []
    name = canonical_host(host.replace("*", "any", 1))
    refused = refusal(new.path, key, name, trust_anchors(new.chain, roots), strict=True)
    if refused is None or not refused.of_certificates:
        return []
    return [
        f"clients on Python 3.13 or later refuse {new.path} (OpenSSL, VERIFY_X509_STRICT: {refused.reason}). Have the "
        "CA issue certificates that follow RFC 5280"
    ]


def _kind(chain: Chain) -> str:
    return key_type(public_key(chain.certificates[0])) if chain.certificates else "unknown"


def _replaced(chain: Chain, present: Iterable[Chain]) -> Chain | None:
    """The present chain that is most like the new one."""
    return max(present, key=lambda each: _likeness(chain, each), default=None)


def _likeness(chain: Chain, other: Chain) -> tuple[bool, int, bool]:
    """How much two chains are alike: the same key, the number of common names, keys of the same kind."""
    common = set(chain.names or ()) & set(other.names or ())
    return chain.pins[0] == other.pins[0], len(common), _kind(chain) == _kind(other)


def belongs_elsewhere(new: Candidate, present: Sequence[Chain], target: Path) -> str | None:
    """Why a chain must not be installed in a file: it replaces another chain of the site than the one there.

    A site may have several: one for each kind of key, or for each host. None if none of them is in the file.

    Args:
        new: the new chain.
        present: the deployed chains.
        target: the file.
    """
    replaced = _replaced(new.chain, present)
    own = next((each for each in present if each.path is not None and _is_same(each.path, target)), None)
    if replaced is None or own is None or _likeness(new.chain, own) >= _likeness(new.chain, replaced):
        return None
    return f"{new.path} replaces {replaced.label}, and not {target}"


def _is_same(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)


def key_fault(chain: Path, key: Path) -> Reason | None:
    """Why a server cannot use these two PEM files as certificate and private key; None if it can.

    OpenSSL decides, as it does in the server.

    Raises:
        OSError: if a file cannot be read.
    """
    asked: list[bool] = []
    said = ""

    def passphrase() -> bytes:
        asked.append(True)
        return b""

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key, passphrase)
    except ssl.SSLError as error:
        said = (error.reason or "no reason").replace("_", " ").lower()
    if asked:
        return Reason(
            "private-key-encrypted",
            f"{key} is encrypted: a server cannot read it without a person, and dynpin cannot check that it belongs to "
            f"{chain}. Remove the passphrase: openssl pkey -in {key} -out FILE",
        )
    if said in ("key values mismatch", "key type mismatch"):
        return Reason(
            "private-key-of-another-certificate",
            f"{key} is not the private key of the certificate in {chain} (OpenSSL: {said}). Take both from the "
            "same folder of the ACME client",
        )
    if "too small" in said or "too weak" in said:
        return Reason(
            "private-key-unusable",
            f"OpenSSL refuses {chain} ({said}), as clients do. Have the CA issue a certificate for a key of at "
            "least 2048 bits (RSA) or 256 bits (EC), with SHA-256",
        )
    if said:
        return Reason(
            "private-key-unusable",
            f"OpenSSL cannot use {chain} and {key} as a certificate and its private key ({said}). Both must be PEM, "
            "the server's own certificate first",
        )
    return None


def made_now(inventory: Inventory, now: float) -> Built:
    """What an inventory makes at `now`, even if the present certificate has expired: the new one ends that.

    Raises:
        PolicyError: if it makes no header for another reason.
    """
    leaves = [load_certificate(chain.certificates[0]) for chain in inventory.read_chains() if chain.certificates]
    ends = [leaf.not_valid_after_utc.timestamp() for leaf in leaves if leaf is not None]
    return inventory.build(min([now, *ends]))


def _unmade_with(inventory: Inventory, chain: bytes, now: float) -> list[str]:
    """Why an inventory would make no header after the deployment of this chain, PEM or DER.

    Empty if the inventory names several chains, since it is then unknown which of them is replaced.
    """
    if len(inventory.keys) != 1:
        return []
    try:
        replace(inventory, keys=(chain,)).build(now)
    except PolicyError as error:
        return [f"once this chain is deployed, no header is sent until dynpin.toml is changed: {error}"]
    return []
