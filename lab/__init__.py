"""The offline proof: the real deployment, with only AWS and the Internet replaced."""
