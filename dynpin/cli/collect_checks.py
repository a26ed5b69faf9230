"""The checks before the collector starts: files of keys and roots, the pair for https, the public address."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from dynpin.cli.collect_settings import Settings
from dynpin.cli.errors import fail, reason_of
from dynpin.middleware.policy import read_file, read_inventory
from dynpin.pins import Pin
from dynpin.uris import is_http_uri

__all__ = ["listening_at", "own_inventories", "own_keys", "own_roots", "printed_base", "tls_pair"]


def own_keys(files: Iterable[Path]) -> dict[Pin, str]:
    """The operator's keys, pin to name."""
    found: dict[Pin, str] = {}
    for file in files:
        try:
            found[Pin.from_file(file)] = str(file)
        except (OSError, ValueError) as error:
            fail(f"--key {file}: {reason_of(error)}")
    return found


def own_inventories(named: Iterable[str]) -> tuple[dict[Pin, str], dict[str, dict[Pin, str]], list[Path]]:
    """What inventories name: the keys of every ``FILE``, those of every ``TOKEN=FILE`` for that token, all roots."""
    shared: dict[Pin, str] = {}
    of_tokens: dict[str, dict[Pin, str]] = {}
    roots: list[Path] = []
    for one in named:
        token, _, file = one.rpartition("=")
        inventory = read_inventory(file)
        (of_tokens.setdefault(token, {}) if token else shared).update(inventory.own_keys())
        roots += inventory.roots
    return shared, of_tokens, roots


def own_roots(files: Iterable[Path]) -> bytes:
    """The operator's root certificates, PEM."""
    bundles: list[bytes] = []
    for file in files:
        try:
            bundles.append(read_file(file))
            x509.load_pem_x509_certificates(bundles[-1])
        except OSError as error:
            fail(f"roots: {reason_of(error)}")
        except ValueError:
            fail(f"roots: {file} has no readable certificate in PEM; it must contain your root certificates")
    return b"\n".join(bundles)


def tls_pair(certificate: Path | None, key: Path | None) -> None:
    """Refuse a pair that cannot be served, before the collector starts."""
    if certificate is None:
        if key is not None:
            fail(f"--tls-key {key} needs --tls-certificate")
        return
    from dynpin.deploy.candidate import key_fault  # noqa: PLC0415 - only https needs it

    for file in filter(None, (certificate, key)):
        if file.exists() and not file.is_file():
            fail(f"{file} is not a file, and https needs it again when the collector starts: name a file in PEM")
        read_file(file)  # OpenSSL's error would not name it
    fault = key_fault(certificate, key or certificate)
    if fault is not None:
        alone = "" if key is not None else f" with only {certificate} (name its key with --tls-key)"
        fail(f"https cannot be served{alone}: {fault.message}")


def printed_base(settings: Settings, listening: str) -> str:
    """The address of the intake for clients, as far as the settings tell."""
    if not settings.public_url:
        return listening
    _check_public_url(settings.public_url)
    return settings.public_url.rstrip("/")


def listening_at(settings: Settings, port: int) -> str:
    """The address where the process listens."""
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{'http' if settings.tls_certificate is None else 'https'}://{shown}:{port}"


def _check_public_url(url: str) -> None:
    """Refuse a text that is not the address of a web server."""
    try:
        parts = urlsplit(url)
        if "@" in parts.netloc:
            fail("--public-url has a user or a password, which everybody would see in the header; leave it out")
        is_address = is_http_uri(url) and not (parts.query or parts.fragment)
    except ValueError:
        is_address = False
    if not is_address:
        fail(f"--public-url {url} is not an address; write one such as https://pins.example")
