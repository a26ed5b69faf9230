"""One set of pins for every platform: header lines for servers, static pins for clients (RFC 7469 §2.7).

These are pure functions from a header or a static entry to text. If a format cannot express something, the function
raises; it leaves nothing out.
"""

from __future__ import annotations

import json
import plistlib
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from xml.sax.saxutils import escape, quoteattr

from dynpin.clientstore.store.formats import lost_in_wget2, write_toml, write_wget2
from dynpin.header import PublicKeyPins
from dynpin.hosts import KnownPinnedHost, is_ip_literal

__all__ = ["FORMATS", "HEADER_FORMATS", "STATIC_FORMATS", "check_host", "export_header", "export_map", "export_static"]


def export_header(name: str, header: PublicKeyPins) -> str:
    """The configuration lines that make a server send `header`, for one of HEADER_FORMATS.

    Raises:
        ValueError: for another format; for a policy without a Backup Pin, which clients ignore; or for a report-uri
            that the server's configuration cannot express.
    """
    if name not in HEADER_FORMATS:
        raise ValueError(f"{name!r} is not a server: there are {', '.join(HEADER_FORMATS)}")
    # RFC 7469 §2.5, §4.3: without a Backup Pin clients ignore the policy.
    if len(header.pins) < 2 and header.max_age != 0:
        raise ValueError("a policy needs two pins: the deployed key's and a backup key's (dynpin keys new)")
    return HEADER_FORMATS[name](header)


def export_static(name: str, entry: KnownPinnedHost) -> str:
    """The static pins of one host for a client, for one of STATIC_FORMATS.

    Raises:
        ValueError: for another format; for an entry without pins, or with too few for a platform that wants two; or
            for a host that the format cannot name.
    """
    if name not in STATIC_FORMATS:
        raise ValueError(f"{name!r} is not a client: there are {', '.join(STATIC_FORMATS)}")
    if not entry.pins:
        raise ValueError(f"there is no pin for {entry.host}")
    check_host(entry, wildcards=name == "okhttp")
    return STATIC_FORMATS[name](entry)


def check_host(entry: KnownPinnedHost, *, wildcards: bool) -> None:
    """Refuse a host that no connection would be compared with, so that its pins would never be enforced.

    Raises:
        ValueError: for an IP address; and for a wildcard, unless the format has them and the subdomains are not covered
            anyway.
    """
    if is_ip_literal(entry.host):
        raise ValueError(
            f"{entry.host} is an IP address, and clients pin only names (RFC 7469 §2.3.3): give --host NAME"
        )
    if "*" in entry.host and (entry.include_subdomains or not wildcards):
        parent = entry.host.removeprefix("*.")
        raise ValueError(
            f"{entry.host} is the name of no host, so its pins would never be enforced: give each host with --host, or "
            f"--host {parent} --include-subdomains, which covers all names below it"
        )


# --- servers -------------------------------------------------------------------------------------------------------


def _nginx(header: PublicKeyPins) -> str:
    text = str(header)
    if "$" in text:
        raise ValueError("nginx reads $ as a variable: write it as %24 in the report-uri")
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return (
        "# In the server block that speaks TLS. A location with an add_header of its own needs this line again.\n"
        f"add_header {header.name} '{quoted}' always;\n"
    )


def _apache(header: PublicKeyPins) -> str:
    # The value is a format string of mod_headers in double quotes.
    quoted = str(header).replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return f'# In the VirtualHost that speaks TLS; needs mod_headers.\nHeader always set {header.name} "{quoted}"\n'


def _caddy(header: PublicKeyPins) -> str:
    text = str(header)
    if "`" in text:
        raise ValueError("a Caddyfile cannot quote `: write it as %60 in the report-uri")
    return f"# In the site block.\nheader {header.name} `{text}`\n"


