"""A matrix → cells with verdicts, before anything runs."""
