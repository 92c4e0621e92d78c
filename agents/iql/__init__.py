"""Goal-conditioned IQL, flat and through subgoals: EC-IQL, HIQL, EC-SGIQL and its AWR variant."""
