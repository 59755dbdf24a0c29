"""Ranks and hosts, memory that the ranks of a host share, agreement, the watchdog, and the end of a failing job."""