def _haproxy(header: PublicKeyPins) -> str:
    # A log-format string in strong quotes. To write ' the string must leave the quotes.
    quoted = str(header).replace("%", "%%").replace("'", "'\\''")
    return (
        "# In the frontend that speaks TLS; after-response covers HAProxy's own error pages too.\n"
        f"http-after-response set-header {header.name} '{quoted}' if {{ ssl_fc }}\n"
    )


def export_map(header: PublicKeyPins) -> str:
    """The map file with the header for HAProxy, whose configuration cannot include a file inside a section."""
    return f"{header.name} {header}\n"


def _traefik(header: PublicKeyPins) -> str:
    quoted = str(header).replace("'", "''")
    return (
        "# Dynamic configuration (file provider). Name the middleware in the TLS router.\n"
        "http:\n"
        "  middlewares:\n"
        "    public-key-pins:\n"
        "      headers:\n"
        "        customResponseHeaders:\n"
        f"          {header.name}: '{quoted}'\n"
    )


# --- mobile platforms ----------------------------------------------------------------------------------------------


def _android(entry: KnownPinnedHost) -> str:
    return _network_security_config(entry, trustkit=False)


def _trustkit_android(entry: KnownPinnedHost) -> str:
    _needs_backup(entry, "TrustKit")
    return _network_security_config(entry, trustkit=True)


def _network_security_config(entry: KnownPinnedHost, *, trustkit: bool) -> str:
    expires = _expiry_day(entry)
    expiration = f" expiration={quoteattr(expires.isoformat())}" if expires else ""
    pins = "\n".join(f'            <pin digest="SHA-256">{pin}</pin>' for pin in entry.pins)
    more = ""
    if trustkit:
        report = (
            "" if entry.report_uri is None else f"\n            <report-uri>{escape(entry.report_uri)}</report-uri>"
        )
        more = f'\n        <trustkit-config enforcePinning="true">{report}\n        </trustkit-config>'
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        "<!-- res/xml/network_security_config.xml; the manifest names it as android:networkSecurityConfig. -->\n"
        "<network-security-config>\n"
        "    <domain-config>\n"
        f'        <domain includeSubdomains="{_truth(entry.include_subdomains)}">{escape(entry.host)}</domain>\n'
        f"        <pin-set{expiration}>\n{pins}\n        </pin-set>{more}\n"
        "    </domain-config>\n"
        "</network-security-config>\n"
    )


def _ios(entry: KnownPinnedHost) -> str:
    # These are the site's own keys, so iOS looks for them in the leaf. It has another member for the keys of a CA.
    domain = {
        "NSIncludesSubdomains": entry.include_subdomains,
        "NSPinnedLeafIdentities": [{"SPKI-SHA256-BASE64": str(pin)} for pin in entry.pins],
    }
    return _plist({"NSAppTransportSecurity": {"NSPinnedDomains": {entry.host: domain}}})


def _trustkit_ios(entry: KnownPinnedHost) -> str:
    _needs_backup(entry, "TrustKit")
    domain: dict[str, object] = {
        "TSKEnforcePinning": True,
        "TSKIncludeSubdomains": entry.include_subdomains,
        "TSKPublicKeyHashes": [str(pin) for pin in entry.pins],
    }
    expires = _expiry_day(entry)
    if expires:
        domain["TSKExpirationDate"] = expires.isoformat()
    if entry.report_uri:
        domain["TSKReportUris"] = [entry.report_uri]
    return _plist({"TSKConfiguration": {"TSKPinnedDomains": {entry.host: domain}}})


def _plist(content: Mapping[str, object]) -> str:
    return plistlib.dumps(content, sort_keys=False).decode("utf-8")


def _okhttp(entry: KnownPinnedHost) -> str:
    pins = ", ".join(f'"sha256/{pin}"' for pin in entry.pins)
    hosts = [entry.host, f"**.{entry.host}"] if entry.include_subdomains else [entry.host]
    lines = "\n".join(f"    .add({_kotlin(host)}, {pins})" for host in hosts)
    return (
        f"// OkHttp supports no expiry and no report{_until(entry)}; ship a new version before the keys change.\n"
        "import okhttp3.CertificatePinner\n\n"
        f"val certificatePinner = CertificatePinner.Builder()\n{lines}\n    .build()\n"
    )


