"""The lab's Internet: what a mail host sends through and to, in the `internet` namespace.

`internet.Internet` is all of it. Nothing is imported here, since each server is a process of its
own that starts sooner without the others' libraries.
"""
