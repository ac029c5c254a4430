"""An emulated AWS that the real CDK command line deploys into."""