def _kotlin(text: str) -> str:
    return json.dumps(text).replace("$", "\\$")


# --- tools and languages -------------------------------------------------------------------------------------------


def _curl(entry: KnownPinnedHost) -> str:
    pins = ";".join(f"sha256//{pin}" for pin in entry.pins)
    return (
        f"# curl --config FILE https://{entry.host}/   The pins apply to every host that this command visits,\n"
        "# and curl looks for them only in the leaf certificate.\n"
        f'pinnedpubkey = "{pins}"\n'
    )


def _wget2(entry: KnownPinnedHost) -> str:
    lost = lost_in_wget2(entry)
    if lost is not None:
        raise ValueError(lost)
    return "".join(write_wget2([entry]))


def _dynpin(entry: KnownPinnedHost) -> str:
    return "".join(write_toml([entry]))


_GO = """\
// Package pins holds the static pins of {host}.
//
//	client := &http.Client{{Transport: &http.Transport{{
//		TLSClientConfig: &tls.Config{{VerifyConnection: pins.VerifyConnection}},
//	}}}}
package pins

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"strings"
	"time"
)

const host = {host_text}

// Whether subdomains are covered too.
const includeSubdomains = {include}

// After this time, in seconds since the epoch, nothing is enforced; 0 for never.
const expiresAt int64 = {expires}

var pinned = map[string]bool{{
{pins}
}}

// VerifyConnection refuses a connection to {host} whose verified chain has none of its pins.
func VerifyConnection(state tls.ConnectionState) error {{
	name := strings.ToLower(strings.TrimSuffix(state.ServerName, "."))
	applies := name == host || includeSubdomains && strings.HasSuffix(name, "."+host)
	if !applies || expiresAt != 0 && time.Now().Unix() > expiresAt {{
		return nil
	}}
	for _, chain := range state.VerifiedChains {{
		for _, certificate := range chain {{
			digest := sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
			if pinned[base64.StdEncoding.EncodeToString(digest[:])] {{
				return nil
			}}
		}}
	}}
	return errors.New("pins: " + name + " shows none of its pinned keys")
}}
"""


def _go(entry: KnownPinnedHost) -> str:
    return _GO.format(
        host=entry.host,
        host_text=json.dumps(entry.host),
        include=_truth(entry.include_subdomains),
        expires=0 if entry.expires_at is None else int(entry.expires_at),
        pins="\n".join(f'\t"{pin}": true,' for pin in entry.pins),
    )


# --- shared --------------------------------------------------------------------------------------------------------


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _expiry_day(entry: KnownPinnedHost) -> date | None:
    """The last day on which the platform enforces: never later than the entry's own end."""
    return None if entry.expires_at is None else datetime.fromtimestamp(entry.expires_at, UTC).date()


def _until(entry: KnownPinnedHost) -> str:
    day = _expiry_day(entry)
    return f" (these pins are meant to end on {day.isoformat()})" if day else ""


def _needs_backup(entry: KnownPinnedHost, platform: str) -> None:
    if len(entry.pins) < 2:
        raise ValueError(f"{platform} wants two pins: the deployed key's and a backup key's (dynpin keys new)")


HEADER_FORMATS: Mapping[str, Callable[[PublicKeyPins], str]] = {
    "nginx": _nginx,
    "apache": _apache,
    "caddy": _caddy,
    "haproxy": _haproxy,
    "traefik": _traefik,
}
STATIC_FORMATS: Mapping[str, Callable[[KnownPinnedHost], str]] = {
    "android": _android,
    "ios": _ios,
    "okhttp": _okhttp,
    "trustkit-ios": _trustkit_ios,
    "trustkit-android": _trustkit_android,
    "curl": _curl,
    "wget2": _wget2,
    "dynpin": _dynpin,
    "go": _go,
}
FORMATS = (*HEADER_FORMATS, *STATIC_FORMATS)
