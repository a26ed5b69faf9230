"""The keys and policy in a site's inventory, and the faults of its files (RFC 7469 §2.5, §4.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dynpin.errors import InvalidHost, PolicyError
from dynpin.header import PublicKeyPins
from dynpin.hosts import canonical_host
from dynpin.middleware.policy import (
    Chain,
    Inventory,
    Key,
    chain_faults,
    covers,
    in_chain,
    path_of,
    public_key,
    read_chain,
    unproven,
    validated_path,
)
from dynpin.pins import Pin

from .circumstances import Circumstances, Observed
from .faults import Severity

__all__ = ["Holdings", "holdings_of", "observed_in_chain"]

_RSA_BITS = 2048
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


@dataclass(frozen=True, slots=True)
class Holdings:
    """The content of an inventory and its key files at one time.

    Attributes:
        inventory: the inventory.
        chains: the deployed chains.
        backups: the keys in reserve.
        header: the header that the site should send, at the present step of the ramp; None if the inventory makes none.
        observed: the faults of the files.
    """

    inventory: Inventory
    chains: tuple[Chain, ...]
    backups: tuple[Key, ...]
    header: PublicKeyPins | None
    observed: tuple[Observed, ...]

    @property
    def name(self) -> str:
        """The name of the inventory in messages: its file."""
        return str(self.inventory.path or "the inventory")

    @property
    def host(self) -> str | None:
        """The name of the site; None if it has only wildcards and addresses."""
        return self.inventory.host

    @property
    def pins(self) -> tuple[Pin, ...]:
        """The pins that the live header may have and must have: those of the operator's keys."""
        if self.header is not None:
            return self.header.pins
        leaves = [chain.pins[0] for chain in self.chains]
        return tuple(dict.fromkeys([*(pin for pin in leaves if pin is not None), *(key.pin for key in self.backups)]))

    @property
    def deployed(self) -> frozenset[Pin]:
        """The pins of the leaves of the deployed chains."""
        return frozenset(pin for chain in self.chains if (pin := chain.pins[0]) is not None)

    def answers(self, host: str) -> bool:
        """Whether the inventory names this host."""
        try:
            name = canonical_host(host)
        except InvalidHost:
            return False
        return covers(self.inventory.hosts, name)

    def circumstances(self, known: Circumstances) -> Circumstances:
        """The known circumstances, with the keys, the host and the ramp of this inventory.

        If no chain is known, the chain is the one that clients validate, built from the files.
        """
        pins = [pin for chain in self.chains for pin in validated_path(chain, self.inventory.roots)]
        ramp = self.inventory.ramp
        return replace(
            known,
            host=known.host or self.host,
            held_keys=tuple(map(str, self.pins)),
            chain_pins=known.chain_pins or tuple(map(str, dict.fromkeys(pins))),
            ramp_steps=() if ramp is None else tuple(step.max_age for step in ramp.steps if step.max_age is not None),
        )


def holdings_of(inventory: Inventory, now: float) -> Holdings:
    """Read the files of an inventory, and look for faults.

    Args:
        inventory: the inventory.
        now: the time for checking certificates, in seconds since the epoch, UTC.

    Raises:
        PolicyError: if a file cannot be read or has no key.
    """
    chains, backups = inventory.read_chains(), inventory.read_backups()
    observed = list(_of_chains(inventory, chains, now))
    observed += _of_backups(inventory, chains, backups)
    observed += _swapped(inventory, chains)
    header = None
    try:
        header = inventory.build(now).header
    except PolicyError as error:
        # Only once: the policy refuses for one of these reasons too.
        if not any(each.reason in str(error) for each in observed):
            observed.append(Observed("policy-refused", str(error)))
    return Holdings(inventory, chains, backups, header, tuple(observed))


