"""What happened: sockets that note what passes through them, and the recorder that keeps it.  Only observes."""
