"""TLS for the two sides of a node."""

import ssl

from spleen.dicom.node.settings import NodeSettings
from spleen.errors import InputError


def server_context(settings: NodeSettings) -> ssl.SSLContext | None:
    """TLS for callers, who must have a certificate; None without. Raises InputError for files that cannot be used."""
    return None if settings.tls is None else _context(ssl.PROTOCOL_TLS_SERVER, settings)


def client_context(settings: NodeSettings) -> ssl.SSLContext:
    """TLS for destinations. Raises InputError for files that cannot be used, or that are not set."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, settings)


def _context(protocol: int, settings: NodeSettings) -> ssl.SSLContext:
    tls = settings.tls
    if tls is None:
        raise InputError("tls: certificate, key and ca are needed")
    context = ssl.SSLContext(protocol)
    context.check_hostname = False  # the authority is the hospital's own, and names are often addresses
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        context.load_verify_locations(tls.ca)
    except (ssl.SSLError, OSError) as error:
        raise InputError(f"tls: the certificate, key or ca cannot be used: {error}") from error
    return context