def observed_in_chain(
    chain: Chain, hosts: Sequence[str], now: float, beside: Sequence[Chain] = ()
) -> Iterator[Observed]:
    """The faults of a chain. If clients accept it nevertheless, the fault is a warning."""
    faults = chain_faults(chain, hosts, now=now, beside=beside)
    # If the first certificate is not the server's, its names and dates mean nothing.
    misplaced = [
        each for each in faults if each.refused and each.code in ("chain-out-of-order", "ca-certificate-as-leaf")
    ]
    for fault in misplaced or faults:
        yield Observed(fault.code, fault.message, None if fault.refused else "warning")


def _of_chains(inventory: Inventory, chains: Sequence[Chain], now: float) -> Iterator[Observed]:
    for chain in chains:
        yield from observed_in_chain(chain, inventory.hosts, now, [each for each in chains if each is not chain])


def _of_backups(inventory: Inventory, chains: Sequence[Chain], backups: Sequence[Key]) -> Iterator[Observed]:
    found = [in_chain(backup, chains, inventory.roots) for backup in backups]
    severity: Severity | None = "error" if all(found) else None
    for why in found:
        if why is not None:
            yield Observed("backup-pin-in-chain", why, severity)
    doubt = unproven([each for each, why in zip(backups, found, strict=True) if why is None], chains, inventory.roots)
    if doubt is not None:
        yield Observed("backup-pin-unproven", doubt)
    # Where a key of such a kind is deployed, clients and servers have the settings for it.
    deployed = {_unusual(public_key(chain.certificates[0])) for chain in chains if chain.certificates}
    for backup in backups:
        kind = "an EC key with explicit parameters" if _has_parameters(backup) else _unusual(backup.public_key)
        if kind is not None and kind not in deployed:
            yield Observed("backup-key-unusable", f"{backup.label} is {kind}")


def _unusual(key: object) -> str | None:
    """The kind of a key that TLS clients with OpenSSL's or Python's defaults refuse in a certificate; else None."""
    match key:
        case rsa.RSAPublicKey() if key.key_size < _RSA_BITS:
            return f"an RSA key of {key.key_size} bits"
        case ec.EllipticCurvePublicKey() if not isinstance(key.curve, _CURVES):
            return f"an EC key on the curve {key.curve.name}"
        case rsa.RSAPublicKey() | ec.EllipticCurvePublicKey() | ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
            return None
        case None:  # a bare pin, or a kind that cryptography does not know
            return None
        case _:  # DSA, X25519, ML-DSA and others
            return "a key of a kind that TLS clients do not accept in a certificate"


def _has_parameters(key: Key) -> bool:
    """Whether an EC key describes its curve and does not name it, which certificates must not (RFC 5480 §2.1.1)."""
    public = key.public_key
    if not isinstance(public, ec.EllipticCurvePublicKey):
        return False
    # cryptography names the curve, whatever the file does: another encoding has another pin.
    named = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    at = 2 if named[1] < 0x80 else 3
    algorithm = named[at : at + 2 + named[at + 1]]
    point = b"\0" + public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    compressed = b"\x30%c%s\x03%c%s" % (len(algorithm) + 2 + len(point), algorithm, len(point), point)
    return key.pin not in map(Pin.from_spki, (named, compressed))


def _swapped(inventory: Inventory, chains: Sequence[Chain]) -> Iterator[Observed]:
    """A certificate among the backups and none among the deployed keys: a deployed key always has a certificate."""
    if any(chain.certificates for chain in chains):
        return
    for source in inventory.backups:
        path = path_of(source)
        chain = None if path is None else read_chain(path, "a backup")
        if path is not None and chain is not None and _is_for(chain, inventory.hosts):
            names = ", ".join(chain.names or ())
            reason = f"backups names {Path(path).name}, a certificate for {names}, and keys names no certificate"
            yield Observed("keys-and-backups-swapped", f"{reason}: the two look swapped")
            return


def _is_for(chain: Chain, hosts: Sequence[str]) -> bool:
    return bool(chain.names) and (not hosts or any(covers(chain.names or (), host) for host in hosts))
