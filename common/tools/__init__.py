"""Tools for people: report page, values, doctor, hub."""
