"""One conversation: its verbs, parts and waits, and what runs them."""
