"""`dynpin collect`: serve the report-uri endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dynpin.cli.errors import fail

__all__ = ["app"]

app = typer.Typer(help="Take violation reports (RFC 7469 §3), keep them, and say what they mean.")


@app.callback(invoke_without_command=True)
def collect(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.")] = 8080,
    storage: Annotated[Path, typer.Option(help="The SQLite file of the reports.")] = Path("reports.sqlite"),
    token: Annotated[
        list[str] | None, typer.Option(help="A token of the report-uri, beside those that are stored. Repeatable.")
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="The certificate chain, PEM, to serve https with.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    open_access: Annotated[
        bool, typer.Option("--open-access", help="Let everyone who reaches the address read the reports.")
    ] = False,
) -> None:
    """Take violation reports (RFC 7469 §3), keep them, and say what they mean.

    Reports go to /r/TOKEN/enforce and /r/TOKEN/report-only; GET /api/reports and /api/groups list them as JSON.
    """
    if context.invoked_subcommand is not None:
        return
    from dynpin.middleware.collector import collector  # noqa: PLC0415 - an extra, and slow to import

    try:
        import uvicorn  # noqa: PLC0415

        reports = collector(storage, tokens=token or (), open_access=open_access)
    except ModuleNotFoundError as error:
        fail(f'the collector needs {error.name}: pip install "dynpin[collector]"')
    scheme = "http" if tls_certificate is None else "https"
    for name in token or ():
        typer.echo(f"report-uri  {scheme}://{host}:{port}/r/{name}/enforce", err=True)
    uvicorn.run(
        reports,
        host=host,
        port=port,
        ssl_certfile=tls_certificate,
        ssl_keyfile=tls_key,
        log_level="info",
        access_log=False,
        server_header=False,
    )
