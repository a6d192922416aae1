"""What goes wrong on purpose: modifiers, fault injection, the fault matrix."""
