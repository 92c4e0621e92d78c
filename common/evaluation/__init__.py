"""Evaluation of agents in many environments at once, with intervals and videos."""
