"""A deployed key that clients do not expect is not pinned, by a later process either."""

from __future__ import annotations

import logging

import pytest
import trustme

from dynpin import PolicyError
from dynpin.middleware import Policy
from tests.middleware.conftest import Site

from .reloads import rotate


def test_a_key_that_clients_do_not_expect_is_not_pinned(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    # A renewal made a new key. The fix is to deploy the old one, which locks out clients that noted the new one.
    policy = Policy(**site.options)
    chain, expected = site.chain.read_bytes(), site.expected()
    site.deploy(site.issue())
    assert policy.refresh()
    assert (policy.header, policy.field, policy.text_field) == (None, None, None)
    [record] = caplog.records
    assert record.levelno == logging.CRITICAL
    assert "locked out until their pins expire" in record.getMessage()
    assert expected in record.getMessage()
    # Another unknown key is no better, whatever else its file has, and the pinned one brings the header back.
    site.deploy(site.issue())
    assert not policy.refresh()
    site.chain.write_bytes(site.chain.read_bytes() + chain)
    assert not policy.refresh()
    site.chain.write_bytes(chain)
    assert policy.refresh()
    assert str(policy.header) == expected


def test_a_worker_that_starts_later_knows_what_was_sent(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    # A server recycles its workers, or is restarted by the hook of a renewal that made a new key.
    memory = site.folder / "sent"
    options = {**site.options, "remember": memory}
    chain, expected = site.chain.read_bytes(), site.expected()
    Policy(**options)
    assert memory.read_text() == f"Public-Key-Pins: {expected}\n"
    site.deploy(site.issue())
    policy = Policy(**options)
    assert (policy.header, policy.field, policy.text_field) == (None, None, None)
    [record] = caplog.records
    assert record.levelno == logging.CRITICAL
    assert f"remove {memory} and restart" in record.getMessage()
    assert expected in record.getMessage()
    # The fix, as in a process that saw the change.
    site.chain.write_bytes(chain)
    assert policy.refresh()
    assert str(policy.header) == expected
    # The operator may know better, and say so.
    site.deploy(site.issue())
    memory.unlink()
    assert str(Policy(**options).header) == site.expected()
    assert memory.read_text() == f"Public-Key-Pins: {site.expected()}\n"
    assert sorted(path.name for path in site.folder.iterdir()) == ["backup.pub", "fullchain.pem", "key.pem", "sent"]


def test_a_silent_start_remembers_too(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    options = {**site.options, "remember": site.folder / "sent", "on_invalid": "silence"}
    Policy(**options)
    backup = site.backup.read_bytes()
    site.backup.unlink()
    policy = Policy(**options)
    assert policy.header is None
    site.backup.write_bytes(backup)
    site.deploy(site.issue())
    assert not policy.refresh()
    assert policy.header is None
    assert caplog.records[-1].levelno == logging.CRITICAL


def test_what_is_remembered_follows_the_header(site: Site) -> None:
    memory = site.folder / "sent"
    options = {**site.options, "remember": memory}
    policy = Policy(**options)
    rotate(site)
    assert policy.refresh()
    assert memory.read_text() == f"Public-Key-Pins: {site.expected()}\n"
    # What clients do not note is not remembered.
    report_only = {**options, "mode": "report-only", "report_uri": "https://reports.example.net/r/1"}
    assert Policy(**report_only).header is not None
    assert Policy(**{**options, "mode": "unpin"}).header is not None
    assert memory.read_text() == f"Public-Key-Pins: {site.expected()}\n"


def test_a_memory_that_cannot_be_used_is_told(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    (site.folder / "sent").write_text("remember the milk")
    with pytest.raises(PolicyError, match="sent, which keeps the last header, cannot be read"):
        Policy(**site.options, remember=site.folder / "sent")
    with pytest.raises(PolicyError, match=r"cannot be written \(No such file or directory\)"):
        Policy(**site.options, remember=site.folder / "missing" / "sent")
    # While the server runs, the header matters more.
    (site.folder / "sent").unlink()
    policy = Policy(**site.options, remember=site.folder / "sent")
    (site.folder / "sent").unlink()
    (site.folder / "sent").mkdir()
    rotate(site)
    assert policy.refresh()
    assert str(policy.header) == site.expected()
    assert "The header is sent, but it could not be stored" in caplog.text


def test_of_two_chains_each_must_be_pinned(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    # Which of them a client is shown depends on the client.
    second = site.folder / "rsa.pem"
    second.write_bytes(site.issue(key_type=trustme.KeyType.RSA).cert_chain_pems[0].bytes())
    policy = Policy(**{**site.options, "keys": [site.chain, second]})
    second.write_bytes(site.issue(key_type=trustme.KeyType.RSA).cert_chain_pems[0].bytes())
    assert policy.refresh()
    assert policy.header is None
    assert "locked out until their pins expire" in caplog.text


def test_where_no_client_holds_a_pin_any_key_may_follow(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    policy = Policy(**{**site.options, "mode": "report-only", "report_uri": "https://reports.example.net/r/1"})
    site.deploy(site.issue())
    assert policy.refresh()
    assert policy.header is not None
    assert policy.header.pins == site.pins
    assert not caplog.records


def test_to_deploy_the_backup_is_nothing_to_shout_about(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    spare = site.issue()
    site.back_up(spare)
    policy = Policy(**site.options)
    site.deploy(spare)
    site.back_up(site.issue())
    assert policy.refresh()
    assert not policy.refresh()
    assert not caplog.records
