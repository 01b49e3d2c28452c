"""What the notebooks stand on: chapters, artifacts, the claims ledger, figures, exercises, the `slmops` command."""
