"""What a test holds: life cycle, listener, connections, verdict, factory."""
