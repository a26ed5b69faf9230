"""`dynpin init`: begin to pin a site, from its live host or its chain file."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from cryptography import x509

from dynpin.cli.errors import fail, finding, reason_of
from dynpin.cli.options import CaOption, JsonOption, TimeoutOption
from dynpin.cli.passphrase import PassphraseFileOption, passphrase
from dynpin.cli.printing import print_json, say
from dynpin.cli.urls import https_url
from dynpin.deploy.init import (
    NodesDiffer,
    Seen,
    begin_site,
    kind_beside,
    look_at_host,
    names_of,
    site_files,
)
from dynpin.deploy.keys import KeyType, key_files, key_type, new_key
from dynpin.deploy.reach import tls_context
from dynpin.errors import PolicyError
from dynpin.hosts import is_ip_literal
from dynpin.middleware.policy import chain_faults, read_chain, read_key

__all__ = ["init"]

_NEXT = """\
Next
  1. Move {private} off this machine, to two places in different buildings. Keep its passphrase in a third place.
  2. Send the header. In Flask:  app.wsgi_app = PublicKeyPinsWSGIMiddleware(app.wsgi_app, "{inventory}")
     In FastAPI and other ASGI apps:  app = PublicKeyPinsMiddleware(app, "{inventory}")
     With a proxy alone:  dynpin export nginx --watch FILE --reload COMMAND
     Then look at it from outside:  dynpin check {url}"""


def init(
    site: Annotated[
        str,
        typer.Argument(
            metavar="HOST|CHAIN",
            help="The live host, as a name, name:port or https URL; or the file with its chain.",
        ),
    ],
    keys: Annotated[
        Path | None,
        typer.Option(
            "--keys",
            help="For a live host: the chain file that its server reads. By default the chain is saved as chain.pem.",
            show_default=False,
        ),
    ] = None,
    folder: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The folder to write to.")] = Path(),
    kind: Annotated[
        KeyType | None,
        typer.Option(
            "--type",
            help="The type of the backup key. The default is the type of the deployed key.",
            show_default=False,
        ),
    ] = None,
    passphrase_file: PassphraseFileOption = None,
    ca: CaOption = None,
    timeout: TimeoutOption = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Begin to pin a site: check its chain, make a backup key, and write a dynpin.toml that names both.

    Nothing is overwritten. If the command fails, the folder is unchanged.
    The exit code is 1 if the site cannot be pinned as it is.

    Example: dynpin init www.example.com

    Example: dynpin init tls/fullchain.pem --out pins
    """
    is_file = Path(site).is_file()
    if keys is not None and is_file:
        fail(f"{site} is the chain file itself: leave --keys out")
    saves_chain = not is_file and keys is None
    _refuse_what_is_there(folder, saves_chain=saves_chain)
    seen = _of_file(Path(site)) if is_file else _of_host(site, keys, ca, timeout)
    _check(seen)
    hosts = _hosts(seen)
    _show(seen, hosts, err=as_json)
    chosen = kind or kind_beside(seen.chain)
    secret = passphrase(passphrase_file)
    names, addresses = names_of(seen.chain)
    key = new_key(chosen, [*dict.fromkeys((*hosts, *names)), *addresses], secret)
    chain = None if saves_chain else _named(Path(site) if keys is None else keys, folder)
    roots = None if ca is None else _named(ca, folder)
    try:
        built = begin_site(folder, seen, hosts, key, chain=chain, roots=roots)
    except PolicyError as error:
        finding(f"nothing was written: {error}")
    for warning in built.warnings:
        say(f"dynpin: {warning}", err=True)
    files = site_files(folder, saves_chain=saves_chain)
    if as_json:
        answer = {"hosts": list(hosts), "header": str(built.header), "backup": {"type": chosen, "pin": str(key.pin)}}
        print_json({**answer, "files": [str(file) for file in files], "warnings": list(built.warnings)})
        return
    say("\nWritten")
    for file in files:
        say(f"  {file}{'  (encrypted)' if file.name.endswith('.key.pem') else ''}")
    private = key_files(folder, "backup")["private"]
    host = seen.host.replace("*", "NAME")  # a wildcard has no address
    url = f"https://{host}{'' if seen.port == 443 else f':{seen.port}'}/{'' if ca is None else f' --ca {ca}'}"
    say(f"\n{_NEXT.format(private=private, inventory=files[0], url=url)}")


