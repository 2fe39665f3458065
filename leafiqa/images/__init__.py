"""From whatever the caller has to pixels."""
