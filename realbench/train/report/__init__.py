"""The reports of both trainings."""
