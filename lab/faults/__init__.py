"""Nothing lost: a stream of mail, a fault in the middle of it, and an account of every message.

`stream` submits on the mail host and keeps what was accepted outside of it; `ledger` compares that
with what receivers got; `trial` runs one fault; the other modules hold the faults by what they hit.
"""
