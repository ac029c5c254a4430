"""What an operator runs: the `postern` command."""
