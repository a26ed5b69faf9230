"""Create the first ``dynpin.toml`` of a site, from its chain, with a backup key beside it."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dynpin.errors import InvalidHeader, PolicyError
from dynpin.header import ENFORCE_NAME, PublicKeyPins
from dynpin.middleware.policy import (
    Built,
    CertificateNames,
    Chain,
    certificate_names,
    in_chain,
    read_inventory,
    read_key,
)
from dynpin.pins import Pin

from .inventory_text import backups_line, toml_string
from .keys import KEY_TYPES, BackupKey, KeyType, key_files, key_type, new_files
from .nodes import NodeLook, look_at_node, nodes_of

__all__ = ["NodesDiffer", "Seen", "begin_site", "kind_beside", "look_at_host", "names_of", "site_files"]

INVENTORY, CHAIN, BACKUP = "dynpin.toml", "chain.pem", "backup"


class NodesDiffer(PolicyError):
    """The nodes of a site show different keys."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A site as it is served now.

    Attributes:
        host: its name.
        port: its https port.
        chain: the chain that it shows.
        addresses: the addresses that answered.
        silent: the addresses that did not, each with the reason.
        header: the Public-Key-Pins header that it already sends, or None.
    """

    host: str
    port: int
    chain: Chain
    addresses: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    header: PublicKeyPins | None = None


def look_at_host(host: str, port: int, context: ssl.SSLContext, *, timeout: float = 10.0) -> Seen:
    """Ask every address of a host for its chain and its header.

    Raises:
        OSError: if the name does not resolve.
        PolicyError: if no address answers, or a chain does not verify.
        NodesDiffer: if the addresses show different keys.
        UnpinnableKey: if the leaf's key cannot be pinned.
    """
    looks = [look_at_node(host, at, address, context, timeout=timeout) for address, at in nodes_of(None, host, port)]
    good = [look for look in looks if look.validated]
    silent = tuple(f"{look.address} port {look.port}: {look.failure}" for look in looks if not look.validated)
    # If a chain does not verify, no client can connect there. That is not a node that is down for a day.
    if not good or any(look.served for look in looks if not look.validated):
        raise PolicyError(
            f"{host} cannot be pinned as it is: {'; '.join(silent) or 'it has no address'}. Check its name and "
            "port: every address of it must answer"
        )
    chains = {look.address: Chain.of(look.served, f"{host} at {look.address}") for look in good}
    if len({chain.pins[0] for chain in chains.values()}) > 1:
        shown = "; ".join(f"{address} shows {chain.pins[0]}" for address, chain in chains.items())
        raise NodesDiffer(
            f"the nodes of {host} show different keys: {shown}. Clients pin what one of them sends, and refuse the "
            "others. Write a dynpin.toml by hand, and name the chain files of all nodes in keys"
        )
    first = good[0]
    return Seen(host, port, chains[first.address], tuple(chains), silent, _header_of(first))


def _header_of(look: NodeLook) -> PublicKeyPins | None:
    for value in look.values(ENFORCE_NAME)[:1]:  # RFC 7469 §2.3.1: the first field counts
        try:
            return PublicKeyPins.parse(value)
        except InvalidHeader:
            return None
    return None


def names_of(chain: Chain) -> CertificateNames:
    """The DNS names of a chain's leaf, and its IP addresses, which clients never pin (RFC 7469 §2.3.3)."""
    found = certificate_names(chain.certificates[0]) if chain.certificates else None
    return found or CertificateNames((), ())


def kind_beside(chain: Chain) -> KeyType:
    """The type of a backup key for this chain: the type of its leaf, if dynpin can make such keys."""
    deployed = key_type(read_key(chain.certificates[0], chain.label).public_key)
    same: list[KeyType] = [kind for kind in KEY_TYPES if kind == deployed]
    return same[0] if same else "rsa-3072" if deployed.startswith("rsa-") else "ec-p256"


def site_files(folder: Path, *, saves_chain: bool) -> tuple[Path, ...]:
    """The files that :func:`begin_site` writes."""
    chain = (folder / CHAIN,) if saves_chain else ()
    return (folder / INVENTORY, *chain, *key_files(folder, BACKUP).values())


def begin_site(
    folder: Path, seen: Seen, hosts: Sequence[str], key: BackupKey, *, chain: str | None, roots: str | None
) -> Built:
    """Write a site's inventory, its backup key and, without a chain file, its chain; then build the header once.

    If anything fails, the folder stays as it was. A header that would do harm is such a failure.

    Args:
        folder: the folder for the files; it is created if it is missing.
        seen: the site.
        hosts: its names.
        key: the backup key.
        chain: the path of the chain file for the inventory; None to save the chain that was seen.
        roots: the path of the roots of a private CA for the inventory, or None.

    Raises:
        PolicyError: if the files would make no useful header.
        OSError: if a file is there already, or the folder cannot be written.
    """
    backup = key_files(folder, BACKUP)
    text = _inventory(seen, hosts, chain, backup["public"], roots)
    files = {folder / INVENTORY: (text.encode(), 0o644), **key.contents(folder, BACKUP)}
    if chain is None:
        pem = "".join(map(ssl.DER_cert_to_PEM_cert, seen.chain.certificates))
        files[folder / CHAIN] = (pem.encode(), 0o644)
    with new_files(files):
        return read_inventory(folder / INVENTORY).build()


def _inventory(seen: Seen, hosts: Sequence[str], chain: str | None, backup: Path, roots: str | None) -> str:
    """The text of the inventory in the folder of the backup key; `chain` and `roots` are relative to it."""
    sent = tuple(_reserve_of(seen))
    kept = " The others are pins that the site sends already." if sent else ""
    own = (
        []
        if roots is None
        else ["", "# The roots of your own CA, which clients trust.", f"roots = [{toml_string(roots)}]"]
    )
    lines = [
        f"# The pins of {seen.host} (RFC 7469), for dynpin's middleware and commands. Paths start at this folder.",
        "",
        "# The names of the site, from its certificate.",
        f"hosts = [{', '.join(map(toml_string, hosts))}]",
        "",
        "# The chain that the server shows. Its first key is pinned: a renewal that keeps the key changes nothing.",
        *(["# This is a copy: name the server's own file, so that dynpin sees a new key."] if chain is None else []),
        f"keys = [{toml_string(chain or CHAIN)}]",
        "",
        f"# The keys in reserve. The private half of {backup.name} belongs off this machine.{kept}",
        backups_line([backup, *sent], backup.parent),
        *own,
        "",
        "# The server keeps the header that it sent last in this file, so that a restart does not forget it.",
        'remember = "dynpin-sent.txt"',
        "",
        "[policy]",
        "# For how long clients refuse all other keys after a visit. Begin with an hour; if all is well: 30 days.",
        'max_age = "1 hour"',
        "",
        "# Where clients report a key that is not pinned: a dynpin collect on another host.",
        '# report_uri = "https://reports.example.net/r/TOKEN/enforce"',
        "",
        "# With a report_uri, [ramp] begins in report-only and grows to max_age while no problems are reported.",
        "# [ramp]",
        "",
    ]
    return "\n".join(lines)


def _reserve_of(seen: Seen) -> Iterable[Pin]:
    """The Backup Pins that the site already sends. If it stops, a later change to such a key locks clients out."""
    pins = () if seen.header is None or not seen.header.max_age else seen.header.pins
    for pin in pins:
        if in_chain(read_key(pin, str(pin)), [seen.chain]) is None:
            yield pin
