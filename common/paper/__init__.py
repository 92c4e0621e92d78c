"""The paper's experiments: plan, runs, tables, pictures."""
