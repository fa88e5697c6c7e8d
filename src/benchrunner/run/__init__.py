"""The loop over a plan: what runs when, watched, ended, and how far it has come."""
