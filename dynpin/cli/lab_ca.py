"""`dynpin lab ca`: a CA and a certificate to practise with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dynpin.cli.lab_site import practice_name
from dynpin.cli.options import JsonOption
from dynpin.cli.printing import print_json, say
from dynpin.cli.written import check_new_folder
from dynpin.deploy.keys import new_files
from dynpin.lab.certificates import Authority, KeyPair

__all__ = ["ca"]


def ca(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The folder to write to; it is created, but not its parents.")
    ],
    host: Annotated[str, typer.Argument(metavar="HOST", help="The name that the certificate is for.")],
    as_json: JsonOption = False,
) -> None:
    """Make a CA and a certificate from it for HOST, to practise with.

    Clients trust ca.pem, and ca.key.pem signs the CSRs of backup keys.
    Use it only for practice: a person who has that key can pretend to be any host to such a client.

    Example: dynpin lab ca tls localhost
    """
    name = practice_name(host)
    check_new_folder(folder)
    # Each has its own name, since a client may trust several. RFC 5280: at most 64 characters.
    root = Authority(f"practice CA {folder.resolve().name}"[:64])
    certificate = root.issue(name, KeyPair(f"{name} key", name))
    files = {
        folder / "ca.pem": (root.pem, 0o644),
        folder / "ca.key.pem": (root.key.private_pem, 0o600),
        folder / "fullchain.pem": (certificate.pem, 0o644),
        folder / "privkey.pem": (certificate.key.private_pem, 0o600),
    }
    told = ("what a client trusts", "its private key", f"the chain that {name} shows", "its private key")
    with new_files(files):
        pass
    if as_json:
        names = ("ca", "ca_key", "chain", "key")
        print_json(dict(zip(names, map(str, files), strict=True)))
        return
    for file, what in zip(files, told, strict=True):
        say(f"{file!s:<24}  {what}")
