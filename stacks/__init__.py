"""What an environment consists of on AWS: one file per stack, one construct per capability."""
