"""The lab's claims about user agents. Each has its source, or says how it is observed.

The browsers with HPKP are no longer available, so their claims are based on their source code. wget2 is available and
runs in the lab, so its claims are also observed each time a scenario is played. Without a source there is no claim.
``docs/how-to/lab.md`` lists them all.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CLAIMS", "Claim"]

# Chromium: the mirror of its repository on GitHub, mirror/chromium, in 2017; version 57 from icecreamzhao/miniblink57.
# Firefox: version 68 from its fork Mypal (Feodor2/Mypal68); gecko-dev of 2018 for its storage, and mozilla/gecko-dev
# for its tools. wget2: version 1.99, rockdaboot/wget2.
_STATE = "Chromium, net/http/transport_security_state.cc at 090c68f4fd3826f77898126ee756a5b909453d8f (2017)"
_HEADERS = "Chromium 57, net/http/http_security_headers.cc"
_PERSISTER = "Chromium, net/http/transport_security_persister.cc at c15b603ba2c938ed37c2274609871a53d915fb97 (2017)"
_SERVICE = "Firefox 68, security/manager/ssl/nsSiteSecurityService.cpp"
_PINNING = "Firefox 68, security/manager/ssl/PublicKeyPinningService.cpp"
_STORAGE = "Firefox 2018, security/manager/ssl/DataStorage.cpp at fc84a1ff8c7a9993e281d3c690b9f235991c8f45"
_HPKP = "wget2 1.99, libwget/hpkp.c"
_INTENT = "Chris Palmer, 'Intent To Deprecate And Remove: Public Key Pinning', blink-dev, 2017-10-27"


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement about an agent.

    Attributes:
        name: its name in the stories.
        agent: the agent, such as ``"chromium"``.
        text: the claim, a sentence.
        source: the file, its version and the function; or the published text.
    """

    name: str
    agent: str
    text: str
    source: str


