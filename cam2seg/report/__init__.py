"""What people look at: tables in a terminal, painted masks, contact sheets and the HTML report.

What computes a score does not belong here.
"""
