"""Schedules carried out by messages: program.py and scratch.py are pure, plan.py runs a program over a transport, threads.py and mpi.py are transports."""
