"""What a mail host delivers in a second, beside the programs that its users would take instead."""
