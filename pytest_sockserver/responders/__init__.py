"""What answers: a handler, a script, rules, or nothing."""