def _refuse_what_is_there(folder: Path, *, saves_chain: bool) -> None:
    """Refuse existing files before the first question. Later writes never overwrite a file either."""
    if os.path.lexists(folder) and not folder.is_dir():
        what = "a link to a place that does not exist" if folder.is_symlink() else "a file"
        fail(f"{folder} is {what}: --out names a folder")
    for file in site_files(folder, saves_chain=saves_chain):
        if file.exists() or file.is_symlink():
            fail(f"{file} exists, and is not overwritten: choose another folder with --out, or move it away")


def _of_file(file: Path) -> Seen:
    chain = read_chain(file, str(file))
    if not chain.certificates:
        fail(f"{file} holds no certificate: name the chain that the server shows, such as fullchain.pem")
    names = names_of(chain).dns
    return Seen(next((name for name in names if "*" not in name), names[0] if names else ""), 443, chain)


def _of_host(text: str, keys: Path | None, ca: Path | None, timeout: float) -> Seen:
    if "/" in text.removeprefix("https://").rstrip("/") or text.endswith((".pem", ".crt", ".cer")):
        fail(f"there is no file {text}, and it is not a name of a host: give the host's name, or the path of its chain")
    url = https_url(text if "://" in text else f"https://{text}/")
    if is_ip_literal(url.host):
        _no_name(url.host)
    context = tls_context(ca)
    say(f"looking at https://{url.host}:{url.port}/", err=True)
    try:
        seen = look_at_host(url.host, url.port, context, timeout=timeout)
    except NodesDiffer as error:
        finding(str(error))
    except OSError as error:
        fail(reason_of(error, f"{url.host} does not resolve"))
    if keys is not None:
        chain = read_chain(keys, str(keys))
        if chain.pins[0] != seen.chain.pins[0]:
            finding(
                f"{keys} has the key {chain.pins[0]}, and {url.host} shows {seen.chain.pins[0]}: it is not the chain "
                "file of this server, or the server has not read it yet"
            )
    return seen


def _no_name(host: str) -> NoReturn:
    fail(f"{host} is an IP address, but clients pin only names (RFC 7469 §2.3.3): give the name of the host")


def _hosts(seen: Seen) -> tuple[str, ...]:
    names, addresses = names_of(seen.chain)
    if not names and addresses:
        _no_name(addresses[0])
    if not names:
        finding(f"the certificate of {seen.chain.label} names no host: ask your CA for one with subjectAltName")
    return tuple(dict.fromkeys((seen.host, *names)))


def _show(seen: Seen, hosts: tuple[str, ...], *, err: bool) -> None:
    leaf = x509.load_der_x509_certificate(seen.chain.certificates[0])
    say(f"{seen.host}{' at ' + ', '.join(seen.addresses) if seen.addresses else ''}", err=err)
    say(f"  names    {', '.join(hosts)}", err=err)
    say(f"  issuer   {leaf.issuer.rfc4514_string()}", err=err)
    say(f"  until    {leaf.not_valid_after_utc:%Y-%m-%d}", err=err)
    kind = key_type(read_key(seen.chain.certificates[0], seen.chain.label).public_key)
    say(f"  key      {seen.chain.pins[0]}  ({kind})", err=err)
    if seen.addresses:
        sent = "none yet" if seen.header is None else str(seen.header)
        say(f"  header   {sent}", err=err)
    for line in seen.silent:
        say(f"dynpin: {line}", err=True)


def _check(seen: Seen) -> None:
    faults = chain_faults(seen.chain, now=time.time())
    refused = [fault.message for fault in faults if fault.refused or fault.code == "certificate-unreadable"]
    if refused:
        finding("\n".join(refused))


def _named(file: Path, folder: Path) -> str:
    """The path of a file for the inventory in this folder: absolute paths unchanged, others relative to the folder."""
    # The folder may be a link: ".." is then the parent of its target.
    return str(file) if file.is_absolute() else os.path.relpath(file, os.path.realpath(folder))