_ALL = (
    # -- dynpin --------------------------------------------------------------------------------------------------------
    Claim(
        "dynpin-all-roots",
        "dynpin",
        "dynpin checks every chain against the pins, whatever root it ends in, unless it is told "
        'private_roots="bypass".',
        "dynpin/clientstore/enforcement, Enforcement; seen at each playing",
    ),
    Claim(
        "dynpin-static-first",
        "dynpin",
        "dynpin's static pins stand until they expire or are forgotten: no header changes them. RFC 7469 §2.7 leaves "
        "the order open.",
        "dynpin/noting.py, note; seen at each playing",
    ),
    Claim(
        "dynpin-zero",
        "dynpin",
        "dynpin takes max-age=0 with and without pins (RFC 7469 §2.3.1 over §2.5).",
        "dynpin/noting.py, note; seen at each playing",
    ),
    Claim(
        "dynpin-bound",
        "dynpin",
        "dynpin refuses new hosts when a limit is reached, and keeps old ones.",
        "dynpin/clientstore/store, PinStore; seen at each playing",
    ),
    # -- Chromium ------------------------------------------------------------------------------------------------------
    Claim(
        "chromium-fatal",
        "chromium",
        "Chromium let nobody click past an error on a host that has pins.",
        f"{_STATE}, ShouldSSLErrorsBeFatal",
    ),
    Claim(
        "chromium-after-tls",
        "chromium",
        "Chromium checked the chain against the pins after it had accepted the certificate itself.",
        "Chromium, net/socket/ssl_client_socket_impl.cc (2017), DoVerifyCertComplete",
    ),
    Claim(
        "chromium-valid",
        "chromium",
        "Chromium noted a header only with one pin in the validated chain and one that is not in it.",
        f"{_HEADERS}, IsPinListValid",
    ),
    Claim(
        "chromium-zero",
        "chromium",
        "Chromium treated max-age=0 like any header, so a bare max-age=0 was ignored.",
        f"{_HEADERS}, ParseHPKPHeader; {_STATE}, AddHPKPHeader",
    ),
    Claim(
        "chromium-lenient",
        "chromium",
        "Chromium read past white space around '=', single quotes and repeated directives: the last one won.",
        f"{_HEADERS}, ParseHPKPHeaderImpl; net/http/http_util.cc, NameValuePairsIterator::GetNext",
    ),
    Claim(
        "chromium-cap",
        "chromium",
        "Chromium capped max-age at 60 days from 2016 on, and at a year before.",
        "Chromium, net/http/http_security_headers.h (2017), kMaxHPKPAgeSecs; bugs.chromium.org, issue 523654",
    ),
    Claim(
        "chromium-replaces",
        "chromium",
        "Chromium replaced all data of a host by those of the new header.",
        f"{_STATE}, EnablePKPHost",
    ),
    Claim(
        "chromium-nearest",
        "chromium",
        "In Chromium the nearest name's entry hides a farther one, even if it does not cover subdomains.",
        f"{_STATE}, GetDynamicPKPState",
    ),
    Claim(
        "chromium-noted-first",
        "chromium",
        "In Chromium noted pins come before built-in ones.",
        f"{_STATE}, CheckPublicKeyPinsImpl",
    ),
    Claim(
        "chromium-static",
        "chromium",
        "Only official builds of Chrome had pins built in, and none on Android and iOS; they lapsed ten weeks after "
        "the build.",
        f"{_STATE}, the constructor of TransportSecurityState and IsBuildTimely",
    ),
    Claim(
        "chromium-deletes",
        "chromium",
        "Chromium deleted an entry when it looked it up and found it expired.",
        f"{_STATE}, GetDynamicPKPState",
    ),
    Claim(
        "chromium-no-limit",
        "chromium",
        "Chromium kept its entries in a map without a limit.",
        f"{_STATE}, EnablePKPHost",
    ),
    Claim(
        "chromium-flooded",
        "chromium",
        "A flood of HSTS entries, which it kept in the same way, put Chrome out of service.",
        "ERNW, 'Analysis of HSTS Caches of Different Browsers', insinuator.net, 2021-05",
    ),
    Claim(
        "chromium-incognito",
        "chromium",
        "Incognito had a set of its own, gone with its last window; until 2017 it began as a copy of the usual one, "
        "and from 2018 on it began empty.",
        f"{_PERSISTER} and chrome/browser/profiles/profile_io_data.cc at 7a6e9ff4abc69d9473478ec355e7272614b0f123 "
        "(read-only, 2017); "
        "chrome/browser/net/profile_network_context_service.cc (2018), CreateNetworkContextParams",
    ),
    Claim(
        "chromium-user-roots",
        "chromium",
        "Chromium noted pins under a root that the user had installed, and refused nothing by them there.",
        f"{_STATE}, CheckPinsAndMaybeSendReport; net/url_request/url_request_http_job.cc (2017), "
        "ProcessPublicKeyPinsHeader",
    ),
    Claim(
        "chromium-reports",
        "chromium",
        "Chromium sent a report at once, and did not try again if that failed.",
        f"{_STATE}, CheckPinsAndMaybeSendReport",
    ),
    Claim(
        "chromium-report-loop",
        "chromium",
        "Chromium sent no report by https to the host that failed, and the same report once an hour, as far as the "
        "last 50 were remembered.",
        f"{_STATE}, IsReportUriValidForHost, CheckPinsAndMaybeSendReport and kMaxReportCacheEntries",
    ),
    Claim(
        "chromium-forgets",
        "chromium",
        "A user of Chromium could delete what it held of one host, pins and HSTS, at chrome://net-internals.",
        f"{_STATE}, DeleteDynamicDataForHost, which chrome/browser/ui/webui/net_internals/net_internals_ui.cc calls",
    ),
    Claim(
        "chromium-why-not",
        "chromium",
        "Chromium gave HPKP up since a pin set that is sure to work is hard to build, a site may become unusable, and "
        "hostile pins can be planted.",
        _INTENT,
    ),
    # -- Firefox -------------------------------------------------------------------------------------------------------
    Claim(
        "firefox-fatal",
        "firefox",
        "Firefox let nobody override a key pinning failure.",
        "support.mozilla.org, 'Certificate pinning reports'",
    ),
    Claim(
        "firefox-valid",
        "firefox",
        "Firefox noted a header only with one pin in the chain and one that is not in it.",
        f"{_SERVICE}, ProcessPKPHeader",
    ),
    Claim(
        "firefox-zero",
        "firefox",
        "Firefox took max-age=0 with and without pins.",
        f"{_SERVICE}, ProcessPKPHeader",
    ),
    Claim("firefox-cap", "firefox", "Firefox capped max-age at 60 days.", f"{_SERVICE}, kSixtyDaysInSeconds"),
    Claim(
        "firefox-covers",
        "firefox",
        "Firefox looked at each name from the host upwards, and took the first entry that covers the host.",
        f"{_PINNING}, FindPinningInformation",
    ),
    Claim(
        "firefox-noted-first",
        "firefox",
        "At each name Firefox tried noted pins before built-in ones.",
        f"{_PINNING}, FindPinningInformation",
    ),
    Claim(
        "firefox-static",
        "firefox",
        "The pins built into Firefox lapsed 14 weeks after the list was made.",
        f"{_PINNING}, FindPinningInformation; security/manager/tools/genHPKPStaticPins.js, "
        "PINNING_MINIMUM_REQUIRED_MAX_AGE",
    ),
    Claim(
        "firefox-1024",
        "firefox",
        "Firefox kept 1024 entries, HSTS among them, and evicted one with the lowest score (of several, any one); a "
        "score grows by one for each day of use.",
        f"{_STORAGE}, MaybeEvictOneEntry and UpdateScore",
    ),
    Claim(
        "firefox-late",
        "firefox",
        "Firefox wrote its file five minutes after a change, or when it ended.",
        f"{_STORAGE}, sDataStorageDefaultTimerDelay and Observe",
    ),
    Claim(
        "firefox-keeps-expired",
        "firefox",
        "Firefox ignored an expired entry and left it in its table.",
        f"{_SERVICE}, GetKeyPinsForHostname",
    ),
    Claim(
        "firefox-private",
        "firefox",
        "Private windows had entries under keys of their own, in a table that was cleared with the last of them.",
        f"{_SERVICE}, SetStorageKey and SetHPKPState; {_STORAGE}, Observe",
    ),
    Claim(
        "firefox-user-roots",
        "firefox",
        "By default Firefox noted nothing under a root that is not built in, and refused nothing by pins there.",
        f"{_SERVICE}, ProcessPKPHeader; Firefox 68, security/certverifier/NSSCertDBTrustDomain.cpp, IsChainValid",
    ),
    Claim(
        "firefox-no-reports",
        "firefox",
        "Firefox sent no reports, and kept no report-uri.",
        f"{_SERVICE}, ParseSSSHeaders; bugzilla.mozilla.org, bug 1091176",
    ),
    Claim(
        "firefox-forgets",
        "firefox",
        "A user of Firefox could clear the pins with the site settings, or take a line out of "
        "SiteSecurityServiceState.txt.",
        "Firefox 57, browser/base/content/sanitize.js, siteSettings; nsSiteSecurityService.cpp, Init",
    ),
    Claim(
        "firefox-why-not",
        "firefox",
        "Firefox switched HPKP off in version 72: too dangerous to use.",
        "Dana Keeler, 'Intent to unship: HPKP', mozilla.dev.platform, 2019-11-17",
    ),
    # -- wget2 ---------------------------------------------------------------------------------------------------------
    Claim(
        "wget2-any",
        "wget2",
        "wget2 notes any pins: it looks at no chain, and asks for no Backup Pin.",
        f"{_HPKP}, wget_hpkp_db_add; seen at each playing",
    ),
    Claim(
        "wget2-no-cap",
        "wget2",
        "wget2 has no cap on max-age.",
        f"{_HPKP}, wget_hpkp_set_maxage; seen at each playing",
    ),
    Claim(
        "wget2-unpins",
        "wget2",
        "wget2 forgets a host at max-age=0, and at a header without pins or max-age.",
        f"{_HPKP}, wget_hpkp_db_add; seen at each playing",
    ),
    Claim(
        "wget2-nearest",
        "wget2",
        "In wget2 the nearest name's entry hides a farther one, even if it does not cover subdomains.",
        f"{_HPKP}, wget_hpkp_db_check_pubkey; seen at each playing",
    ),
    Claim(
        "wget2-no-limit",
        "wget2",
        "wget2 has no limit on its entries. It reads its whole file at each run, and writes it when there was a "
        "header.",
        f"{_HPKP}, _hpkp_db_load and _hpkp_db_save; seen at each playing",
    ),
    Claim(
        "wget2-drops-late",
        "wget2",
        "wget2 ignores an expired entry; it is gone when the file is written again.",
        f"{_HPKP}, _hpkp_db_load and _hpkp_save; seen at each playing",
    ),
    Claim(
        "wget2-one-file",
        "wget2",
        "wget2 has one pin file: no private mode, no static pins; a header changes what is in the file.",
        f"{_HPKP}, wget_hpkp_db_load; seen at each playing",
    ),
    Claim(
        "wget2-all-roots",
        "wget2",
        "wget2 checks every chain against its pins, whatever root it ends in.",
        "wget2 1.99, libwget/ssl_gnutls.c, cert_verify_hpkp; seen at each playing",
    ),
    Claim(
        "wget2-served",
        "wget2",
        "wget2 checks the certificates that the server sends against its pins, not the validated chain: the pin of a "
        "root never matches, since servers do not send roots.",
        "wget2 1.99, libwget/ssl_gnutls.c, verify_certificate_callback; seen at each playing",
    ),
    Claim(
        "wget2-no-reports",
        "wget2",
        "wget2 reads no report-uri.",
        "wget2 1.99, libwget/http_parse.c, wget_http_parse_public_key_pins",
    ),
    Claim(
        "wget2-resumes",
        "wget2",
        "With --tls-resume wget2 does not check a resumed session against its pins; without, it resumes none.",
        "seen at each playing: wget2 verifies no certificate in a resumed handshake",
    ),
)

CLAIMS = {claim.name: claim for claim in _ALL}
