"""Two independent receivers that say what they make of a message instead of guessing.

They verify with nothing in common on purpose: the first with Python libraries, the second with the
programs that mail servers run. What one of them overlooks, the other may see.
"""
