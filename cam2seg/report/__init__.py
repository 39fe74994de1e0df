"""What people look at: tables in a terminal, painted masks and contact sheets.

What computes a number does not belong here.
"""
