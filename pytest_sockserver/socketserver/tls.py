"""TLS on each accepted connection, with the handshake where it does no harm: in the handler's thread.

The usual recipe, ``server.socket = context.wrap_socket(server.socket, server_side=True)``, has the handshake done by
``accept()``, in the loop: one client that connects and says nothing stops the server for all others, and a timeout of
the listening socket does not bound it.  Here ``accept()`` stays plain, the accepted socket is wrapped without any
input or output, and the handshake is the first thing that the handler's thread does, under a deadline.

``ssl`` is not imported by this module: whoever has a context has imported it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl

    from .stream import TCPServer as _Mixable
else:
    _Mixable = object


class TLSMixIn(_Mixable):
    """Make a stream server speak TLS: ``class Server(ThreadingMixIn, TLSMixIn, TCPServer): ssl_context = ...``.

    Without ``ThreadingMixIn`` or ``ForkingMixIn`` a silent client holds up the loop for ``handshake_timeout``.

    A handshake that fails goes to ``handle_error()``, as an error of the handler would; the handler is not made.
    """

    #: What each connection is wrapped with.  Set it on the class, or on the instance before the constructor binds.
    ssl_context: ssl.SSLContext | None = None

    #: Seconds for the whole handshake; None: no limit.  The socket's own timeout is restored afterwards.
    handshake_timeout: float | None = 5.0

    def server_bind(self) -> None:
        """Bind; raise TypeError first if there is no ``ssl_context``."""
        self._context()
        super().server_bind()

    def server_activate(self) -> None:
        """Listen; raise TypeError first if there is no ``ssl_context``."""
        self._context()
        super().server_activate()

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection and wrap it.  No byte is read or written."""
        request, client_address = super().get_request()
        try:
            wrapped = self._context().wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        except BaseException:
            request.close()
            raise
        return wrapped, client_address

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Do the handshake, then have the request handled.  In the handler's thread."""
        timeout = request.gettimeout()
        request.settimeout(self.handshake_timeout)
        request.do_handshake()  # its deadline is for all of its messages together
        request.settimeout(timeout)
        super().finish_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Send close_notify, if that can be done without waiting, then end and close the connection."""
        try:
            request.settimeout(0)
            request.unwrap()  # sends ours, and would then wait for the client's: SSLWantReadError
        except (OSError, ValueError):
            pass  # ValueError: the handler has unwrapped it already.  OSError covers ssl.SSLError
        super().shutdown_request(request)

    def _context(self) -> ssl.SSLContext:
        if self.ssl_context is None:
            raise TypeError(
                f"ssl_context must be an ssl.SSLContext, not None: set it on {type(self).__name__}, "
                "or on the instance before the constructor of TCPServer is called"
            )
        return self.ssl_context
