"""One Lambda entry module per custom resource."""
