"""`dynpin lab ca`: a CA and a certificate to practise with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dynpin.cli.errors import fail, reason_of
from dynpin.cli.lab_site import practice_name
from dynpin.cli.printing import say
from dynpin.deploy.keys import new_files
from dynpin.lab.certificates import Authority, KeyPair

__all__ = ["ca"]


def ca(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder to write to; it is made in one that is there.")
    ],
    host: Annotated[str, typer.Argument(metavar="HOST", help="The name that the certificate is for.")],
) -> None:
    """Make a CA and a certificate of it for HOST, to practise with.

    ca.pem is what a client trusts, and ca.key.pem signs the CSRs of backup keys.
    It is for practice alone: who has that key can be any host to such a client.

    Example: dynpin lab ca tls localhost
    """
    name = practice_name(host)
    if not folder.resolve().parent.is_dir():
        fail(f"{folder.parent}: no such folder; make it first: of DIR only the last folder is made")
    # Each has a name of its own, since a client may trust several. RFC 5280: 64 characters at most.
    root = Authority(f"practice CA {folder.resolve().name}"[:64])
    certificate = root.issue(name, KeyPair(f"{name} key", name))
    files = {
        folder / "ca.pem": (root.pem, 0o644),
        folder / "ca.key.pem": (root.key.private_pem, 0o600),
        folder / "fullchain.pem": (certificate.pem, 0o644),
        folder / "privkey.pem": (certificate.key.private_pem, 0o600),
    }
    told = ("what a client trusts", "its private key", f"the chain that {name} shows", "its private key")
    try:
        with new_files(files):
            pass
    except OSError as error:
        fail(reason_of(error))
    for file, what in zip(files, told, strict=True):
        say(f"{file!s:<24}  {what}")
