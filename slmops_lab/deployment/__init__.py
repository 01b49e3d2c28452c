"""From weights to served answers."""
