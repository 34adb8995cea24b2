"""The files of a certificate: one line for each that cannot be used, or that clients will not like."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bullmq_proxy.gateway.access.certificates import Certificate, CertificateError, names, read
from tests.support.certificates import OPENSSL, make_certificate

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with files of all kinds."""
    directory = tmp_path_factory.mktemp("certificates")
    for name in ("good", "other"):
        make_certificate(directory, name, "-nodes", "-days", "30")
    make_certificate(directory, "locked", "-passout", "pass:hunter2")
    make_certificate(directory, "soon", "-nodes", "-days", "3")
    good, key = directory / "good.pem", directory / "good.key"
    old = (str(OPENSSL), "x509", "-in", str(good), "-signkey", str(key), "-days", "-1", "-out", str(directory / "old"))
    subprocess.run(old, check=True, capture_output=True)
    (directory / "both").touch(0o600)
    (directory / "both").write_text(good.read_text() + key.read_text())
    (directory / "half").write_text(good.read_text()[:300])
    (directory / "der").write_bytes(b"0\x82\x01\x00")
    (directory / "shown").write_text(key.read_text())
    (directory / "shown").chmod(0o644)
    return directory


@pytest.mark.parametrize(
    ("cert", "key", "ca", "problem"),
    [
        ("none", "good.key", None, r"tls_cert: cannot read \S+/none: No such file or directory"),
        ("good.pem", "none", None, r"tls_key: cannot read \S+/none: No such file or directory"),
        (".", "good.key", None, r"tls_cert: \S+ is no regular file"),
        (
            "der",
            "good.key",
            None,
            r"tls_cert: \S+/der holds no certificate in the form PEM: convert it \(`openssl x509",
        ),
        ("half", "good.key", None, r"tls_cert: OpenSSL cannot use \S+/half with the key in \S+/good.key: a text"),
        ("good.pem", "good.pem", None, r"tls_key: other users can read or write \S+/good.pem .*: chmod 600"),
        ("good.pem", "both", None, ""),
        ("both", None, None, ""),
        ("good.pem", None, None, r"tls_cert: \S+/good.pem holds no private key: name the file that does in tls_key"),
        ("good.pem", "shown", None, r"tls_key: other users can read or write \S+/shown \(mode 0644\): chmod 600"),
        ("locked.pem", "locked.key", None, r"tls_key: the key in \S+/locked.key has a password, .*openssl pkey"),
        ("good.pem", "other.key", None, r"tls_key: the key in \S+/other.key does not fit the first certificate in \S+"),
        ("good.pem", "good.key", "none", r"tls_client_ca: cannot read \S+/none"),
        ("good.pem", "good.key", "half", r"tls_client_ca: OpenSSL cannot use \S+/half: "),
        ("good.pem", "good.key", "other.pem", ""),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_a_remedy(
    place: Path, cert: str, key: str | None, ca: str | None, problem: str
) -> None:
    def at(name: str | None) -> str | None:
        return None if name is None else str(place / name)

    if not problem:
        found, remarks = read(at(cert), at(key), at(ca), "required")
        assert found is not None
        assert Certificate.from_json(found.to_json()) == found
        assert "PRIVATE" not in repr(found).replace(repr(found.chain), "")
        assert remarks == ()
        return
    with pytest.raises(CertificateError, match=problem) as caught:
        read(at(cert), at(key), at(ca), "required")
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("cert", "key", "remark"),
    [
        ("old", "good.key", "clients will refuse the certificate in {}: certificate has expired"),
        ("soon.pem", "soon.key", "the certificate in {} ends in 3.0 days"),
    ],
)
def test_one_that_has_ended_or_soon_will_is_for_the_log(place: Path, cert: str, key: str, remark: str) -> None:
    _, remarks = read(str(place / cert), str(place / key), None, "required")
    assert remarks == (f"tls_cert: {remark.format(place / cert)}",)


def test_without_a_certificate_there_is_no_tls() -> None:
    assert read(None, None, None, "required") == (None, ())


def test_the_names_of_a_client_are_its_common_name_and_its_uris() -> None:
    subject = ((("countryName", "NL"),), (("commonName", "shop"),))
    assert names({"subject": subject, "subjectAltName": (("DNS", "a"), ("URI", "billing"))}) == ["shop", "billing"]
    assert names({}) == names(None) == []
