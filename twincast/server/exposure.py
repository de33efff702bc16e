"""Where a server may listen, and what is required before others may reach it; decided before anything is opened."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from twincast.access import addresses
from twincast.access.addresses import Address, in_url
from twincast.cluster.key_store import KeyStore
from twincast.errors import AddressUnusable, JournalUnavailable, LoginUnusable
from twincast.journal.local import SCHEME
from twincast.journal.url import file_of, shared_log_of
from twincast.later import later
from twincast.machine import quoted
from twincast.server.lan import Local, local
from twincast.settings import Settings

if TYPE_CHECKING:
    from twincast.server import self_signed
else:
    self_signed = later("twincast.server.self_signed")


logger = logging.getLogger("twincast.server")


class Exposure(NamedTuple):
    """How a server is to be reached."""

    settings: Settings
    """With the names, addresses and the certificate that were found or made."""
    hosts: Sequence[str]
    """Where it listens; the address to show to people comes first."""
    private: Sequence[Address] = ()
    """This machine's addresses on its own networks, if the server is for those."""
    self_signed: "self_signed.SelfSigned | None" = None

    def url(self, host: str, port: int) -> str:
        """Return the address to show for a server whose first listener is there."""
        scheme = "http" if self.settings.tls_cert is None else "https"
        return f"{scheme}://{in_url(self.private[0] if self.private else host)}:{port}"


def refuse_exposure(settings: Settings) -> None:
    """Refuse to expose a server that requires no login, or whose traffic others could read.

    Raises:
        AddressUnusable: it would be exposed; the message has the commands that help. Or --lan contradicts a setting.
        LoginUnusable: TLS, or keys, cannot be set up as asked.
    """
    if settings.self_signed:
        _refuse_two_certificates(settings)
    if settings.lan:
        _refuse_other_than_local(settings)
        return
    if not settings.reaches_others:
        return
    where = "behind a proxy" if addresses.is_local(settings.host) else f"on {settings.host}"
    keys = keys_of(settings)
    journal = f" --journal {quoted(keys)}" if keys != type(settings)().journal else ""
    missing = []
    if not _asks_for_login(settings):
        if file_of(settings.journal) is not None or KeyStore(keys).is_shared:
            missing.append(f"a login:  twincast keys add NAME --may publish,read,command --devices '*'{journal}")
        else:
            missing.append("a login:  a journal on disk, such as --journal sqlite:twincast.db, and `twincast keys add`")
    if settings.tls_cert is None and not settings.self_signed and not settings.behind_tls_proxy:
        missing.append("TLS:      twincast serve ... --tls-cert CERT.pem --tls-key KEY.pem")
        missing.append("or        twincast serve ... --behind-tls-proxy, if only the proxy reaches the port")
        missing.append("or        twincast serve --lan, which is for your own network, and for that alone")
    if missing:
        raise AddressUnusable(f"others would reach a server {where}, so it needs\n  " + "\n  ".join(missing))


def exposed(settings: Settings) -> Exposure:
    """Return how a server is to be reached. For --lan this looks at the machine's interfaces; it opens nothing.

    Raises:
        AddressUnusable: for --lan this machine has no private address, or not the one that was given.
    """
    if not settings.lan:
        return Exposure(settings, [settings.host])
    here = local(settings.host if "host" in settings.model_fields_set else None)
    if not here.private:
        raise AddressUnusable(
            "--lan listens on this machine's private addresses (10.*, 172.16-31.*, 192.168.*, 169.254.*, fc00::/7,"
            " fe80::/10), and it has none; is it on a network?"
        )
    return Exposure(_admitting(settings, here), here.listened, here.private)


def with_certificate(exposure: Exposure) -> Exposure:
    """Make the server's own certificate, or load the one that was made before, if the settings ask for one.

    Raises:
        LoginUnusable: the certificate cannot be stored.
        JournalUnusable: the file beside which it is kept is no journal.
    """
    settings = exposure.settings
    if not settings.self_signed:
        return exposure
    if not (keys := KeyStore(keys_of(settings))).is_shared:
        keys.has_keys()  # what cannot be asked for them is no journal, and gets no certificate beside it
    here = local()
    names = {"localhost", "127.0.0.1", "::1", *here.names, *map(str, here.private), *settings.allow_host}
    named = addresses.parse(settings.host)
    if named is not None and not named.is_unspecified:
        names.add(str(named))
    beside = file_of(settings.journal)
    assert beside is not None  # see `refuse_exposure`
    kept = self_signed.keep_certificate(beside, sorted(names))
    with_tls = settings.model_copy(update={"tls_cert": kept.cert_path, "tls_key": kept.key_path})
    return exposure._replace(settings=with_tls, self_signed=kept)


def has_login(settings: Settings) -> bool:
    """Whether a server has keys, or an issuer of tokens.

    Raises:
        JournalUnusable: its keys cannot be read.
        JournalUnavailable: they are in a shared log, and NATS does not answer.
    """
    return has_issuer(settings) or KeyStore(keys_of(settings)).has_keys()


def keys_of(settings: Settings) -> str:
    """Return the URL by which commands find the keys: those of workers are in the log that they share."""
    path = file_of(settings.journal)
    is_for_workers = settings.workers > 1 and path is not None and path != ":memory:"
    return f"{SCHEME}:{path}" if is_for_workers else settings.journal


def has_issuer(settings: Settings) -> bool:
    """Whether there is an issuer of tokens."""
    return settings.jwt_jwks is not None or settings.jwt_key is not None


def _asks_for_login(settings: Settings) -> bool:
    """Whether a server asks for a login, as far as it can be seen. On a shared log it does so in any case."""
    try:
        return has_login(settings)
    except JournalUnavailable as error:
        logger.warning("whether there are keys cannot be seen yet; a login is asked for, with or without: %s", error)
        return True


def _refuse_two_certificates(settings: Settings) -> None:
    if settings.tls_cert is not None or settings.tls_key is not None:
        raise LoginUnusable("--self-signed makes a certificate, and --tls-cert and --tls-key name one; one of them")
    if settings.behind_tls_proxy:
        raise LoginUnusable("--self-signed is for a server that speaks TLS itself; behind a TLS proxy it does not")
    if file_of(settings.journal) is None:
        raise LoginUnusable(
            "--self-signed keeps its certificate beside the journal, so that is one on disk, such as sqlite:twincast.db"
        )


def _refuse_other_than_local(settings: Settings) -> None:
    if settings.behind_tls_proxy:
        raise AddressUnusable(
            "--lan lets others on the network reach this server, and --behind-tls-proxy says that nobody but the proxy"
            " does; one of them"
        )
    if "host" in settings.model_fields_set and addresses.is_local(settings.host):
        raise AddressUnusable(
            f"--lan lets others on the network reach this server, and on {settings.host} nobody does; leave --host out"
        )
    if shared_log_of(settings.journal) is not None:
        if not _asks_for_login(settings):
            raise LoginUnusable(
                "--lan takes a login:  twincast keys add NAME --may publish,read,command"
                f" --journal {quoted(settings.journal)}"
            )
    elif file_of(settings.journal) is None and not has_login(settings):
        raise LoginUnusable(
            "--lan takes a login, and keys live in a journal on disk: leave --journal out, or name sqlite:PATH"
        )


def _admitting(settings: Settings, here: Local) -> Settings:
    """Add this machine's own names and addresses to the hosts that the server answers to."""
    own = (*here.names, *map(str, here.private))
    return settings.model_copy(update={"allow_host": (*settings.allow_host, *own)})
