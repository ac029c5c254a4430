"""What a change of the templates means, for the person who reviews it: `postern review`."""
