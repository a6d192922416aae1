"""The programs of the differential suite, by topic.  Importing this package registers them all."""

from . import construction, datagram, examples, forking, loop, one_request, privates, stream, threads

__all__ = ["construction", "datagram", "examples", "forking", "loop", "one_request", "privates", "stream", "threads"]
