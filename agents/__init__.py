"""Agents by their name in `config.yaml`. To add one: its file, and a line here."""

AGENTS = {
    "iql": "agents.iql:IQL",
    "hiql": "agents.hiql:HIQL",
    "sgiql": "agents.sgiql:SGIQL",
    "ecdiffuser": "agents.ecdiffuser:ECDiffuser",
}
