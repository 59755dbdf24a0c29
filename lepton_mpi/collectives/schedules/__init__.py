"""Schedules as data: one short file of arithmetic for each algorithm; START with schedule.py, then ring.py; algorithms.py names them all."""
