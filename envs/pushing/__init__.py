"""A pusher and objects on a table of finite size: ECRL's tasks."""
