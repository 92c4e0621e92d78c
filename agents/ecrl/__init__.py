"""ECRL: online reinforcement learning over entities, by TD3 with hindsight goals."""
