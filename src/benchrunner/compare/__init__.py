"""One sweep held against another, or against what is expected of it."""
